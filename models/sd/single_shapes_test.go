package sd

import (
	"fmt"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// ldmShapes lists the keys and shapes of a U-Net as openaimodel.py UNetModel
// makes them, level by level.
type ldmShapes struct {
	sd     checkpoint.StateDict
	linear bool
	width  int // context_dim
}

func (s *ldmShapes) put(key string, shape ...int) {
	s.sd[ldmUNet+key] = checkpoint.Tensor{DType: checkpoint.F32, Shape: shape, File: "model.ckpt", Size: int64(4 * tensor.Size(shape)), Raw: small(tensor.Size(shape))}
}

func (s *ldmShapes) layer(key string, weight ...int) {
	s.put(key+".weight", weight...)
	s.put(key+".bias", weight[0])
}

func (s *ldmShapes) resnet(key string, in, out, emb int) {
	s.layer(key+".in_layers.0", in)
	s.layer(key+".in_layers.2", out, in, 3, 3)
	s.layer(key+".emb_layers.1", out, emb)
	s.layer(key+".out_layers.0", out)
	s.layer(key+".out_layers.3", out, out, 3, 3)
	if in != out {
		s.layer(key+".skip_connection", out, in, 1, 1)
	}
}

func (s *ldmShapes) transformer(key string, ch int) {
	proj := []int{ch, ch, 1, 1}
	if s.linear {
		proj = proj[:2]
	}
	s.layer(key+".norm", ch)
	s.layer(key+".proj_in", proj...)
	s.layer(key+".proj_out", proj...)
	b := key + ".transformer_blocks.0"
	for i, context := range []int{ch, s.width} {
		a := fmt.Sprintf("%s.attn%d", b, i+1)
		s.put(a+".to_q.weight", ch, ch)
		s.put(a+".to_k.weight", ch, context)
		s.put(a+".to_v.weight", ch, context)
		s.layer(a+".to_out.0", ch, ch)
	}
	for _, n := range []string{".norm1", ".norm2", ".norm3"} {
		s.layer(b+n, ch)
	}
	s.layer(b+".ff.net.0.proj", 8*ch, ch)
	s.layer(b+".ff.net.2", ch, 4*ch)
}

// unet is SD's: model_channels 320, channel_mult 1,2,4,4, two blocks a level,
// attention in the first three.
func (s *ldmShapes) unet() {
	const base, blocks, emb = 320, 2, 1280
	mult := []int{1, 2, 4, 4}
	s.layer("time_embed.0", emb, base)
	s.layer("time_embed.2", emb, emb)
	s.layer("input_blocks.0.0", base, 4, 3, 3)
	ch, at, skips := base, 1, []int{base}
	for level, m := range mult {
		for range blocks {
			s.resnet(fmt.Sprintf("input_blocks.%d.0", at), ch, m*base, emb)
			if ch = m * base; level < 3 {
				s.transformer(fmt.Sprintf("input_blocks.%d.1", at), ch)
			}
			skips, at = append(skips, ch), at+1
		}
		if level < 3 {
			s.layer(fmt.Sprintf("input_blocks.%d.0.op", at), ch, ch, 3, 3)
			skips, at = append(skips, ch), at+1
		}
	}
	s.resnet("middle_block.0", ch, ch, emb)
	s.transformer("middle_block.1", ch)
	s.resnet("middle_block.2", ch, ch, emb)
	at = 0
	for level := 3; level >= 0; level-- {
		for i := range blocks + 1 {
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			s.resnet(fmt.Sprintf("output_blocks.%d.0", at), ch+skip, mult[level]*base, emb)
			next := 1
			if ch = mult[level] * base; level < 3 {
				s.transformer(fmt.Sprintf("output_blocks.%d.1", at), ch)
				next = 2
			}
			if level > 0 && i == blocks {
				s.layer(fmt.Sprintf("output_blocks.%d.%d.conv", at, next), ch, ch, 3, 3)
			}
			at++
		}
	}
	s.layer("out.0", base)
	s.layer("out.2", 4, base, 3, 3)
}

// TestSingleFileUNets: the published U-Nets in CompVis' layout, shapes alone,
// become those of the published config.json files.
func TestSingleFileUNets(t *testing.T) {
	for name, s := range map[string]*ldmShapes{
		"stable-diffusion-v1-5": {width: 768}, "stable-diffusion-2-1": {width: 1024, linear: true},
	} {
		s.sd = checkpoint.StateDict{}
		s.unet()
		file, err := splitSingle(&weights{path: name, tensors: s.sd}, false, "unet")
		if err != nil {
			t.Fatal(err)
		}
		want, got := configOf(t, newSDUNetConfig(), publishedUNets[name]), file.unetConfig()
		for _, c := range []*sdUNetConfig{want, got} { // one number and the same four times are alike
			for _, o := range []*oneOrMany{&c.AttentionHeadDim, &c.LayersPerBlock, &c.TransformerLayersPerBlock} {
				if o.values, err = o.of("", 4, maxWidth); err != nil {
					t.Fatal(err)
				}
				o.list = true
			}
			c.SampleSize = nil
		}
		if fmt.Sprint(*got) != fmt.Sprint(*want) {
			t.Errorf("%s: the shapes say\n%v, config.json\n%v", name, *got, *want)
		}
		if _, err := onnx.Build(file.unet, func(m *onnx.Module) { got.build(m, sdSize{size{8, 8}, 77}, models.NewTaps(models.Options{})) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
