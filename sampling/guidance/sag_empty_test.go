package guidance

import (
	"context"
	"slices"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// Images whose mask is empty and whose x̂0 is nowhere clipped are not sent
// through the network again; Δε is 0, which is that of a second pass but for
// rounding. All other images come out as if they were alone.
func TestSAGEmptyMask(t *testing.T) {
	s := schedule(t)
	const i, images, threshold = 4, 24, 1.47
	for _, c := range []struct {
		name     string
		clip     bool
		size     float32 // of the states: x̂0 beyond ±1 or not
		predicts sampling.Parametrization
	}{
		{"nothing clipped", false, 1, ""},
		{"clipping that changes nothing", true, 0.1, ""},
		{"something clipped", true, 1, ""},
		{"v", false, 1, sampling.V},
	} {
		x := noise(t, images, 3, 8, 8)
		for j := range x.Data {
			x.Data[j] *= c.size
		}
		run := func(x tensor.Tensor) (*toy, tensor.Tensor, tensor.Tensor) {
			d := &toy{rows: 2, columns: 2, predicts: c.predicts, s: s}
			g := &SAG{Scale: 0.8, BlurSigma: 1.5, BlurKernel: 9, MaskThreshold: threshold, Layer: "a"}
			var xHat tensor.Tensor
			p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: s, Predicts: c.predicts, ClipDenoised: c.clip,
				Trace: func(name string, _ sampling.Timestep, v tensor.Tensor) {
					if name == "degraded" {
						xHat = v.Clone()
					}
				}}
			delta, err := g.Delta(t.Context(), p.Step(x, s.Timestep(i)))
			if err != nil {
				t.Fatal(err)
			}
			return d, delta.Eps, xHat
		}
		d, delta, xHat := run(x)
		full, err := d.Denoise(t.Context(), xHat, s.Timestep(i), sampling.Cond{})
		if err != nil {
			t.Fatal(err)
		}
		own, err := d.Denoise(t.Context(), x, s.Timestep(i), sampling.Cond{})
		if err != nil {
			t.Fatal(err)
		}
		skipped := 0
		for n := range images {
			masked := slices.ContainsFunc(own.Attn.Row(n), func(v float32) bool { return v > threshold })
			clipped := c.clip && c.size == 1
			want := make([]float32, delta.RowLen())
			for j := range want {
				want[j] = 0.8 * (own.Eps.Row(n)[j] - full.Eps.Row(n)[j])
			}
			if err := near(delta.Row(n), want, 4e-6); err != nil {
				t.Errorf("%s: image %d: Δε: %v", c.name, n, err)
			}
			zero := !slices.ContainsFunc(delta.Row(n), func(v float32) bool { return v != 0 })
			if zero != (!masked && !clipped) {
				t.Errorf("%s: image %d, masked %v, clipped %v: Δε is zero: %v", c.name, n, masked, clipped, zero)
			}
			if zero {
				skipped++
			}
			if _, alone, _ := run(x.Slice(n, n+1)); !slices.Equal(alone.Data, delta.Row(n)) {
				t.Errorf("%s: image %d alone has another Δε", c.name, n)
			}
		}
		if passed := d.asked[1].Rows(); passed != images-skipped || skipped == images || (skipped == 0) != (c.name == "something clipped") {
			t.Errorf("%s: %d of %d images in the second pass, %d have no Δε", c.name, passed, images, skipped)
		}
	}
}

// The rows of a batch that are asked about keep their conditions, and none make
// no call.
func TestSAGEmptyMaskConditions(t *testing.T) {
	d := &mixed{}
	g := &SAG{Scale: 1, BlurSigma: 1, BlurKernel: 3, MaskThreshold: 1, Layer: "a"}
	p := &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: schedule(t),
		Cond: sampling.Cond{Labels: []int64{3, 7, 5}, Context: tensor.Of([]float32{0.3, 0.7, 0.5}, 3, 1, 1)}}
	x := noise(t, 3, 1, 4, 4)
	for _, c := range []struct {
		masked []int64
		want   [][]int64
	}{
		{nil, [][]int64{{3, 7, 5}}},
		{[]int64{7, 5}, [][]int64{{3, 7, 5}, {7, 5}}},
		{[]int64{3}, [][]int64{{3, 7, 5}, {3}}},
		{[]int64{3, 5, 7}, [][]int64{{3, 7, 5}, {3, 7, 5}}},
	} {
		d.masked, d.asked = c.masked, nil
		if _, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3)); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(d.asked, c.want, slices.Equal) {
			t.Errorf("masks of %v: passes of %v, want %v", c.masked, d.asked, c.want)
		}
	}
}

// mixed attends where its label says so, and keeps the labels of its calls.
type mixed struct {
	masked []int64
	asked  [][]int64
}

func (d *mixed) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	d.asked = append(d.asked, slices.Clone(c.Labels))
	p := sampling.Prediction{Eps: x.Clone(), Attn: tensor.New(x.Rows(), 4)}
	for n, y := range c.Labels {
		if c.Context.Row(n)[0] != float32(y)/10 {
			panic("the context of another image")
		}
		if slices.Contains(d.masked, y) {
			p.Attn.Row(n)[2] = 4
		}
	}
	return p, nil
}
