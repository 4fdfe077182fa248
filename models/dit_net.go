package models

import (
	"context"
	"errors"
	"fmt"

	"sagbench/configs"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A ditNet is a prepared DiT with its autoencoder.
type ditNet struct {
	network
	flags *DiT
	vae   Decoder // nil without one
}

var (
	_ LatentGenerator = (*ditNet)(nil)
	_ Unconditional   = (*ditNet)(nil)
	_ Composite       = (*DiT)(nil)
)

// vaeSpec is the model block of the autoencoder. A path alone is that of a
// diffusers folder.
func (c *DiT) vaeSpec() (Spec, error) {
	if path, ok := c.VAE.Text(); ok {
		return Spec{Family: "vae", Checkpoint: path, Flags: &VAE{}}, nil
	}
	return Decode(c.VAE)
}

func (c *DiT) checkVAE() error {
	var errs []error
	if !c.VAE.IsNull() {
		_, err := c.vaeSpec()
		errs = append(errs, err)
	}
	if f := c.VAEScalingFactor; !(f > 0 || f < 0) {
		errs = append(errs, fmt.Errorf("vae_scaling_factor is %g, expected a number that latents can be divided by, such as 0.18215", f))
	}
	return errors.Join(errs...)
}

// ImageSide is the height and width of the images in pixels with the autoencoder
// of Stable Diffusion.
func (c *DiT) ImageSide() int { return 8 * c.InputSize }

// Parts implements Composite.
func (c *DiT) Parts() []configs.Block {
	if c.VAE.IsNull() {
		return nil
	}
	if _, ok := c.VAE.Text(); ok {
		return []configs.Block{c.VAE}
	}
	path, _ := c.VAE.At("checkpoint")
	return []configs.Block{path}
}

// openVAE is the autoencoder, nil where the flags name none.
func (c *DiT) openVAE(opt Options) (Decoder, error) {
	if c.VAE.IsNull() {
		return nil, nil
	}
	s, err := c.vaeSpec()
	if err != nil {
		return nil, err
	}
	path, err := c.vaePath(s, opt.Find)
	if err != nil {
		return nil, err
	}
	opt.Taps, opt.Perturbations = nil, nil
	m, err := s.Flags.Open(path, opt)
	if err != nil {
		return nil, err
	}
	d, ok := m.(Decoder)
	switch {
	case !ok:
		err = c.VAE.Errorf("family %s decodes no latents; expected an autoencoder, such as family vae", s.Family)
	case d.LatentChannels() != c.InChannels:
		err = c.VAE.Errorf("the autoencoder's latents have %d channels, in_channels is %d", d.LatentChannels(), c.InChannels)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return d, nil
}

func (c *DiT) vaePath(s Spec, find func(configs.Block) (string, error)) (string, error) {
	if find == nil {
		return s.Checkpoint, nil
	}
	return find(c.Parts()[0])
}

// Close implements Model.
func (n *ditNet) Close() {
	n.network.Close()
	if n.vae != nil {
		n.vae.Close()
	}
}

// Process implements Generator: latents are not clipped.
func (n *ditNet) Process() Process {
	p := processOf(n.flags.ScheduleConfig, n.flags.PredictXStart)
	p.ClipDenoised = false
	return p
}

// SampleShape implements Generator.
func (n *ditNet) SampleShape() []int {
	return []int{n.flags.InChannels, n.flags.InputSize, n.flags.InputSize}
}

// Classes implements Generator; the null class is not counted.
func (n *ditNet) Classes() int { return n.flags.NumClasses }

// Null implements Unconditional: the class after the last.
func (n *ditNet) Null(images int) (sampling.Cond, error) {
	if n.flags.ClassDropoutProb <= 0 {
		return sampling.Cond{}, nil
	}
	c := sampling.Cond{Labels: make([]int64, images)}
	for i := range c.Labels {
		c.Labels[i] = int64(n.flags.NumClasses)
	}
	return c, nil
}

// Lacks implements Incomplete.
func (n *ditNet) Lacks() error {
	if n.vae == nil {
		return errors.New("models: dit: the flags name no vae: give the folder of the autoencoder that decodes the latents, such as sd-vae-ft-ema")
	}
	return nil
}

// Decode implements LatentGenerator: the autoencoder's image of x/0.18215.
func (n *ditNet) Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	if err := n.Lacks(); err != nil {
		return tensor.Tensor{}, err
	}
	z, scale := x.Like(), float32(n.flags.VAEScalingFactor)
	for i, v := range x.Data {
		z.Data[i] = v / scale
	}
	return n.vae.Decode(ctx, z)
}

// Pixels implements Generator: 127.5·x + 128 clamped to [0,255] and truncated, as
// DiT's sample_ddp.py does.
func (n *ditNet) Pixels(ctx context.Context, x tensor.Tensor) (Images, error) {
	decoded, err := n.Decode(ctx, x)
	if err != nil {
		return Images{}, err
	}
	return ditPixels(decoded), nil
}

func ditPixels(x tensor.Tensor) Images {
	return imagesOf(x, func(v float32) float32 { return float32(127.5*v) + 128 })
}
