package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

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
	m, cleanup, err := c.open(opt)
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
	_, sampler, err := sampling.Samplers.One(c.Sampler)
	if err != nil {
		return nil, err
	}
	guidances, err := guidance.Registry.Many(c.Guidance)
	if err != nil {
		return nil, err
	}
	var chosen []sampling.Guidance
	for _, g := range guidances {
		chosen = append(chosen, g.Value)
	}
	opt := models.Options{Options: c.options}
	if opt.Taps, err = taps(chosen); err != nil {
		return nil, err
	}
	m, cleanup, err := c.open(opt)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	g, ok := m.(models.Generator)
	if !ok {
		return nil, fmt.Errorf("check: %s: the model block names a family that draws no images", filepath.Join(c.dir, "case.yaml"))
	}
	return c.sample(ctx, g, sampler, chosen)
}

func (c *referenceCase) sample(ctx context.Context, g models.Generator, sampler sampling.Sampler, guidances []sampling.Guidance) (map[string]ort.Array, error) {
	start, err := c.array("in.x_T")
	if err != nil {
		return nil, err
	}
	noise, err := c.array("in.noise")
	if err != nil {
		return nil, err
	}
	var cond sampling.Cond
	if _, has := c.tensors["in.y"]; has {
		y, err := c.array("in.y")
		if err != nil {
			return nil, err
		}
		cond.Labels = y.Data.([]int64)
	}
	p, err := newPredictor(g, sampler, guidances, cond)
	if err != nil {
		return nil, err
	}
	steps := map[string][]tensor.Tensor{}
	p.Trace = func(name string, _ sampling.Timestep, v tensor.Tensor) { steps[name] = append(steps[name], v.Clone()) }
	recorded := sampling.Recorded{Start: start.Tensor(), Steps: noise.Tensor()}
	x, err := sampler.Sample(ctx, p, start.Tensor(), recorded)
	if err != nil {
		return nil, err
	}
	images, err := g.Pixels(ctx, x)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{
		"images": {Shape: []int{images.N, images.Height, images.Width, 3}, Data: images.Pixels},
	}
	for name, ts := range steps {
		out[name] = ort.Floats(stack(ts))
	}
	return out, nil
}

// stack joins the tensors of all steps along a new first axis.
func stack(ts []tensor.Tensor) tensor.Tensor {
	s := tensor.Tensor{Shape: append([]int{len(ts)}, ts[0].Shape...)}
	for _, t := range ts {
		s.Data = append(s.Data, t.Data...)
	}
	return s
}
