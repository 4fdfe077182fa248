package run

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
	"sagbench/sampling/tensor"
)

// singly is a network that sees one image at a time.
type singly struct{ sampling.Denoiser }

func (d singly) Denoise(ctx context.Context, x tensor.Tensor, at sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	var eps, v, attn []tensor.Tensor
	for n := range x.Rows() {
		p, err := d.Denoiser.Denoise(ctx, x.Slice(n, n+1), at, c.Pick([]int{n}))
		if err != nil {
			return sampling.Prediction{}, err
		}
		eps, v, attn = append(eps, p.Eps), append(v, p.Var), append(attn, p.Attn)
	}
	return sampling.Prediction{Eps: rowsOf(eps), Var: rowsOf(v), Attn: rowsOf(attn)}, nil
}

// rowsOf joins single images; nothing where there is nothing to join.
func rowsOf(images []tensor.Tensor) tensor.Tensor {
	if images[0].IsZero() {
		return tensor.Tensor{}
	}
	out := tensor.Tensor{Shape: slices.Concat([]int{len(images)}, images[0].Shape[1:])}
	for _, t := range images {
		out.Data = append(out.Data, t.Data...)
	}
	return out
}

// embedded is the network of an embedded model and the predictor of its row for
// three images.
func embedded(t *testing.T, label string, overrides ...string) (models.Generator, *sampling.Predictor, tensor.Tensor) {
	t.Helper()
	e, err := plan.Load(filepath.Join(tiny.Root(), "configs", "families-fashion.yaml"), overrides)
	if err != nil {
		t.Fatal(err)
	}
	r := e.Rows[slices.IndexFunc(e.Rows, func(r *plan.Row) bool { return r.Label == label })]
	m, err := OpenNetwork(r, 0, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	g := m.(models.Generator)
	p, err := r.Predictor(t.Context(), g, g.Process(), nil)
	if err != nil {
		t.Fatal(err)
	}
	const images = 3
	x, c, err := NoiseInput(g, images)
	if err != nil {
		t.Fatal(err)
	}
	if err := Condition(t.Context(), p, g, c.Labels, images); err != nil {
		t.Fatal(err)
	}
	if err := (&Network{Generator: g}).Prompt(t.Context(), r, p, store.Span{From: 0, To: images}); err != nil {
		t.Fatal(err)
	}
	return g, p, x
}

// The embedded networks predict the same bits in one call for two conditions as
// image by image.
func TestJoinedBits(t *testing.T) {
	for _, label := range []string{"DiT", "SD"} {
		g, p, x := embedded(t, label, "guidance.cfg={scale: 3}", "guidance.sag.scale=0.5")
		d := &counting{Denoiser: g}
		p.Denoiser = d
		at := p.Schedule.Timestep(p.Schedule.Len() / 2)
		got, _, err := p.Predict(t.Context(), x, at)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{6, 3}; !slices.Equal(d.images, want) {
			t.Errorf("%s: calls of %v images, want %v", label, d.images, want)
		}
		p.Denoiser = singly{g}
		want, _, err := p.Predict(t.Context(), x, at)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Eps.Data, want.Eps.Data) || !slices.Equal(got.Var.Data, want.Var.Data) || !slices.Equal(got.Attn.Data, want.Attn.Data) {
			t.Errorf("%s: the joined prediction has other bits", label)
		}
		p.Guidances = []sampling.Guidance{&guidance.CFG{Scale: 1}}
		plain, _, err := p.Predict(t.Context(), x, at)
		if err != nil || slices.Equal(plain.Eps.Data, got.Eps.Data) {
			t.Errorf("%s: guidance changes nothing: %v", label, err)
		}
	}
}

// counting keeps the number of images of each call.
type counting struct {
	sampling.Denoiser
	images []int
}

func (d *counting) Denoise(ctx context.Context, x tensor.Tensor, at sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	d.images = append(d.images, x.Rows())
	return d.Denoiser.Denoise(ctx, x, at, c)
}

// An embedded model with a threshold that no position of some maps reaches:
// images without a mask skip the second pass, all others come out with the bits
// that they have alone, and Δε is that of a pass of all images up to rounding.
func TestEmptyMasks(t *testing.T) {
	g, p, x := embedded(t, "DiT", "guidance.sag.scale=0.5")
	at := p.Schedule.Timestep(p.Schedule.Len() / 2)
	sag := p.Guidances[0].(*guidance.SAG)
	own, err := g.Denoise(t.Context(), x, at, p.Cond)
	if err != nil {
		t.Fatal(err)
	}
	var most []float32
	for n := range x.Rows() {
		most = append(most, slices.Max(own.Attn.Row(n)))
	}
	sorted := slices.Sorted(slices.Values(most))
	sag.MaskThreshold = float64(sorted[0]) // one map has nothing above

	delta := func(x tensor.Tensor, c sampling.Cond) (eps, xHat tensor.Tensor, images []int) {
		d := &counting{Denoiser: g}
		q := *p
		q.Denoiser, q.Cond = d, c
		q.Trace = func(name string, _ sampling.Timestep, v tensor.Tensor) {
			if name == "degraded" {
				xHat = v.Clone()
			}
		}
		got, err := sag.Delta(t.Context(), q.Step(x, at))
		if err != nil {
			t.Fatal(err)
		}
		return got.Eps, xHat, d.images
	}
	got, xHat, images := delta(x, p.Cond)
	if want := []int{3, 2}; !slices.Equal(images, want) {
		t.Errorf("calls of %v images, want %v", images, want)
	}
	full, err := g.Denoise(t.Context(), xHat, at, p.Cond)
	if err != nil {
		t.Fatal(err)
	}
	for n := range x.Rows() {
		alone, _, _ := delta(x.Slice(n, n+1), sampling.Cond{Labels: p.Cond.Labels[n : n+1]})
		if !slices.Equal(alone.Data, got.Row(n)) {
			t.Errorf("image %d alone has another Δε", n)
		}
		var far float32
		for j, e := range own.Eps.Row(n) {
			d := got.Row(n)[j] - float32(sag.Scale)*(e-full.Eps.Row(n)[j])
			far = max(far, d, -d)
		}
		if most[n] > sorted[0] && far != 0 || far > 3e-6 {
			t.Errorf("image %d: Δε is %.2g from that of a pass of all images", n, far)
		}
		t.Logf("image %d: largest mass %.4f, Δε %.2g from that of a pass of all images", n, most[n], far)
	}
}
