package refcase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// checkForward runs the network once for every set of inputs: in.images and
// in.images.256 are two sets, whose outputs bear the same suffix.
func checkForward(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	opt := models.Options{Options: c.options}
	if c.Layer != "" {
		opt.Taps = []sampling.Tap{{Layer: c.Layer, Heads: c.Heads, Order: c.AttentionOrder}, {Layer: c.Layer}}
	}
	spec, err := plan.DecodeNetwork(c.Model)
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
	return ort.Floats(tensor.Of(d, a.Shape...).Slice(0, want[0]))
}

// checkSample runs a whole sampling loop on the recorded x_T and noise.
func checkSample(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	r, err := plan.NewRow(plan.Settings{ModelBlock: c.Model, SamplerBlock: c.Sampler, GuidanceBlock: c.Guidance})
	if err != nil {
		return nil, err
	}
	var opened []models.Model
	for i, s := range r.Networks() {
		m, cleanup, err := c.open(s, run.NetworkOptions(r, i, c.options))
		if err != nil {
			return nil, err
		}
		defer cleanup()
		opened = append(opened, m)
	}
	n, err := run.Assemble(ctx, r, opened)
	if err != nil {
		return nil, err
	}
	return c.sample(ctx, n, r)
}

func (c *referenceCase) sample(ctx context.Context, g *run.Network, r *plan.Row) (map[string]ort.Array, error) {
	start, err := c.floats("in.x_T", -1, -1, -1, -1)
	if err != nil {
		return nil, err
	}
	recorded, err := c.recordedNoise(start)
	if err != nil {
		return nil, err
	}
	process := g.Process()
	p, err := r.Predictor(ctx, g, process, g.Attached)
	if err != nil {
		return nil, err
	}
	if err := c.condition(ctx, p, g.Generator, start.Shape[0]); err != nil {
		return nil, err
	}
	steps := map[string][]tensor.Tensor{}
	var times []float64 // of the network's calls
	p.Trace = func(name string, t sampling.Timestep, v tensor.Tensor) {
		v = v.Clone()
		switch name {
		case "eps_guided":
			times = append(times, t.Value)
		case "degraded": // a state, which cases hold in the sampler's own terms
			for i, x := range v.Data {
				v.Data[i] = float32(float64(x) * p.Schedule.Length(t))
			}
		}
		steps[name] = append(steps[name], v)
	}
	x, err := r.Sampler.Value.Sample(ctx, p, start, recorded)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{}
	if c.has("out.images") || c.has("out.decoded") {
		if out, err = outputsOf(ctx, g.Generator, x); err != nil {
			return nil, err
		}
	}
	if sigmas := p.Schedule.Sigmas(); sigmas != nil {
		out["sigmas"] = doubles(sigmas)
	}
	for name, ts := range steps {
		out[name] = ort.Floats(stack(ts))
	}
	for name, as := range caseNames {
		if _, traced := steps[as]; traced {
			out[name] = out[as]
		}
	}
	out["timesteps"] = doubles(times)
	out["call_sigmas"] = out["timesteps"]
	if v, ok := out["variance"]; ok && process.Predicts == sampling.Epsilon {
		out["model"] = ort.Floats(joinChannels(out["eps_guided"].Tensor(), v.Tensor()))
	}
	return out, nil
}

// caseNames are what cases call tensors that the predictor shows by another name:
// those of diffusers, of SiT, and of EDM and EDM2.
var caseNames = map[string]string{
	"eps": "eps_guided", "model": "eps_guided", "denoised": "eps_guided", "denoised_net": "output", "denoised_gnet": "output_worse",
}

// condition gives the predictor the case's labels or embedded prompts, and ∅.
func (c *referenceCase) condition(ctx context.Context, p *sampling.Predictor, g models.Generator, images int) (err error) {
	if c.has("in.prompt_embeds") {
		p.Cond, err = c.prompted("in.")
		if err == nil && c.has("in.negative_prompt_embeds") {
			p.Null, err = c.prompted("in.negative_")
		}
		return err
	}
	var labels []int64
	if c.has("in.y") {
		y, err := c.array("in.y")
		if err != nil {
			return err
		}
		labels, _ = y.Data.([]int64)
	}
	return run.Condition(ctx, p, g, labels, images)
}

// prompted is the condition of embedded prompts whose tensors' names begin so:
// prompt_embeds and, where the case has them, pooled_prompt_embeds [N,P] and
// time_ids [N,6], one behind the other.
func (c *referenceCase) prompted(prefix string) (cond sampling.Cond, err error) {
	context, err := c.array(prefix + "prompt_embeds")
	if err != nil {
		return cond, err
	}
	cond.Context = context.Tensor()
	if !c.has(prefix + "pooled_prompt_embeds") {
		return cond, nil
	}
	pooled, err := c.array(prefix + "pooled_prompt_embeds")
	ids, errIDs := c.array(prefix + "time_ids")
	if err := errors.Join(err, errIDs); err != nil {
		return cond, err
	}
	cond.Vector = tensor.Beside(pooled.Tensor(), ids.Tensor())
	return cond, nil
}

// outputsOf is x_0 as images, and decoded where it is a latent, else as it is.
func outputsOf(ctx context.Context, g models.Generator, x tensor.Tensor) (map[string]ort.Array, error) {
	images, err := g.Pixels(ctx, x)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{
		"images":  {Shape: []int{images.N, images.Height, images.Width, 3}, Data: images.Pixels},
		"decoded": ort.Floats(x),
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
func (c *referenceCase) recordedNoise(start tensor.Tensor) (r sampling.Recorded, err error) {
	r.Start = start
	if c.has("in.noise") {
		r.Steps, err = c.floats("in.noise", append([]int{-1}, start.Shape...)...)
	}
	return r, err
}

// stack joins the tensors of all steps along a new first axis.
func stack(ts []tensor.Tensor) tensor.Tensor {
	s := tensor.Tensor{Shape: append([]int{len(ts)}, ts[0].Shape...)}
	for _, t := range ts {
		s.Data = append(s.Data, t.Data...)
	}
	return s
}

// checkTokenize turns the prompts of prompts.json, a list of strings, into token ids.
func checkTokenize(_ context.Context, c *referenceCase) (map[string]ort.Array, error) {
	spec, err := plan.DecodeNetwork(c.Model)
	if err != nil {
		return nil, err
	}
	family, ok := spec.Flags.(models.Tokenizing)
	if !ok {
		return nil, c.Model.Errorf("family %s has no tokenizer", spec.Family)
	}
	path := filepath.Join(c.dir, "prompts.json")
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	var prompts []string
	if err := json.Unmarshal(data, &prompts); err != nil {
		return nil, fmt.Errorf("check: %s: expected a list of strings: %w", path, err)
	}
	t, err := family.OpenTokenizer(spec.Checkpoint.Path)
	if err != nil {
		return nil, err
	}
	ids, mask, err := t.Tokenize(prompts)
	return map[string]ort.Array{"ids": ids, "attention_mask": mask}, err
}
