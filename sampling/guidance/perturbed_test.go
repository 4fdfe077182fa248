package guidance

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// weak is a network with a closed form, which each perturbation makes another
// one, and that keeps what each call was asked; label 10 is ∅.
type weak struct{ asked [][]sampling.Perturbation }

func weakEps(x float64, label int64, p sampling.Perturbation) float64 {
	eps := x/2 + float64(label)/8
	switch p.Kind {
	case sampling.IdentityAttention:
		return eps + math.Sin(x+float64(len(p.Layers)))
	case sampling.BlurredQueries:
		return eps * (1 + p.Sigma/10)
	case sampling.SkippedBlock:
		return -x * float64(label)
	}
	return eps
}

func (d *weak) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	asked := c.Perturbed
	if asked == nil {
		asked = make([]sampling.Perturbation, x.Rows())
	}
	d.asked = append(d.asked, asked)
	p := sampling.Prediction{Eps: x.Like()}
	for n := range x.Rows() {
		for j, v := range x.Row(n) {
			p.Eps.Row(n)[j] = float32(weakEps(float64(v), c.Labels[n], asked[n]))
		}
	}
	return p, nil
}

// Each of them beside the others and classifier-free guidance, against diffusers'
// sum ε_∅ + w (ε_c − ε_∅) + Σ s (ε_c − ε'_c); all in one network call.
func TestPerturbed(t *testing.T) {
	layers := []string{"middle_block.1", "output_blocks.1.1"}
	pag := &PAG{Perturbed{Scale: 3, Layers: layers}}
	seg := &SEG{BlurSigma: 4, Perturbed: Perturbed{Scale: 0.7, Layers: layers[:1]}}
	slg := &SLG{Perturbed{Scale: -2, Layers: layers[1:]}}
	off := &PAG{Perturbed{Scale: 0, Layers: layers[1:]}}
	same := &PAG{Perturbed{Scale: 1, Layers: layers}} // the perturbation of pag
	x := noise(t, 2, 2, 3, 3)
	for _, c := range []struct {
		guidances []sampling.Guidance
		cfg       float64
		sum       map[sampling.Perturbation]float64
	}{
		{[]sampling.Guidance{pag}, 1, map[sampling.Perturbation]float64{pag.Perturbation(): 3}},
		{[]sampling.Guidance{seg}, 1, map[sampling.Perturbation]float64{seg.Perturbation(): 0.7}},
		{[]sampling.Guidance{slg}, 1, map[sampling.Perturbation]float64{slg.Perturbation(): -2}},
		{[]sampling.Guidance{off}, 1, nil},
		{[]sampling.Guidance{pag, same}, 1, map[sampling.Perturbation]float64{pag.Perturbation(): 4}},
		{[]sampling.Guidance{&CFG{Scale: 5}, pag}, 5, map[sampling.Perturbation]float64{pag.Perturbation(): 3}},
		{[]sampling.Guidance{pag, seg, &CFG{Scale: 2}, slg, off}, 2, map[sampling.Perturbation]float64{pag.Perturbation(): 3, seg.Perturbation(): 0.7, slg.Perturbation(): -2}},
	} {
		d := &weak{}
		p := labelledPredictor(t, d, c.guidances...)
		got, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(3))
		if err != nil {
			t.Fatal(err)
		}
		for n, label := range p.Cond.Labels {
			want := make([]float32, x.RowLen())
			for j, v := range x.Row(n) {
				x := float64(v)
				good, null := weakEps(x, label, sampling.Perturbation{}), weakEps(x, 10, sampling.Perturbation{})
				sum := null + c.cfg*(good-null)
				for q, s := range c.sum {
					sum += s * (good - weakEps(x, label, q))
				}
				want[j] = float32(sum)
			}
			if err := near(got.Eps.Row(n), want, 3e-6); err != nil {
				t.Errorf("%v: image %d: %v", c.guidances, n, err)
			}
		}
		passes := 1 + len(c.sum)
		if c.cfg != 1 {
			passes++
		}
		if len(d.asked) != 1 || len(d.asked[0]) != 2*passes {
			t.Errorf("%v: calls of %v, want one of %d images", c.guidances, d.asked, 2*passes)
		}
		if needed := sampling.PerturbationsOf(c.guidances); len(needed) < len(c.sum) || slices.Contains(needed, sampling.Perturbation{}) {
			t.Errorf("%v need %v", c.guidances, needed)
		}
	}
}

// The scale is not part of what the network is built with; layers and blur are.
func TestPerturbation(t *testing.T) {
	at := func(scale, sigma float64, layers ...string) sampling.Perturbation {
		return (&SEG{BlurSigma: sigma, Perturbed: Perturbed{Scale: scale, Layers: layers}}).Perturbation()
	}
	if at(0, 1, "a") != at(3, 1, "a") || at(1, 1, "a") == at(1, 2, "a") || at(1, 1, "a") == at(1, 1, "a", "b") {
		t.Error("the perturbation depends on the scale, or not on blur and layers")
	}
	if got := at(1, 1, "a.0", "b.1").Paths(); !slices.Equal(got, []string{"a.0", "b.1"}) {
		t.Errorf("layers %v", got)
	}
	if got := sampling.PerturbationsOf([]sampling.Guidance{NewCFG(), &PAG{Perturbed{Layers: []string{"a"}}}, &SLG{Perturbed{Layers: []string{"a"}}}, &PAG{Perturbed{Scale: 2, Layers: []string{"a"}}}}); len(got) != 2 {
		t.Errorf("%v, want two", got)
	}
}

// Outside their interval they make no pass.
func TestPerturbedInterval(t *testing.T) {
	x := noise(t, 2, 1, 2, 2)
	for index, want := range map[int]int{9: 2, 5: 4, 0: 2} {
		d := &weak{}
		g := &SLG{Perturbed{Scale: 2, Layers: []string{"blocks.1"}, Contrast: Contrast{Start: new(700.0), Stop: new(300.0)}}}
		p := labelledPredictor(t, d, g)
		if _, _, err := p.Predict(t.Context(), x, p.Schedule.Timestep(index)); err != nil || len(d.asked) != 1 || len(d.asked[0]) != want {
			t.Errorf("step %d: calls %v, want one of %d images: %v", index, d.asked, want, err)
		}
	}
}

func TestPerturbedFromYAML(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"{pag: {layers: [middle_block.1]}}", "3 [middle_block.1] {identity attention middle_block.1 0}"},
		{"{pag: {scale: 0, layers: [a, b], start: 900, stop: 100, rescale: 0.7, channels: 3, space: x_start}}", "0 [a b] {identity attention a,b 0}"},
		{"{seg: {layers: [blocks.3.attn]}}", "3 [blocks.3.attn] {blurred queries blocks.3.attn 9.999999e+06}"},
		{"{seg: {layers: [a], blur_sigma: 2.5, scale: 1}}", "1 [a] {blurred queries a 2.5}"},
		{"{slg: {layers: [blocks.3, blocks.4]}}", "2.8 [blocks.3 blocks.4] {skipped block blocks.3,blocks.4 0}"},
		{"pag", "layers is missing: name what is perturbed"},
		{"{slg: {layers: []}}", "layers is missing"},
		{"{pag: {layers: [a, b, a]}}", `layers holds "a" twice`},
		{`{pag: {layers: ["a,b"]}}`, `layers holds "a,b", expected a list of module paths`},
		{`{pag: {layers: [""]}}`, `layers holds "", expected a list`},
		{"{slg: {layers: [a], scale: .nan}}", "guidance.slg.scale: expected a finite number"},
		{"{seg: {layers: [a], blur_sigma: 0}}", "blur_sigma is 0, expected a positive number of positions"},
		{"{seg: {layers: [a], start: 1, stop: 2}}", "start has to be at least stop"},
		{"{pag: {layers: [a], blur_sigma: 1}}", `unknown key "blur_sigma"`},
		{"{slg: {layer: a}}", `unknown key "layer"`},
	} {
		gs, err := fromYAML(t, c.yaml)
		got := fmt.Sprint(err)
		if err == nil {
			p := gs[0].Value.(sampling.Perturber).Perturbation()
			switch g := gs[0].Value.(type) {
			case *PAG:
				got = fmt.Sprint(g.Scale, g.Layers, p)
			case *SEG:
				got = fmt.Sprint(g.Scale, g.Layers, p)
			case *SLG:
				got = fmt.Sprint(g.Scale, g.Layers, p)
			}
		}
		if !strings.Contains(strings.ReplaceAll(got, "  ", " "), c.want) {
			t.Errorf("%s: %s lacks %q", c.yaml, got, c.want)
		}
	}
}
