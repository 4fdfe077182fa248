package loop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
	"sagbench/sampling/tensor"
)

// device is where the tests compute: the CPU, or what the variable names.
func device() ort.Options {
	return ort.Options{Device: os.Getenv("SAGBENCH_TEST_DEVICE"), Threads: 1}
}

// A toy is a network of a few operators, with a map of (H/2)×(W/2) positions: ε and the
// learned variance are smooth functions of the pixels, t and the condition's vector.
type toy struct {
	models.Generator // nil: only what is below is asked for
	session          *ort.Session
	shape            []int
	call             models.Call // of In, Skip, Out
}

func newToy(t *testing.T, shape ...int) *toy {
	t.Helper()
	channels, height, width := shape[0], shape[1], shape[2]
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, onnx.Batch, channels, height, width)
		at := m.Reshape(m.Input("t", checkpoint.F32, onnx.Batch), onnx.Batch, 1, 1, 1)
		c := m.Reshape(m.Input("c", checkpoint.F32, onnx.Batch, channels*height*width), onnx.Batch, channels, height, width)
		eps := m.Add(m.Mul(x, m.Sigmoid(m.Add(x, m.Mul(at, m.Scalar(1e-3))))), m.Mul(c, m.Scalar(0.1)))
		m.Output("model", m.Concat(1, eps, m.Sub(m.Sigmoid(x), m.Scalar(0.5))))
		mass := m.Mean(m.Mul(x, x), 1)
		pooled := m.AveragePool(m.Reshape(mass, onnx.Batch, 1, height, width), onnx.Pool{Kernel: 2, Stride: 2})
		m.Output("attention", m.Reshape(pooled, onnx.Batch, (height/2)*(width/2)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(m, device())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &toy{session: s, shape: shape, call: models.Call{In: 1, Out: 1}}
}

func (n *toy) Call(images int, t sampling.Timestep, c sampling.Cond) (*models.Call, error) {
	call := n.call
	call.Run, call.Attention = n.session.RunOn, "attention"
	vector := c.Vector
	if vector.IsZero() {
		vector = tensor.New(images, tensor.Size(n.shape))
	}
	call.Inputs = map[string]ort.Array{"t": models.Timesteps(images, t), "c": ort.Floats(vector)}
	return &call, nil
}

func (n *toy) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	call, err := n.Call(x.Rows(), t, c)
	if err != nil {
		return sampling.Prediction{}, err
	}
	scaled := x.Like()
	for i, v := range x.Data {
		scaled.Data[i] = call.In * v
	}
	in := call.Inputs
	in["x"] = ort.Floats(scaled)
	out, err := n.session.Run(ctx, in)
	if err != nil {
		return sampling.Prediction{}, err
	}
	var p sampling.Prediction
	p.Eps, p.Var = models.SplitVariance(out["model"].Tensor(), x.Shape[1])
	for i, v := range x.Data {
		p.Eps.Data[i] = call.Skip*v + call.Out*p.Eps.Data[i]
	}
	if call.NoVariance {
		p.Var = tensor.Tensor{}
	}
	p.Attn = out["attention"].Tensor()
	return p, nil
}

// predictor is one of the toy with a linear schedule for the sampler, with x_T and noise.
func predictor(t *testing.T, n *toy, images int, s sampling.Sampler, guidances ...sampling.Guidance) (*sampling.Predictor, tensor.Tensor, sampling.Keyed) {
	t.Helper()
	schedule, err := s.Schedule(sampling.ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear"})
	if err != nil {
		t.Fatal(err)
	}
	p := &sampling.Predictor{Denoiser: n, Guidances: guidances, Schedule: schedule, ClipDenoised: true}
	noise := sampling.Keyed{Seed: 5}
	for i := range images {
		noise.Images = append(noise.Images, i)
	}
	x := tensor.New(append([]int{images}, n.shape...)...)
	cond, null := tensor.New(images, tensor.Size(n.shape)), tensor.New(images, tensor.Size(n.shape))
	for step, to := range []tensor.Tensor{x, cond, null} {
		if err := noise.Fill(step-1, tensor.Of(to.Data, x.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
	p.Cond.Vector, p.Null.Vector = cond, null
	return p, x, noise
}

// distance is the largest difference of two tensors, relative to the largest value.
func distance(a, b tensor.Tensor) float64 {
	most, largest := 0.0, 0.0
	for i, v := range b.Data {
		largest = max(largest, math.Abs(float64(v)))
		most = max(most, math.Abs(float64(a.Data[i]-v)))
		if math.IsNaN(float64(a.Data[i])) {
			return math.Inf(1)
		}
	}
	return most / largest
}

// A whole trajectory on the device is that of packages sampling and guidance but for
// rounding: 2⁻²⁴ an operation, of which an image goes through some hundreds in ten steps.
func TestLoop(t *testing.T) {
	sag := func(edit func(*guidance.SAG)) *guidance.SAG {
		g := guidance.NewSAG()
		g.Layer, g.BlurSigma, g.BlurKernel = "toy", 1.5, 9
		edit(g)
		return g
	}
	cfg := func(edit func(*guidance.CFG)) *guidance.CFG {
		g := guidance.NewCFG()
		edit(g)
		return g
	}
	always := sag(func(*guidance.SAG) {})
	for name, c := range map[string]struct {
		shape     []int
		sampler   sampling.Sampler
		guidances []sampling.Guidance
		edit      func(*toy, *sampling.Predictor)
	}{
		"ddpm":                 {sampler: &sampling.DDPM{Steps: 10}},
		"ddim":                 {sampler: &sampling.DDIM{Steps: 10}},
		"ddim, eta":            {sampler: &sampling.DDIM{Steps: 10, Eta: 0.7}},
		"ddim, its own ε":      {sampler: &sampling.DDIM{Steps: 10, UseClipped: new(bool)}},
		"x_start":              {sampler: &sampling.DDIM{Steps: 10}, edit: func(_ *toy, p *sampling.Predictor) { p.Predicts = sampling.XStart }},
		"v, unclipped":         {sampler: &sampling.DDPM{Steps: 10}, edit: func(_ *toy, p *sampling.Predictor) { p.Predicts, p.ClipDenoised = sampling.V, false }},
		"no variance":          {sampler: &sampling.DDPM{Steps: 10}, edit: func(n *toy, _ *sampling.Predictor) { n.call.NoVariance = true }},
		"preconditioned":       {sampler: &sampling.DDIM{Steps: 10}, edit: func(n *toy, _ *sampling.Predictor) { n.call.In, n.call.Skip, n.call.Out = 0.5, 0.25, 1.5 }},
		"sag":                  {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{always}},
		"sag, odd size":        {shape: []int{4, 6, 10}, sampler: &sampling.DDPM{Steps: 10}, guidances: []sampling.Guidance{always}},
		"sag, wide kernel":     {shape: []int{1, 8, 8}, sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.BlurKernel, g.BlurSigma = 15, 9 })}},
		"sag, nothing masked":  {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.MaskThreshold, g.Clip = 1e6, new(bool) })}},
		"sag, only clipped":    {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.MaskThreshold, g.Clip = 1e6, ptr(true) })}},
		"sag, all masked":      {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.MaskThreshold = 0 })}},
		"sag, of ε":            {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.Space = "epsilon" })}, edit: func(_ *toy, p *sampling.Predictor) { p.Predicts = sampling.V }},
		"blur guidance":        {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.Mask, g.Layer = "none", "" })}},
		"sag, last steps":      {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{sag(func(g *guidance.SAG) { g.Start = ptr(4) })}},
		"cfg":                  {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{cfg(func(*guidance.CFG) {})}},
		"cfg, 2 of 3 channels": {sampler: &sampling.DDPM{Steps: 10}, guidances: []sampling.Guidance{cfg(func(g *guidance.CFG) { g.Channels = 2 })}},
		"cfg, an interval":     {sampler: &sampling.DDIM{Steps: 10}, guidances: []sampling.Guidance{cfg(func(g *guidance.CFG) { g.Start, g.Stop = ptr(700.0), ptr(300.0) })}},
		"cfg and sag":          {sampler: &sampling.DDPM{Steps: 10}, guidances: []sampling.Guidance{cfg(func(*guidance.CFG) {}), always}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.shape == nil {
				c.shape = []int{3, 8, 8}
			}
			n := newToy(t, c.shape...)
			const images = 3
			p, x, noise := predictor(t, n, images, c.sampler, c.guidances...)
			if c.edit != nil {
				c.edit(n, p)
			}
			want, err := c.sampler.Sample(t.Context(), p, x, noise)
			if err != nil {
				t.Fatal(err)
			}
			stages := NewStages(device())
			defer stages.Close()
			l, err := New(p, c.sampler, n, stages)
			if err != nil {
				t.Fatal(err)
			}
			var seen []int
			got, err := l.Sample(t.Context(), p, x, noise, func(k int) { seen = append(seen, k) })
			if err != nil {
				t.Fatal(err)
			}
			if d := distance(got, want); d > 2e-5 {
				t.Errorf("off by %.2g", d)
			}
			if len(seen) != p.Schedule.Len() || seen[0] != 1 || seen[len(seen)-1] != len(seen) {
				t.Errorf("steps %v", seen)
			}
			again, err := l.Sample(t.Context(), p, x, noise, func(int) {})
			if err != nil || distance(again, got) != 0 {
				t.Errorf("again: off by %.2g, %v", distance(again, got), err)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// CUDA and WebGPU have a kernel for every operator of the stages.
func TestKernels(t *testing.T) {
	data, err := os.ReadFile("../ort/testdata/kernels.txt")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		table[f[0]+" "+f[1]] = strings.Join(f[2:], " ")
	}
	shape, k := []int{3, 8, 8}, guidance.NewSAG()
	k.Layer = "toy"
	d, err := k.Degradation((&sampling.Predictor{Schedule: &sampling.Schedule{}}).Step(tensor.Tensor{}, sampling.Timestep{}), 8, 8, 16)
	if err != nil {
		t.Fatal(err)
	}
	d.Clip, d.InEps = true, true
	for _, build := range []func(*onnx.Module){
		scaled(shape), read(shape, 6, true, 16), difference(shape, guidance.Difference{Scale: 1, Channels: 2}), degrade(shape, d), away(shape, d),
		update(shape, sampling.Update{Limit: 1, Draws: true, Learned: true}, true), update(shape, sampling.Update{Limit: 1}, false),
	} {
		m, err := onnx.Build(nil, build)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range m.Nodes {
			signature := fmt.Sprintf("%s %s", n.Op, n.InputTypes[0])
			if in, out := n.InputTypes[0], n.OutputTypes[0]; in != out {
				signature += ">" + string(out)
			}
			if table[signature] != "cuda webgpu" {
				t.Errorf("%s: kernels of %q", signature, table[signature])
			}
		}
	}
}

// What has no graph is an error that says what.
func TestHostsWay(t *testing.T) {
	n := newToy(t, 3, 8, 8)
	square := guidance.NewSAG()
	square.Mask, square.Layer = "square", "toy"
	rescaled := guidance.NewCFG()
	rescaled.Rescale = 0.7
	for want, c := range map[string]struct {
		sampler sampling.Sampler
		g       sampling.Guidance
	}{
		"the sampler has no graph":          {&sampling.PNDM{Steps: 10}, nil},
		"guidance pag has no graph":         {&sampling.DDIM{Steps: 10}, guidance.NewPAG()},
		"guidance sag has the mask square":  {&sampling.DDIM{Steps: 10}, square},
		"guidance cfg rescales":             {&sampling.DDIM{Steps: 10}, rescaled},
		"the network has to be called thro": {&sampling.DDIM{Steps: 10}, nil},
	} {
		p := &sampling.Predictor{}
		if c.g != nil {
			p.Guidances = []sampling.Guidance{c.g}
		}
		var g models.Generator = n
		if strings.HasPrefix(want, "the network") {
			g = n.Generator
		}
		if _, err := New(p, c.sampler, g, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A number that is not finite ends in an error, whatever comes after it.
func TestNotFinite(t *testing.T) {
	n, sampler := newToy(t, 3, 8, 8), &sampling.DDIM{Steps: 5}
	for name, bad := range map[string]float32{"NaN": float32(math.NaN()), "infinity": float32(math.Inf(1))} {
		p, x, noise := predictor(t, n, 2, sampler)
		p.Cond.Vector.Data[70] = bad
		stages := NewStages(device())
		l, err := New(p, sampler, n, stages)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Sample(t.Context(), p, x, noise, func(int) {}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%s: %v", name, err)
		}
		stages.Close()
	}
}

// On a device with a memory of its own, what crosses in a step is coefficients; x_T and
// conditions cross once, x_0 at the end.
func TestTraffic(t *testing.T) {
	if !device().Resident() {
		t.Skip("the device computes in the host's memory")
	}
	n := newToy(t, 3, 48, 48)
	const images = 4
	state := int64(4 * images * 3 * 48 * 48)
	for steps, want := range map[int]int64{4: 2 * state, 8: 2 * state} {
		for _, draws := range []bool{false, true} {
			var sampler sampling.Sampler = &sampling.DDIM{Steps: steps}
			if draws {
				sampler = &sampling.DDPM{Steps: steps}
				want += int64(steps) * state // its noise
			}
			g := guidance.NewSAG()
			g.Layer, g.BlurSigma, g.BlurKernel = "toy", 1.5, 9
			p, x, noise := predictor(t, n, images, sampler, g)
			stages := NewStages(device())
			l, err := New(p, sampler, n, stages)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Sample(t.Context(), p, x, noise, func(int) {}); err != nil {
				t.Fatal(err)
			}
			stages.Close()
			up, down := l.Traffic().Up.Load()-want, l.Traffic().Down.Load()-state
			t.Logf("%d steps: beside x_T, the condition, noise and x_0 %d bytes up and %d down", steps, up, down)
			if up < 0 || up > int64(steps)*400 || down < 0 || down > 4*images {
				t.Errorf("%d steps: beside x_T, the condition, noise and x_0 %d bytes up and %d down", steps, up, down)
			}
		}
	}
}
