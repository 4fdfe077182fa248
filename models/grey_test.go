package models

import (
	"path/filepath"
	"testing"

	"sagbench/models/checkpoint/randomweights"
	"sagbench/sampling/tensor"
)

// TestGrey draws with U-Nets of one channel, and says of a checkpoint that it is
// one.
func TestGrey(t *testing.T) {
	c := NewADM()
	c.ImageSize, c.NumChannels, c.NumResBlocks, c.ChannelMult, c.AttentionResolutions, c.LearnSigma, c.InChannels = 16, 32, 1, "1,2", "8", true, 1
	shapes, err := c.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	if in, out := shapes["input_blocks.0.0.weight"], shapes["out.2.weight"]; in[1] != 1 || out[0] != 2 {
		t.Errorf("input %v, output %v", in, out)
	}
	path := filepath.Join(t.TempDir(), "grey.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	m, err := c.Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := m.(Generator)
	x := tensor.New(append([]int{1}, g.SampleShape()...)...)
	x.Data[5] = 1
	im, err := g.Pixels(t.Context(), x)
	if err != nil || len(im.Pixels) != 16*16*3 || im.Pixels[15] != 255 || im.Pixels[16] != 255 || im.Pixels[17] != 255 || im.Pixels[0] != 127 {
		t.Errorf("pixels %v, %v", im.Pixels, err)
	}
	rgb := *c
	rgb.InChannels = 0
	_, err = rgb.Open(path, Options{})
	wantError(t, err, "its shapes suggest in_channels: 1 (not 3)")
	latent := *c
	latent.InChannels = 4
	_, err = latent.Open(path, Options{})
	wantError(t, err, "in_channels 4: images have 3 channels, or 1 where they are grey")

	k := NewClassifier()
	k.ImageSize, k.Width, k.Depth, k.ChannelMult, k.AttentionResolutions, k.NumHeadChannels, k.InChannels = 16, 32, 1, "1,2", "8", 32, 1
	if shapes, err = k.Parameters(); err != nil || shapes["input_blocks.0.0.weight"][1] != 1 {
		t.Errorf("classifier: %v, %v", shapes["input_blocks.0.0.weight"], err)
	}
}
