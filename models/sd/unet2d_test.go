package sd

import (
	"fmt"
	"path/filepath"
	"testing"

	"sagbench/models"
	"sagbench/sampling"
)

const (
	cifarTiny = casesFolder + "unet2d-cifar-tiny/model" // parts beside model_index.json
	headsTiny = casesFolder + "unet2d-heads-tiny/model" // parts in folders
)

// TestUNet2DFolders: what the folders of DDPMPipeline and DDIMPipeline say is
// known before they are opened; their numbers are reference cases.
func TestUNet2DFolders(t *testing.T) {
	for _, c := range []struct {
		folder string
		side   int
		layers string
		clips  bool
	}{
		{cifarTiny, 16, "down_blocks.1.attentions.0 8×8 heads 1", true},
		{headsTiny, 8, "down_blocks.0.attentions.0 8×8 heads 2", true},
	} {
		f := &UNet2D{}
		if h, w := f.ImageSides(c.folder); h != c.side || w != c.side {
			t.Errorf("%s: %d×%d", c.folder, h, w)
		}
		g, ok := f.GuessFolder(c.folder)
		if l := g.Attention[0]; !ok || fmt.Sprintf("%s %d×%d heads %d", l.Name, l.Height, l.Width, l.Heads) != c.layers {
			t.Errorf("%s: %v, %v", c.folder, ok, g.Attention)
		}
		if _, ok := (&SD{}).GuessFolder(c.folder); ok {
			t.Errorf("%s is no Stable Diffusion", c.folder)
		}
		if files, err := f.Files(c.folder); err != nil || len(files) != 3 {
			t.Errorf("files %v, %v", files, err)
		}
		m, err := f.Open(c.folder, models.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := m.(*unet2DNet)
		if p := n.Process(); p.ClipDenoised != c.clips || n.SampleShape()[1] != c.side {
			t.Errorf("process %+v, shape %v", p, n.SampleShape())
		}
		m.Close()
	}
	_, err := (&SD{}).Open(cifarTiny, models.Options{})
	wantError(t, err, "is the folder of a DDPMPipeline, which draws without prompts (family: unet2d)")
	_, err = (&UNet2D{}).Open(tinySD, models.Options{})
	wantError(t, err, "is the folder of a StableDiffusion")
	for want, edit := range map[string][2]string{
		"down_block_types: block 1 is \"ResnetDownsampleBlock2D\", which is not supported": {`"AttnDownBlock2D"`, `"ResnetDownsampleBlock2D"`},
		"sample_size is 18×18, expected positive multiples of 4":                           {`"sample_size": 16`, `"sample_size": 18`},
		"in_channels is 4; images have 3 channels, or 1 where they are grey":               {`"in_channels": 3`, `"in_channels": 4`},
		"class_embed_type: \"timestep\" is not supported; supported: null":                 {`"class_embed_type": null`, `"class_embed_type": "timestep"`},
		"attention_head_dim: block 1 has 32 channels, which its heads do not divide":       {`"attention_head_dim": null`, `"attention_head_dim": 5`},
		"resnet_time_scale_shift: \"scale_shift\" is not supported; supported: default":    {`"resnet_time_scale_shift": "default"`, `"resnet_time_scale_shift": "scale_shift"`},
	} {
		folder := copyFolder(t, cifarTiny)
		if err := replaceIn(filepath.Join(folder, "config.json"), edit[0], edit[1]); err != nil {
			t.Fatal(want, err)
		}
		_, err := (&UNet2D{}).Open(folder, models.Options{})
		wantError(t, err, want)
	}
}

// TestDiT2DFolder: a DiTPipeline draws from labels and decodes; its numbers are a
// reference case.
func TestDiT2DFolder(t *testing.T) {
	const folder = casesFolder + "dit2d-tiny/model"
	f := &DiT2D{}
	if h, w := f.ImageSides(folder); h != 16 || w != 16 {
		t.Errorf("%d×%d", h, w)
	}
	if g, ok := f.GuessFolder(folder); !ok || len(g.Attention) != 2 || g.Attention[1] != (models.Layer{Name: "transformer_blocks.1.attn1", Heads: 2, Height: 4, Width: 4}) {
		t.Errorf("%v, %v", ok, g.Attention)
	}
	if files, err := f.Files(folder); err != nil || len(files) != 5 {
		t.Errorf("files %v, %v", files, err)
	}
	m, err := f.Open(folder, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n := m.(*dit2DNet)
	null, err := n.Null(t.Context(), 2)
	if err != nil || null.Labels[1] != 10 || n.Classes() != 10 || n.Process().ClipDenoised {
		t.Errorf("∅ %v, %d classes, process %+v, %v", null.Labels, n.Classes(), n.Process(), err)
	}
	x := noise(t, append([]int{2}, n.SampleShape()...)...)
	if p, err := n.Denoise(t.Context(), x, sampling.Timestep{Value: 3}, null); err != nil || len(p.Eps.Data) != len(x.Data) || len(p.Var.Data) != len(x.Data) {
		t.Errorf("prediction of %v and %v, %v", p.Eps.Shape, p.Var.Shape, err)
	}
	if im, err := n.Pixels(t.Context(), x); err != nil || im.Height != 16 || im.N != 2 {
		t.Errorf("%d images of %d pixels, %v", im.N, im.Height, err)
	}
	_, err = (&SD{}).Open(folder, models.Options{})
	wantError(t, err, "is the folder of a DiTPipeline, which draws from labels (family: dit2d)")
	_, err = f.Open(tinySD, models.Options{})
	wantError(t, err, "is the folder of a StableDiffusion")
}
