package models

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// tinySiT are the flags of the reference case sit-tiny.
func tinySiT() *SiT {
	c := NewSiT()
	c.InputSize, c.PatchSize, c.HiddenSize, c.Depth, c.NumHeads, c.NumClasses = 8, 2, 64, 2, 4, 10
	return c
}

func openSiT(t *testing.T, c *SiT) *sitNet {
	t.Helper()
	m, err := c.Open(filepath.Join(cases, "sit-tiny/model.pt"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*sitNet)
}

// Denoise at x_t is the velocity at the path's state, of the half of the output that
// counts.
func TestSiTDenoise(t *testing.T) {
	n := openSiT(t, tinySiT())
	const time = 0.3
	state := tensor.New(2, 4, 8, 8)
	for i := range state.Data {
		state.Data[i] = float32(math.Sin(float64(i)))
	}
	labels := []int64{3, 10} // 10 is the null class
	out, err := n.Forward(t.Context(), map[string]ort.Array{"x": ort.Floats(state), "t": ort.Floats(tensor.Of([]float32{time, time}, 2)), "y": {Shape: []int{2}, Data: labels}})
	if err != nil {
		t.Fatal(err)
	}
	x, length := state.Clone(), float32(math.Hypot(time, 1-time))
	for i := range x.Data {
		x.Data[i] /= length
	}
	p, err := n.Denoise(t.Context(), x, sampling.Timestep{Value: time}, sampling.Cond{Labels: labels})
	if err != nil || !p.Var.IsZero() {
		t.Fatal(p.Var.Shape, err)
	}
	want := out["model"].Tensor()
	if !slices.Equal(want.Shape, state.Shape) {
		t.Errorf("the velocity has shape %v", want.Shape)
	}
	for i, v := range p.Eps.Data {
		if math.Abs(float64(v-want.Data[i])) > 2e-5 {
			t.Fatalf("v[%d] = %g, want %g", i, v, want.Data[i])
		}
	}
	if null, err := n.Null(t.Context(), 1); err != nil || null.Labels[0] != 10 {
		t.Errorf("∅ is %v, %v", null, err)
	}
}

func TestSiTProcess(t *testing.T) {
	for _, c := range []struct {
		path, prediction string
		predicts         sampling.Parametrization
		eps              float64
	}{
		{"Linear", "velocity", sampling.Flow, 0}, {"GVP", "velocity", sampling.Flow, 0}, {"VP", "velocity", sampling.Flow, 1e-3},
		{"Linear", "noise", sampling.Epsilon, 1e-3}, {"GVP", "score", sampling.Score, 1e-3},
	} {
		flags := tinySiT()
		flags.PathType, flags.Prediction = c.path, c.prediction
		p := openSiT(t, flags).Process()
		if path := p.Schedule.Path.(sampling.Interpolant); p.Predicts != c.predicts || p.ClipDenoised || path.Eps != c.eps || path.Type != c.path {
			t.Errorf("%s, %s: %+v", c.path, c.prediction, p)
		}
	}
}

func TestSiTFlags(t *testing.T) {
	c := NewSiT()
	c.Model = "SiT-XL/2"
	if err := c.Validate(); err != nil || c.HiddenSize != 1152 || c.Depth != 28 {
		t.Errorf("%+v, %v", c, err)
	}
	if shapes, err := c.Parameters(); err != nil || len(shapes) == 0 {
		t.Error(err)
	}
	for want, change := range map[string]func(c *SiT){
		`model "DiT-XL/2" is no published size; SiT has those of DiT`: func(c *SiT) { c.Model = "DiT-XL/2" },
		`path_type is "linear"`:   func(c *SiT) { c.PathType = "linear" },
		`prediction is "v"`:       func(c *SiT) { c.Prediction = "v" },
		"sample_eps is 0":         func(c *SiT) { c.PathType, c.SampleEps = "VP", 0 },
		"num_heads 5 does not":    func(c *SiT) { c.NumHeads = 5 },
		"vae_scaling_factor is 0": func(c *SiT) { c.VAEScalingFactor = 0 },
	} {
		c := tinySiT()
		change(c)
		if _, err := c.Open(filepath.Join(cases, "sit-tiny/model.pt"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := tinySiT().Open("pretrained/adm-uncond.pt", Options{}); err == nil || !strings.Contains(err.Error(), "family: adm") {
		t.Errorf("ADM's checkpoint: %v", err)
	}
}

// The file of a training holds an average, which is used; whose the shapes are they
// do not tell.
func TestSiTGuess(t *testing.T) {
	for name, wrapper := range map[string]string{"sit-tiny": "", "sit-train-tiny": "ema"} {
		f, err := checkpoint.Open(filepath.Join(cases, name, "model.pt"))
		if err != nil {
			t.Fatal(err)
		}
		g, ok := NewSiT().Guess(f.Tensors)
		if !ok || f.Wrapper != wrapper || len(g.Mismatches) > 0 || !strings.Contains(g.Evidence, "which SiT has as well") {
			t.Errorf("%s: %q, %+v, %v", name, f.Wrapper, g, ok)
		}
		f.Close()
	}
}
