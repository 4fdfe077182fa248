package main

import (
	"context"
	"strings"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// checkForward runs the network once for every set of inputs: in.images and
// in.images.256 are two sets, whose outputs bear the same suffix.
func checkForward(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	opt := models.Options{Options: c.options}
	if c.Layer != "" {
		opt.Taps = []sampling.Tap{{Layer: c.Layer, Heads: c.Heads, Order: c.AttentionOrder}, {Layer: c.Layer}}
	}
	spec, err := models.Decode(c.Model)
	if err != nil {
		return nil, err
	}
	m, cleanup, err := c.open(spec, opt)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	sets := map[string]map[string]ort.Array{}
	for name := range c.tensors {
		key, isInput := strings.CutPrefix(name, "in.")
		if !isInput {
			continue
		}
		input, suffix, _ := strings.Cut(key, ".")
		a, err := c.array(name)
		if err != nil {
			return nil, err
		}
		if sets[suffix] == nil {
			sets[suffix] = map[string]ort.Array{}
		}
		sets[suffix][input] = a
	}
	all := map[string]ort.Array{}
	for suffix, in := range sets {
		out, err := m.Forward(ctx, in)
		if err != nil {
			return nil, err
		}
		for name, a := range out {
			if suffix != "" {
				name += "." + suffix
			}
			all[name] = firstRows(a, c.tensors["out."+name].Shape)
		}
	}
	if own, ok := all["attention_1"]; ok {
		all["attention_own"] = own
	}
	return all, nil
}

// firstRows cuts an output to as many rows as the reference kept of it.
func firstRows(a ort.Array, want []int) ort.Array {
	d, ok := a.Data.([]float32)
	if !ok || len(want) != len(a.Shape) || want[0] >= a.Shape[0] {
		return a
	}
	t := tensor.Of(d, a.Shape...).Slice(0, want[0])
	return ort.Floats(t)
}

// checkSample runs a whole sampling loop on the recorded x_T and noise.
func checkSample(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	r, err := c.row()
	if err != nil {
		return nil, err
	}
	var opened []models.Model
	for i, s := range r.networks() {
		m, cleanup, err := c.open(s.Spec, r.optionsOf(i, c.options))
		if err != nil {
			return nil, err
		}
		defer cleanup()
		opened = append(opened, m)
	}
	n, err := r.assemble(opened)
	if err != nil {
		return nil, err
	}
	return c.sample(ctx, n, r)
}

// row is the case as a row of an experiment.
func (c *referenceCase) row() (*row, error) {
	r := &row{Experiment: Experiment{Model: c.Model, Sampler: c.Sampler, Guidance: c.Guidance}}
	var errModel, errSampler, errGuidance error
	r.model, errModel = decodeNet(r.Model)
	r.sampler.Name, r.sampler.Value, errSampler = sampling.Samplers.One(r.Sampler)
	r.guidances, errGuidance = guidance.Registry.Many(r.Guidance)
	if err := configs.Join(errModel, errSampler, errGuidance); err != nil {
		return nil, err
	}
	return r, configs.Join(r.space(), r.tap(), r.readAttachments())
}

func (c *referenceCase) sample(ctx context.Context, g *network, r *row) (map[string]ort.Array, error) {
	start, err := c.array("in.x_T")
	if err != nil {
		return nil, err
	}
	recorded, err := c.recordedNoise(start)
	if err != nil {
		return nil, err
	}
	process := g.Process()
	p, err := r.predictor(g, process, g.attached)
	if err != nil {
		return nil, err
	}
	if err := c.condition(p, g.Generator, start.Shape[0]); err != nil {
		return nil, err
	}
	steps := map[string][]tensor.Tensor{}
	var timesteps []float64
	p.Trace = func(name string, t sampling.Timestep, v tensor.Tensor) {
		if name == "x" {
			timesteps = append(timesteps, t.Value)
		}
		steps[name] = append(steps[name], v.Clone())
	}
	x, err := r.sampler.Value.Sample(ctx, p, start.Tensor(), recorded)
	if err != nil {
		return nil, err
	}
	out, err := drawn(ctx, g.Generator, x)
	if err != nil {
		return nil, err
	}
	out["timesteps"] = ort.Array{Shape: []int{len(timesteps)}, Data: timesteps}
	for name, ts := range steps {
		out[name] = ort.Floats(stack(ts))
	}
	out["eps"] = out["eps_guided"] // as cases of diffusers call it
	if v, ok := out["variance"]; ok && process.Predicts == sampling.Epsilon {
		out["model"] = ort.Floats(joinChannels(out["eps_guided"].Tensor(), v.Tensor()))
	}
	return out, nil
}

// condition gives the predictor the case's labels or embedded prompts, and ∅.
func (c *referenceCase) condition(p *sampling.Predictor, g models.Generator, images int) error {
	if _, has := c.tensors["in.prompt_embeds"]; has {
		prompts, err := c.array("in.prompt_embeds")
		if err != nil {
			return err
		}
		negative, err := c.array("in.negative_prompt_embeds")
		if err != nil {
			return err
		}
		p.Cond.Context, p.Null.Context = prompts.Tensor(), negative.Tensor()
		return nil
	}
	var labels []int64
	if _, has := c.tensors["in.y"]; has {
		y, err := c.array("in.y")
		if err != nil {
			return err
		}
		labels, _ = y.Data.([]int64)
	}
	return condition(p, g, labels, images)
}

// drawn is x_0 as images, and decoded where it is a latent.
func drawn(ctx context.Context, g models.Generator, x tensor.Tensor) (map[string]ort.Array, error) {
	images, err := g.Pixels(ctx, x)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{
		"images": {Shape: []int{images.N, images.Height, images.Width, 3}, Data: images.Pixels},
	}
	if l, ok := g.(models.LatentGenerator); ok {
		decoded, err := l.Decode(ctx, x)
		if err != nil {
			return nil, err
		}
		out["decoded"] = ort.Floats(decoded)
	}
	return out, nil
}

// joinChannels puts b's channels behind a's: [steps,N,C,H,W] twice → [steps,N,2C,H,W].
func joinChannels(a, b tensor.Tensor) tensor.Tensor {
	joined := tensor.New(a.Shape[0], a.Shape[1], a.Shape[2]+b.Shape[2], a.Shape[3], a.Shape[4])
	image := a.RowLen() / a.Shape[1]
	for i := range a.Shape[0] * a.Shape[1] {
		copy(joined.Data[2*i*image:], a.Data[i*image:(i+1)*image])
		copy(joined.Data[(2*i+1)*image:], b.Data[i*image:(i+1)*image])
	}
	return joined
}

// recordedNoise is the case's noise; a loop that uses none needs none.
func (c *referenceCase) recordedNoise(start ort.Array) (sampling.Recorded, error) {
	r := sampling.Recorded{Start: start.Tensor()}
	if _, has := c.tensors["in.noise"]; has {
		noise, err := c.array("in.noise")
		if err != nil {
			return r, err
		}
		r.Steps = noise.Tensor()
	}
	return r, nil
}

// stack joins the tensors of all steps along a new first axis.
func stack(ts []tensor.Tensor) tensor.Tensor {
	s := tensor.Tensor{Shape: append([]int{len(ts)}, ts[0].Shape...)}
	for _, t := range ts {
		s.Data = append(s.Data, t.Data...)
	}
	return s
}
