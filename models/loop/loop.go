// Package loop takes a batch through a sampler's steps on the device that computes the
// network: x_T, a sampler, guidances and noise go in, x_0 comes out, and the states,
// predictions, masks and corrections between lie in the device's memory. What crosses in a
// step are its coefficients and timestep, a few bytes, and the noise where the sampler
// draws some: it is a function of seed, image and step that the host knows.
//
// The graphs between the network calls do in float32 what packages sampling and guidance do,
// but sum in another order: samples differ from theirs by rounding.
package loop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
	"sagbench/sampling/tensor"
)

// A Loop is the way of a row's batches through the steps.
type Loop struct {
	stages   *Stages
	sampler  sampling.Linear
	network  models.Callable
	forms    []form
	crossed  ort.Traffic
	conds    []sampling.Cond // of one batch
	uploaded map[upload]*ort.Resident
}

// An upload is an input of the network under one of the conds.
type upload struct {
	cond int
	name string
}

// A form is a guidance as stages: it adds the correction at a step to the guided output.
type form func(ctx context.Context, s *step, guided *ort.Resident) (*ort.Resident, error)

// Traffic counts the bytes that have crossed.
func (l *Loop) Traffic() *ort.Traffic { return &l.crossed }

// New is the loop of a predictor that g predicts for, by a sampler. The error says what
// has to go through the host: nothing is computed that way by mistake.
func New(p *sampling.Predictor, sampler sampling.Sampler, g models.Generator, stages *Stages) (*Loop, error) {
	l := &Loop{stages: stages}
	var ok bool
	if l.sampler, ok = sampler.(sampling.Linear); !ok {
		return nil, errors.New("the sampler has no graph")
	}
	if l.network, ok = g.(models.Callable); !ok {
		return nil, errors.New("the network has to be called through the host")
	}
	for _, g := range p.Guidances {
		f, err := formOf(g)
		if err != nil {
			return nil, err
		}
		l.forms = append(l.forms, f)
	}
	return l, nil
}

// formOf is the form of a guidance.
func formOf(g sampling.Guidance) (form, error) {
	switch g := g.(type) {
	case *guidance.CFG:
		d, err := g.Difference()
		if err != nil {
			return nil, fmt.Errorf("guidance cfg %w", err)
		}
		return contrastForm(g, d), nil
	case *guidance.SAG:
		return sagForm(g)
	}
	name := fmt.Sprintf("%T", g)
	return nil, fmt.Errorf("guidance %s has no graph", strings.ToLower(name[strings.LastIndex(name, ".")+1:]))
}

// contrastForm is that of classifier-free guidance.
func contrastForm(g *guidance.CFG, d guidance.Difference) form {
	return func(ctx context.Context, s *step, guided *ort.Resident) (*ort.Resident, error) {
		if !g.On(s.Step) {
			return guided, nil
		}
		if s.Null().IsZero() {
			return nil, errors.New("loop: cfg: the network has no null condition")
		}
		c, err := s.predict(ctx, s.Cond())
		if err != nil {
			return nil, err
		}
		u, err := s.predict(ctx, s.Null())
		if err != nil {
			return nil, err
		}
		out, err := s.stage(ctx, fmt.Sprintf("cfg %v %v", s.shape, d), difference(s.shape, d), map[string]ort.Operand{"output": guided, "c": c.eps, "u": u.eps})
		return out["guided"], err
	}
}

// sagForm is that of self-attention guidance.
func sagForm(g *guidance.SAG) (form, error) {
	if err := g.Degrading(); err != nil {
		return nil, fmt.Errorf("guidance sag %w", err)
	}
	var d guidance.Degradation // the same in all steps
	name := ""
	return func(ctx context.Context, s *step, guided *ort.Resident) (*ort.Resident, error) {
		cond, on, err := g.Degrades(s.Step)
		if err != nil || !on {
			return guided, err
		}
		p, err := s.predict(ctx, cond)
		if err != nil {
			return nil, err
		}
		if name == "" {
			positions := 0
			if p.attention != nil {
				positions = p.attention.Shape[1]
			}
			if d, err = g.Degradation(s.Step, s.shape[1], s.shape[2], positions); err != nil {
				return nil, fmt.Errorf("loop: sag: %w", err)
			}
			name = fmt.Sprintf("sag %v %s", s.shape, d.Key())
		}
		in := map[string]ort.Operand{"x": s.x, "eps": p.eps}
		if d.Masked {
			in["attention"] = p.attention
		}
		k := s.readout
		in["k"] = floats(k.XStart[0], k.XStart[1], k.Eps[0], k.Eps[1], k.Noised[0], k.Noised[1], k.Output[0], k.Output[1])
		out, err := s.stage(ctx, name, degrade(s.shape, d), in)
		if err != nil {
			return nil, err
		}
		there, err := s.predictAt(ctx, out["xhat"], cond)
		if err != nil {
			return nil, err
		}
		in = map[string]ort.Operand{"output": guided, "fit": p.eps, "theirs": there.eps}
		if d.InEps {
			in["fit"] = out["fit"]
		}
		if d.Masked {
			in["moved"] = out["moved"]
		}
		out, err = s.stage(ctx, name+" away", away(s.shape, d), in)
		return out["guided"], err
	}, nil
}

func floats(v ...float32) ort.Array { return ort.Array{Shape: []int{len(v)}, Data: v} }

// A prediction is the network's, on the device.
type prediction struct {
	eps, variance, attention *ort.Resident // nil where there is none
}

// A step is one (x_t, t) on the device. What its stages give is freed at its end.
type step struct {
	*sampling.Step
	*Loop
	x       *ort.Resident
	images  int
	shape   []int // [C,H,W]
	readout sampling.Readout
	health  ort.Operand // Σ of magnitudes of each image, so far
	made    []*ort.Resident
	memo    []remembered
}

type remembered struct {
	cond sampling.Cond
	prediction
}

// keep has the step free what a graph gave.
func (s *step) keep(out map[string]*ort.Resident) {
	for _, r := range out {
		s.made = append(s.made, r)
	}
}

// free ends the step; next is kept.
func (s *step) free(next ...*ort.Resident) {
	for _, r := range s.made {
		if !slices.Contains(next, r) {
			r.Close()
		}
	}
}

// stage runs a graph of the step.
func (s *step) stage(ctx context.Context, name string, build func(*onnx.Module), in map[string]ort.Operand) (map[string]*ort.Resident, error) {
	out, _, err := s.stages.run(ctx, name, build, in, &s.crossed)
	s.keep(out)
	return out, err
}

// predict is the network's prediction at x_t, computed once for each condition.
func (s *step) predict(ctx context.Context, c sampling.Cond) (prediction, error) {
	for _, m := range s.memo {
		if m.cond.Equal(c) {
			return m.prediction, nil
		}
	}
	p, err := s.predictAt(ctx, s.x, c)
	if err == nil {
		s.memo = append(s.memo, remembered{c, p})
	}
	return p, err
}

// predictAt is the network's prediction at another state of the step's timestep.
func (s *step) predictAt(ctx context.Context, x *ort.Resident, c sampling.Cond) (p prediction, err error) {
	call, err := s.network.Call(s.images, s.T, c)
	if err != nil {
		return p, err
	}
	in := map[string]ort.Operand{"x": x}
	if call.In != 1 {
		out, err := s.stage(ctx, fmt.Sprintf("scaled %v", s.shape), scaled(s.shape), map[string]ort.Operand{"x": x, "k": floats(call.In)})
		if err != nil {
			return p, err
		}
		in["x"] = out["y"]
	}
	for name, a := range call.Inputs {
		if in[name], err = s.operand(ctx, c, name, a); err != nil {
			return p, err
		}
	}
	out, _, err := call.Run(ctx, in, &s.crossed)
	if err != nil {
		return p, err
	}
	s.keep(out)
	model := out["model"]
	outputs, positions := model.Shape[1], 0
	variance := outputs == 2*s.shape[0] && !call.NoVariance
	of := map[string]ort.Operand{"x": x, "model": model, "k": floats(call.Skip, call.Out), "before": s.health}
	if call.Attention != "" {
		p.attention = out[call.Attention]
		positions, of["attention"] = p.attention.Shape[1], p.attention
	}
	out, err = s.stage(ctx, fmt.Sprintf("read %v %d %v %d", s.shape, outputs, variance, positions), read(s.shape, outputs, variance, positions), of)
	if err != nil {
		return p, err
	}
	p.eps, p.variance, s.health = out["eps"], out["variance"], out["health"]
	return p, nil
}

// most is how many bytes of an input of the network go with every call; larger ones, the
// embedded prompts, are sent once a batch.
const most = 1 << 14

// operand is an input of the network under a condition, on the device where it is large.
func (l *Loop) operand(ctx context.Context, c sampling.Cond, name string, a ort.Array) (ort.Operand, error) {
	data, ok := a.Data.([]float32)
	if !ok || 4*len(data) <= most || name == "t" {
		return a, nil
	}
	of := upload{slices.IndexFunc(l.conds, c.Equal), name}
	if of.cond < 0 {
		of.cond, l.conds = len(l.conds), append(l.conds, c)
	}
	if r := l.uploaded[of]; r != nil {
		return r, nil
	}
	r, err := l.upload(ctx, a)
	if err == nil {
		l.uploaded[of] = r
	}
	return r, err
}

// upload takes an array [N,…] to the device.
func (l *Loop) upload(ctx context.Context, a ort.Array) (*ort.Resident, error) {
	out, _, err := l.stages.run(ctx, fmt.Sprintf("upload %v", a.Shape[1:]), scaled(a.Shape[1:]), map[string]ort.Operand{"x": a, "k": floats(1)}, &l.crossed)
	return out["y"], err
}

// ErrNotFinite says that something was not finite on the way. The host's way, which looks
// at everything, tells what it was.
var ErrNotFinite = errors.New("loop: not finite")

// Sample takes x_T [N,C,H,W] to x_0 over all steps of p.Schedule; n makes the noise. done
// is called after each step with the number of those that are done.
func (l *Loop) Sample(ctx context.Context, p *sampling.Predictor, xT tensor.Tensor, n sampling.Noise, done func(steps int)) (tensor.Tensor, error) {
	l.conds, l.uploaded = nil, map[upload]*ort.Resident{}
	defer func() {
		for _, r := range l.uploaded {
			r.Close()
		}
	}()
	if err := p.Check(xT); err != nil {
		return tensor.Tensor{}, fmt.Errorf("loop: %w", err)
	}
	start := xT.Like()
	for i, v := range xT.Data {
		start.Data[i] = float32(p.Schedule.InitNoiseSigma()) * v
	}
	x, err := l.upload(ctx, ort.Floats(start))
	if err != nil {
		return tensor.Tensor{}, err
	}
	var health ort.Operand = ort.Floats(tensor.New(xT.Rows()))
	steps := p.Schedule.Len()
	for i := steps - 1; i >= 0; i-- {
		err := ctx.Err()
		if err != nil {
			err = fmt.Errorf("loop: stopped before step %d: %w", i, err)
		}
		var next, sum *ort.Resident
		var end tensor.Tensor
		if err == nil {
			next, sum, end, err = l.step(ctx, p, x, health, i, steps-1-i, n, xT.Shape)
		}
		x.Close()
		if r, ok := health.(*ort.Resident); ok {
			r.Close()
		}
		if err != nil {
			return tensor.Tensor{}, err
		}
		if done(steps - i); i == 0 {
			return end, nil
		}
		x, health = next, sum
	}
	return start, nil
}

// step is step i of the schedule, the k-th of the batch: x' and the sum of magnitudes, or
// at the last step x_0 in the host's memory.
func (l *Loop) step(ctx context.Context, p *sampling.Predictor, x *ort.Resident, health ort.Operand, i, k int, n sampling.Noise, shape []int) (next, sum *ort.Resident, end tensor.Tensor, err error) {
	t := p.Schedule.Timestep(i)
	s := &step{Step: p.Step(tensor.Tensor{}, t), Loop: l, x: x, images: shape[0], shape: shape[1:], health: health}
	defer func() { s.free(next, sum) }()
	c := s.Coefficients()
	s.readout = c.Readout(p.Predicts)
	u := l.sampler.Update(p, i)
	z, drawn := tensor.New(shape...), make(chan error, 1)
	if u.Draws { // while the network computes
		go func() { drawn <- n.Fill(k, z) }()
	}
	unguided, err := s.predict(ctx, p.Cond)
	if err != nil {
		return nil, nil, end, err
	}
	guided := unguided.eps
	for _, f := range l.forms {
		if guided, err = f(ctx, s, guided); err != nil {
			return nil, nil, end, err
		}
	}
	r := s.readout.XStart
	in := map[string]ort.Operand{"x": x, "guided": guided, "before": s.health, "k": floats(r[0], r[1], u.XStart, u.Output, u.State, u.Sigma, u.MinLog, u.MaxLog)}
	variance := unguided.variance != nil && u.Learned
	if variance {
		in["variance"] = unguided.variance
	}
	if u.Draws {
		if err := <-drawn; err != nil {
			return nil, nil, end, err
		}
		in["z"] = ort.Floats(z)
	}
	var fetched []string
	if i == 0 {
		fetched = []string{"next", "health"}
	}
	out, arrays, err := l.stages.run(ctx, fmt.Sprintf("update %v %v %v %v", s.shape, u.Draws, variance, u.Limit), update(s.shape, u, variance), in, &l.crossed, fetched...)
	s.keep(out)
	if err != nil || i > 0 {
		return out["next"], out["health"], end, err
	}
	for _, v := range arrays["health"].Tensor().Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, nil, end, ErrNotFinite
		}
	}
	return nil, nil, arrays["next"].Tensor(), nil
}
