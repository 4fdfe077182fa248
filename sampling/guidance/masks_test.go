package guidance

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// masksOf are the masks of a kind of a step's images, [H·W] each, and their areas
// under self-attention.
func masksOf(t *testing.T, name string, threshold float64, s *sampling.Step, p sampling.Prediction) (masks [][]bool, areas []int) {
	t.Helper()
	g := NewSAG()
	g.Mask, g.MaskThreshold, g.Layer, g.BlurKernel, g.BlurSigma = name, threshold, "layer", 5, 1
	d, err := g.degrader(s, p)
	if err != nil {
		t.Fatal(err)
	}
	random, err := d.kind.random(s, d.masker.positions())
	if err != nil {
		t.Fatal(err)
	}
	for n := range s.X.Rows() {
		w, im := d.blur.newWorkspace(), &entry{x: s.X.Row(n), output: p.Eps.Row(n), attention: sampling.RowOf(p.Attn, n), random: sampling.RowOf(random, n)}
		some := d.kind.choose(d, w, im)
		if some != slices.Contains(w.mask, true) {
			t.Errorf("%s: image %d: a mask of %d pixels is said to be empty: %v", name, n, count(w.mask), !some)
		}
		masks = append(masks, slices.Clone(w.mask))
		if d.kind.mapped {
			d.masker.mask(w.mask, im.attention, d.threshold)
			areas = append(areas, count(w.mask))
		}
	}
	return masks, areas
}

func count(mask []bool) int {
	n := 0
	for _, m := range mask {
		if m {
			n++
		}
	}
	return n
}

// maskStep is a step of images of 3×12×16 with a map of 3×4, of which image n's
// n+1 strongest positions lie above 1.
func maskStep(t *testing.T, images []int, at int) (*sampling.Step, sampling.Prediction) {
	keyed := sampling.Keyed{Seed: 9, Images: images}
	x, p := tensor.New(len(images), 3, 12, 16), sampling.Prediction{Eps: tensor.New(len(images), 3, 12, 16), Attn: tensor.New(len(images), 12)}
	if err := keyed.Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	if err := keyed.Fill(0, p.Eps); err != nil {
		t.Fatal(err)
	}
	for n, image := range images {
		for k := range p.Attn.Row(n) {
			if (k*5)%12 <= image%12 {
				p.Attn.Row(n)[k] = 2
			}
		}
	}
	predictor := &sampling.Predictor{Schedule: schedule(t), ClipDenoised: true, Random: keyed}
	return predictor.Step(x, predictor.Schedule.Timestep(at)), p
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Random and square masks have the area of the self-attention mask; they are a
// function of image and step, and fall everywhere.
func TestMasksOfEqualArea(t *testing.T) {
	const images = 600
	for _, name := range []string{randomMask, squareMask} {
		s, p := maskStep(t, upTo(images), 5)
		masks, areas := masksOf(t, name, 1, s, p)
		hits := make([]float64, 12*16)
		for n, mask := range masks {
			if count(mask) != areas[n] || areas[n] != 16*(n%12+1) {
				t.Fatalf("%s: image %d: %d pixels, want %d", name, n, count(mask), areas[n])
			}
			for j, m := range mask {
				if m {
					hits[j] += 1.0 / images
				}
			}
		}
		if low := slices.Min(hits); low < 0.05 || name == randomMask && (low < 0.45 || slices.Max(hits) > 0.65) {
			t.Errorf("%s: pixels are masked in %.2f to %.2f of the images", name, low, slices.Max(hits))
		}
		few, q := maskStep(t, []int{7, 300}, 5)
		again, _ := masksOf(t, name, 1, few, q)
		if !slices.Equal(again[0], masks[7]) || !slices.Equal(again[1], masks[300]) {
			t.Errorf("%s: masks depend on the batch", name)
		}
		later, q := maskStep(t, []int{7, 300}, 4)
		if other, _ := masksOf(t, name, 1, later, q); slices.Equal(other[0], masks[7]) && slices.Equal(other[1], masks[300]) {
			t.Errorf("%s: masks are those of another step", name)
		}
	}
}

// A square is one: rows of one width, the last one cut.
func TestSquareMask(t *testing.T) {
	s, p := maskStep(t, upTo(12), 5)
	masks, areas := masksOf(t, squareMask, 1, s, p)
	for n, mask := range masks {
		first := slices.Index(mask, true)
		want, width := make([]bool, len(mask)), 0
		for mask[first+width] && (first+width)/16 == first/16 {
			if width++; first+width == len(mask) {
				break
			}
		}
		for k := range areas[n] {
			want[first+k/width*16+k%width] = true
		}
		side := int(math.Ceil(math.Sqrt(float64(areas[n]))))
		if side > 12 { // as high as the image
			side = int(math.Ceil(float64(areas[n]) / 12))
		}
		if !slices.Equal(mask, want) || width != side {
			t.Errorf("image %d: %d pixels in rows of %d", n, areas[n], width)
		}
	}
	s, p = maskStep(t, []int{0}, 5)
	if masks, _ := masksOf(t, squareMask, 3, s, p); count(masks[0]) != 0 {
		t.Errorf("%d pixels where no position is above the threshold", count(masks[0]))
	}
}

// High-frequency masks against the kernel of 5×5 pixels, in float64.
func TestHighFrequencyMask(t *testing.T) {
	s, p := maskStep(t, upTo(3), 5)
	p.Attn = tensor.Tensor{} // it looks at none
	bar := s.Schedule().AlphaBar(5)
	for _, threshold := range []float64{0.5, 1, 2} {
		masks, _ := masksOf(t, highFrequency, threshold, s, p)
		for n, mask := range masks {
			energy, mean := make([]float64, 12*16), 0.0
			for c := range 3 {
				x0 := make([]float64, 12*16)
				for j := range x0 {
					v := (float64(s.X.Row(n)[c*192+j]) - math.Sqrt(1-bar)*float64(p.Eps.Row(n)[c*192+j])) / math.Sqrt(bar)
					x0[j] = max(-1, min(1, v))
				}
				for j := range x0 {
					sum, weights := 0.0, 0.0
					for dy := -2; dy <= 2; dy++ {
						for dx := -2; dx <= 2; dx++ {
							w := math.Exp(-float64(dy*dy+dx*dx) / 2)
							sum, weights = sum+w*x0[reflect(j/16+dy, 12)*16+reflect(j%16+dx, 16)], weights+w
						}
					}
					energy[j] += (x0[j] - sum/weights) * (x0[j] - sum/weights)
				}
			}
			for _, e := range energy {
				mean += e / float64(len(energy))
			}
			for j, e := range energy {
				if math.Abs(e-threshold*mean) > 1e-5*mean && mask[j] != (e > threshold*mean) {
					t.Errorf("ψ = %g, image %d, pixel %d: masked %v, energy %g of the mean %g", threshold, n, j, mask[j], e, mean)
				}
			}
		}
	}
}

// untapped is a toy of which no layer is tapped.
type untapped struct{ *toy }

func (d untapped) Denoise(ctx context.Context, x tensor.Tensor, at sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	p, err := d.toy.Denoise(ctx, x, at, c)
	p.Attn = tensor.Tensor{}
	return p, err
}

// Blur guidance is SAG that masks everything, without a layer.
func TestBlurGuidance(t *testing.T) {
	x := noise(t, 2, 3, 8, 8)
	draw := func(g *SAG, d sampling.Denoiser) []float32 {
		out, err := (&sampling.DDIM{Steps: 10}).Sample(t.Context(), &sampling.Predictor{Denoiser: d, Guidances: []sampling.Guidance{g}, Schedule: schedule(t), ClipDenoised: true}, x, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out.Data
	}
	everything, blurs := NewSAG(), NewSAG()
	everything.Layer, everything.MaskThreshold = "layer", -1
	blurs.Mask = noMask
	if got, want := draw(blurs, untapped{&toy{rows: 4, columns: 4}}), draw(everything, &toy{rows: 4, columns: 4}); !slices.Equal(got, want) {
		t.Error("blur guidance is not SAG that masks everything")
	}
	if tap, needed, err := sampling.TapOf([]sampling.Guidance{blurs}); needed || err != nil {
		t.Errorf("blur guidance needs the map of %v: %v", tap, err)
	}
	random := *everything
	random.Mask = randomMask
	p := &sampling.Predictor{Denoiser: &toy{rows: 4, columns: 4}, Schedule: schedule(t)}
	if _, err := random.Delta(t.Context(), p.Step(x, p.Schedule.Timestep(3))); err == nil || !strings.Contains(err.Error(), "the predictor has no source of them") {
		t.Errorf("random masks without random numbers: %v", err)
	}
}
