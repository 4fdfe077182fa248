package models

import (
	"context"
	"fmt"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/tensor"
)

// size is the height and width of a network's input.
type size struct{ height, width int }

// sizeOf is the size of an array [N,C,H,W].
func sizeOf(name string, a ort.Array, channels int) (size, error) {
	if len(a.Shape) != 4 || a.Shape[1] != channels || a.Shape[2] < 1 || a.Shape[3] < 1 {
		return size{}, fmt.Errorf("models: %s has shape %v, expected [N,%d,H,W]", name, a.Shape, channels)
	}
	return size{a.Shape[2], a.Shape[3]}, nil
}

// Open implements Family.
func (c *VAE) Open(path string, opt Options) (Model, error) { return c.Load(path, opt) }

// Load opens the autoencoder; graphs are made for the sizes that come. The
// folder's keys are compared with its config.json at once.
func (c *VAE) Load(path string, opt Options) (*VAENet, error) {
	if len(opt.Taps) > 0 {
		return nil, fmt.Errorf("models: %s: layer %q: the attention maps of an autoencoder cannot be tapped", path, opt.Taps[0].Layer)
	}
	config := newVAEConfig()
	if err := readConfig(path, config); err != nil {
		return nil, err
	}
	w, err := folderWeights(path, diffusersStems, c.Variant)
	if err != nil {
		return nil, err
	}
	n, err := newVAENet(config, w, opt)
	if err != nil {
		w.Close()
		return nil, err
	}
	return n, nil
}

func newVAENet(c *vaeConfig, w *weights, opt Options) (*VAENet, error) {
	f := c.factor()
	if _, err := onnx.Build(w.tensors, func(m *onnx.Module) {
		c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, 1, 1))
		c.encoder(m, m.Input("image", checkpoint.F32, onnx.Batch, c.InChannels, f, f))
	}); err != nil {
		return nil, w.fault(err)
	}
	opt.Content = w.SHA256
	half := func(build func(*onnx.Module, size) error, prefixes ...string) *sizedNet[size] {
		return &sizedNet[size]{path: w.path, tensors: withPrefix(w.tensors, prefixes...), opt: opt.Options, build: build}
	}
	return &VAENet{config: c, weights: w,
		decode: half(func(m *onnx.Module, s size) error {
			m.Output("model", c.decoder(m, m.Input("z", checkpoint.F32, onnx.Batch, c.LatentChannels, s.height, s.width)))
			return nil
		}, "decoder.", "post_quant_conv."),
		encode: half(func(m *onnx.Module, s size) error {
			m.Output("moments", c.encoder(m, m.Input("image", checkpoint.F32, onnx.Batch, c.InChannels, s.height, s.width)))
			return nil
		}, "encoder.", "quant_conv."),
	}, nil
}

// withPrefix is the part of a state dict whose keys begin so.
func withPrefix(sd checkpoint.StateDict, prefixes ...string) checkpoint.StateDict {
	part := checkpoint.StateDict{}
	for key, t := range sd {
		if slices.ContainsFunc(prefixes, func(p string) bool { return len(key) > len(p) && key[:len(p)] == p }) {
			part[key] = t
		}
	}
	return part
}

// A VAENet is an autoencoder with its weights at hand.
type VAENet struct {
	config         *vaeConfig
	weights        *weights
	decode, encode *sizedNet[size]
}

var _ Model = (*VAENet)(nil)

// LatentChannels is the number of channels of a latent.
func (n *VAENet) LatentChannels() int { return n.config.LatentChannels }

// Factor is how many pixels a latent is wide and high: 8 for Stable Diffusion.
func (n *VAENet) Factor() int { return n.config.factor() }

// ScalingFactor is the scaling_factor of config.json: a diffusion model sees
// latents times this.
func (n *VAENet) ScalingFactor() float64 { return n.config.ScalingFactor }

// Close frees all sessions.
func (n *VAENet) Close() {
	n.decode.Close()
	n.encode.Close()
	n.weights.Close()
}

// decodeArea bounds the pixels that are decoded at a time: the decoder's widest
// layers hold 2 KiB a pixel.
const decodeArea = 512 * 512

// Decode turns latents as the decoder takes them, [N,C,h,w] without the scaling
// factor, into images, [N,3,f·h,f·w], in [-1,1] but for overshoot.
func (n *VAENet) Decode(ctx context.Context, z tensor.Tensor) (tensor.Tensor, error) {
	s, err := sizeOf("z", ort.Floats(z), n.config.LatentChannels)
	if err != nil {
		return tensor.Tensor{}, err
	}
	f := n.config.factor()
	out := tensor.New(z.Shape[0], n.config.OutChannels, f*s.height, f*s.width)
	batch := max(1, decodeArea/(f*s.height*f*s.width))
	for from := 0; from < z.Rows(); from += batch {
		to := min(from+batch, z.Rows())
		r, err := n.decode.Run(ctx, s, map[string]ort.Array{"z": ort.Floats(z.Slice(from, to))})
		if err != nil {
			return tensor.Tensor{}, err
		}
		copy(out.Slice(from, to).Data, r["model"].Tensor().Data)
	}
	return out, nil
}

// DecodeScaled is Decode for latents as a diffusion model gives them:
// x/scaling_factor + shift_factor.
func (n *VAENet) DecodeScaled(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	scale, shift := float32(n.config.ScalingFactor), float32(0)
	if n.config.ShiftFactor != nil {
		shift = float32(*n.config.ShiftFactor)
	}
	z := x.Like()
	for i, v := range x.Data {
		z.Data[i] = v/scale + shift
	}
	return n.Decode(ctx, z)
}

// Encode is the distribution of an image's latents: x [N,3,H,W] in [-1,1] → mean
// and log variance, [N,2·C,H/f,W/f], before any scaling.
func (n *VAENet) Encode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	s, err := sizeOf("image", ort.Floats(x), n.config.InChannels)
	if err != nil {
		return tensor.Tensor{}, err
	}
	if f := n.config.factor(); s.height < f || s.width < f {
		return tensor.Tensor{}, fmt.Errorf("models: images of %d×%d pixels: the encoder needs at least %d×%d", s.height, s.width, f, f)
	}
	r, err := n.encode.Run(ctx, s, map[string]ort.Array{"image": ort.Floats(x)})
	if err != nil {
		return tensor.Tensor{}, err
	}
	return r["moments"].Tensor(), nil
}

// Forward implements Model: z or x [N,C,h,w] → model [N,3,H,W]; image
// [N,3,H,W] → moments [N,2·C,h,w].
func (n *VAENet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	out := map[string]ort.Array{}
	for name, a := range in {
		x, ok := a.Data.([]float32)
		if !ok {
			return nil, fmt.Errorf("models: %s holds %T, expected float32", name, a.Data)
		}
		var y tensor.Tensor
		var err error
		switch name {
		case "z", "x":
			y, err = n.Decode(ctx, tensor.Of(x, a.Shape...))
			out["model"] = ort.Floats(y)
		case "image":
			y, err = n.Encode(ctx, tensor.Of(x, a.Shape...))
			out["moments"] = ort.Floats(y)
		default:
			err = fmt.Errorf("models: an autoencoder takes z and image, not %s", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
