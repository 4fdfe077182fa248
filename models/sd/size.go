package sd

import (
	"path/filepath"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

var (
	_ models.Measured = (*VAE)(nil)
	_ models.Measured = (*UNet2D)(nil)
	_ models.Measured = (*DiT2D)(nil)
)

// measured adds the size of a part, whose largest value is counted alone where the
// part takes one image at a time, however many are drawn.
func measured(sum *models.Size, alone bool, build func(*onnx.Module)) error {
	s, err := onnx.Measure(build)
	sum.Nodes += s.Nodes
	sum.Parameters += s.Parameters
	if alone {
		sum.Alone = max(sum.Alone, s.Activation)
	} else {
		sum.Activation = max(sum.Activation, s.Activation)
	}
	return err
}

// decoding is the decoder for latents of a size, as a graph.
func (c *vaeConfig) decoding(s size) func(*onnx.Module) {
	return func(m *onnx.Module) {
		c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, s.height, s.width))
	}
}

// measure is Measured: the parameters of all networks that are held at once, and the
// largest values.
func (p pipeline) measure(path string) (sum models.Size, err error) {
	d, err := p.described(path)
	if err != nil || p.Component != "" {
		return sum, nil
	}
	s := p.latentSize(d.unet, d.vae)
	if s.height < 1 || s.width < 1 {
		return sum, nil // opening asks for height and width
	}
	length := clipLength
	for _, t := range d.texts {
		length = min(length, t.MaxPositionEmbeddings)
	}
	if err = measured(&sum, false, func(m *onnx.Module) { d.unet.build(m, sdSize{s, length}, models.NewTaps(models.Options{})) }); err != nil {
		return sum, err
	}
	if err = measured(&sum, true, d.vae.decoding(s)); err != nil {
		return sum, err
	}
	for _, t := range d.texts {
		if err = measured(&sum, true, func(m *onnx.Module) { t.build(m, textKey{length: length}) }); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// Measure implements models.Measured: the decoder for latents of a height and width.
func (c *VAE) Measure(path string, height, width int) (sum models.Size, err error) {
	config := newVAEConfig()
	if isFile(path) {
		w, err := fileWeights(path, "")
		if err != nil {
			return sum, nil
		}
		defer w.Close()
		if config, err = vaeOf(w); err != nil {
			return sum, nil
		}
	} else if path, err = snapshot(path); err != nil || readConfig(path, config) != nil {
		return sum, nil
	}
	return sum, measured(&sum, true, config.decoding(size{height, width}))
}

// Measure implements models.Measured.
func (c *UNet2D) Measure(path string, _, _ int) (sum models.Size, err error) {
	config := newUNet2DConfig()
	network, _, err := unet2DFolders(path)
	if err != nil || readConfig(network, config) != nil {
		return sum, nil
	}
	return sum, measured(&sum, false, func(m *onnx.Module) { config.build(m, models.NewTaps(models.Options{})) })
}

// Measure implements models.Measured.
func (c *DiT2D) Measure(path string, _, _ int) (sum models.Size, err error) {
	network, vae := newDiT2DConfig(), newVAEConfig()
	path, err = snapshot(path)
	if err != nil || readConfig(filepath.Join(path, "transformer"), network) != nil || readConfig(filepath.Join(path, "vae"), vae) != nil {
		return sum, nil
	}
	if err = measured(&sum, false, func(m *onnx.Module) { network.build(m, models.NewTaps(models.Options{})) }); err != nil {
		return sum, err
	}
	return sum, measured(&sum, true, vae.decoding(size{network.SampleSize, network.SampleSize}))
}
