package eval

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPValue(t *testing.T) {
	replicates := make([]float64, 199) // −99 … 99 about a mean of 7
	for i := range replicates {
		replicates[i] = float64(i-99) + 7
	}
	for difference, want := range map[float64]float64{0: 1, 99: 3.0 / 200, -99: 3.0 / 200, 98: 5.0 / 200} {
		if got := PValue(difference, replicates); got != want {
			t.Errorf("p of %g is %g, want %g", difference, got, want)
		}
	}
	// Beyond the draws: the tail beyond t = 99.5/57.59 is larger than the count; that beyond
	// t = 10 with 198 degrees of freedom, by Simpson's rule, is 2.5610135e-19.
	if got := PValue(99.5, replicates); got != 1.0/200 {
		t.Errorf("just beyond the draws: %g", got)
	}
	if got := PValue(-10*math.Sqrt(328350.0*2/198), replicates); math.Abs(got/2.5610135e-19-1) > 1e-6 {
		t.Errorf("ten standard errors: %g", got)
	}
	if got := PValue(3, make([]float64, 50)); got != 1 {
		t.Errorf("draws without spread: p = %g, want 1", got)
	}
}

// Holm's own example in R's words: p.adjust(c(.01,.04,.03,.005), "holm").
func TestHolm(t *testing.T) {
	got := Holm([]float64{0.01, 0.04, 0.03, 0.005})
	for i, want := range []float64{0.03, 0.06, 0.06, 0.02} {
		if math.Abs(got[i]-want) > 1e-12 {
			t.Errorf("%v", got)
			break
		}
	}
	if got := Holm([]float64{0.9, 0.8}); !slices.Equal(got, []float64{1, 1}) {
		t.Errorf("above 1: %v", got)
	}
	if got := Holm(nil); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
}

// rate is how often p-values of differences that are none lie below 0.05. share is the
// part of the variance that images of a pair have in common; draws of unpaired sets are
// subtracted one off, as of two sets that do not pair.
func rate(t *testing.T, repeats, n, draws int, share float64, paired bool, dice *rand.Rand, statistic func(x []float32, d *Draws) (float64, []float64)) float64 {
	t.Helper()
	d, err := NewDraws(n, draws, 0)
	if err != nil {
		t.Fatal(err)
	}
	below := 0
	for range repeats {
		x, y := make([]float32, 2*n), make([]float32, 2*n)
		for i := range x {
			common := math.Sqrt(share) * dice.NormFloat64()
			x[i] = float32(common + math.Sqrt(1-share)*dice.NormFloat64())
			y[i] = float32(common + math.Sqrt(1-share)*dice.NormFloat64())
		}
		a, drawnA := statistic(x, d)
		b, drawnB := statistic(y, d)
		pairs := make([]float64, draws)
		for k := range pairs {
			other := k
			if !paired {
				other = (k + 1) % draws
			}
			pairs[k] = drawnA[k] - drawnB[other]
		}
		if PValue(a-b, pairs) < 0.05 {
			below++
		}
	}
	return float64(below) / float64(repeats)
}

// The false positives of 5 % are 5 %: for a mean, and for a Fréchet distance in one
// dimension, of sets in pairs and of sets that do not pair.
func TestFalsePositives(t *testing.T) {
	mean := func(x []float32, d *Draws) (float64, []float64) {
		whole, again := 0.0, make([]float64, d.Len())
		for i := range d.N {
			whole += float64(x[2*i]) / float64(d.N)
		}
		for b, list := range d.index {
			for _, i := range list {
				again[b] += float64(x[2*i]) / float64(d.N)
			}
		}
		return whole, again
	}
	// In one dimension the Fréchet distance is (μ−μ₀)² + (σ−σ₀)², here to N(0.5, 1.5²).
	frechet := func(x []float32, d *Draws) (float64, []float64) {
		distance := func(at func(i int) int) float64 {
			sum, squares := 0.0, 0.0
			for i := range d.N {
				v := float64(x[2*at(i)])
				sum, squares = sum+v, squares+v*v
			}
			mean := sum / float64(d.N)
			std := math.Sqrt((squares - sum*mean) / float64(d.N-1))
			return (mean-0.5)*(mean-0.5) + (std-1.5)*(std-1.5)
		}
		again := make([]float64, d.Len())
		for b, list := range d.index {
			again[b] = distance(func(i int) int { return int(list[i]) })
		}
		return distance(func(i int) int { return i }), again
	}
	for _, c := range []struct {
		name              string
		repeats, n, draws int
		share             float64
		paired            bool
		statistic         func([]float32, *Draws) (float64, []float64)
	}{
		{"mean, pairs", 2000, 80, 199, 0.8, true, mean},
		{"mean, no pairs", 2000, 80, 199, 0, false, mean},
		{"Fréchet, pairs", 2000, 150, 99, 0.5, true, frechet},
		{"Fréchet, no pairs", 2000, 150, 99, 0, false, frechet},
	} {
		dice := rand.New(rand.NewPCG(5, 95))
		got := rate(t, c.repeats, c.n, c.draws, c.share, c.paired, dice, c.statistic)
		t.Logf("%s: %.1f %% below 0.05", c.name, 100*got)
		if slack := 3.5 * math.Sqrt(0.05*0.95/float64(c.repeats)); math.Abs(got-0.05) > slack {
			t.Errorf("%s: p < 0.05 in %.1f %% of the cases, expected 5 ± %.1f %%", c.name, 100*got, 100*slack)
		}
	}
	// Of twenty comparisons at once, after Holm, any is below 0.05 in 5 % of the cases: their
	// smallest has to be below 0.0025, which 199 draws cannot count.
	const families, size, n, draws = 400, 20, 100, 199
	d, err := NewDraws(n, draws, 0)
	if err != nil {
		t.Fatal(err)
	}
	dice, wrong := rand.New(rand.NewPCG(20, 5)), 0
	for range families {
		p := make([]float64, size)
		for k := range p {
			x := make([]float32, 2*n)
			for i := range n {
				x[2*i] = float32(dice.ExpFloat64()-dice.ExpFloat64()) + 0.2*float32(dice.NormFloat64()) // of a pair's difference
			}
			p[k] = PValue(mean(x, d))
		}
		if slices.Min(Holm(p)) < 0.05 {
			wrong++
		}
	}
	t.Logf("twenty at once: %.1f %% of the families", 100*float64(wrong)/families)
	if slack := 3.5 * math.Sqrt(0.05*0.95/families); float64(wrong)/families > 0.05+slack {
		t.Errorf("twenty at once: a difference in %d of %d families, expected 5 ± %.1f %%", wrong, families, 100*slack)
	}
	// Pairs that are taken for none cost power, not validity: they claim less than 5 %.
	if got := rate(t, 1000, 80, 199, 0.8, false, rand.New(rand.NewPCG(5, 96)), mean); got > 0.05 {
		t.Errorf("pairs taken for none: %.1f %%", 100*got)
	}
}

// Draws are those of NumPy: RandomState(0).randint(10, size=10), twice.
func TestDrawsAreNumPys(t *testing.T) {
	d, err := NewDraws(10, MinReplicates, 0)
	if err != nil {
		t.Fatal(err)
	}
	for b, want := range [][]int32{{5, 0, 3, 3, 7, 9, 3, 5, 2, 4}, {7, 6, 8, 8, 1, 6, 7, 7, 8, 1}} {
		if !slices.Equal(d.index[b], want) {
			t.Errorf("draw %d: %v, want %v", b, d.index[b], want)
		}
	}
}
