package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// FIDInfinity extrapolates FID to infinitely many generated images (Chong and
// Forsyth, "Effectively Unbiased FID and Inception Score and where to find
// them", §3): FID of random subsets of growing size against the whole
// reference, and a straight line through it as a function of 1/N,
//
//	FID_N ≈ a + b/N,  answer a
//
// Sizes are evenly spaced from the smallest to all images (dgm-eval and
// FID_IS_infinity: 15 from 5000 on). Means are float64.
type FIDInfinity struct {
	rowsOfPool
	Points   int    `yaml:"points" min:"2" max:"1000" doc:"number of subset sizes"`
	Smallest int    `yaml:"smallest" min:"2" max:"10000000" doc:"smallest subset; at most a tenth of the images is taken"`
	Seed     uint32 `yaml:"seed" min:"0" max:"4294967295" doc:"seed of the subsets (numpy.random.RandomState)"`
}

var _ Resampler = (*FIDInfinity)(nil)

// Validate implements the check after decoding.
func (m *FIDInfinity) Validate() error {
	if m.Points < 2 || m.Smallest < 2 {
		return fmt.Errorf("%d points from %d images on; at least 2 of each are needed", m.Points, m.Smallest)
	}
	return nil
}

// Column implements Metric.
func (*FIDInfinity) Column() Column { return Column{"fid_infinity", "FID∞", Lower, 2} }

// MinImages implements Metric: a covariance takes two images.
func (*FIDInfinity) MinImages() int { return 2 }

// Score implements Metric.
func (m *FIDInfinity) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	subsets, err := m.subsets(gen)
	if err != nil {
		return nil, err
	}
	fit, err := FIDOfSubsets(ctx, ref, gen, subsets)
	if err != nil {
		return nil, err
	}
	s := m.Column().score(fit.Intercept, fmt.Sprintf("%d subsets of %d to %d images", m.Points, len(subsets[0]), gen.N))
	if smallest := len(subsets[0]); smallest <= gen.D {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: FID∞ is extrapolated from subsets of %d images on, in %d dimensions: up to %d images a covariance is singular and FID does not follow a line in 1/N; it takes %d images or more, and fid_infinity: {smallest: %d}, to mean something",
			gen.name(), smallest, gen.D, gen.D, 10*(gen.D+1), max(m.Smallest, gen.D+1)))
	}
	return []Score{s}, nil
}

// subsets are the images that each point of the line is computed from.
func (m *FIDInfinity) subsets(gen *Features) ([][]int, error) {
	if err := cmp.Or(m.Validate(), gen.requirePool()); err != nil {
		return nil, err
	}
	smallest := min(m.Smallest, max(gen.N/10, 2))
	if smallest >= gen.N {
		return nil, fmt.Errorf("%s: %d images are too few for subsets", gen.name(), gen.N)
	}
	random := newRandomState(m.Seed)
	subsets := make([][]int, m.Points)
	for i := range subsets {
		size := smallest + (gen.N-smallest)*i/(m.Points-1)
		subsets[i] = random.permutation(gen.N)[:size]
	}
	return subsets, nil
}

// Replicates implements Resampler: subsets of each draw, a line each. One
// costs as much as the score.
func (m *FIDInfinity) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	subsets, err := m.subsets(gen)
	if err != nil {
		return nil, err
	}
	out := make([]float64, d.Len())
	for b, list := range d.index {
		resampled := make([][]int, len(subsets))
		for i, s := range subsets {
			for _, at := range s {
				resampled[i] = append(resampled[i], int(list[at]))
			}
		}
		fit, err := FIDOfSubsets(ctx, ref, gen, resampled)
		if err != nil {
			return nil, err
		}
		out[b] = fit.Intercept
		d.progress(b + 1)
	}
	return out, nil
}

// An InfinityFit is the line FID_N ≈ Intercept + Slope/N through FID of subsets.
type InfinityFit struct {
	FIDs             []float64 // of the subsets
	Intercept, Slope float64
}

// FIDOfSubsets fits the line for subsets given as indices of generated images.
func FIDOfSubsets(ctx context.Context, ref, gen *Features, subsets [][]int) (InfinityFit, error) {
	var fit InfinityFit
	r, err := ref.poolStats()
	if err != nil {
		return fit, err
	}
	p := products(gen, ref)
	inverse := make([]float64, len(subsets))
	for i, list := range subsets {
		if err := ctx.Err(); err != nil {
			return fit, err
		}
		s, err := statsAt(gen.Pool, gen.D, list, p)
		if err != nil {
			return fit, err
		}
		gen.Touched(len(list) * gen.D)
		f, err := FrechetDistance(r, s, MeanFloat64, p)
		if err != nil {
			return fit, err
		}
		fit.FIDs = append(fit.FIDs, f.Distance)
		inverse[i] = 1 / float64(len(list))
	}
	fit.Intercept, fit.Slope, err = line(inverse, fit.FIDs)
	return fit, err
}

// line is the least-squares fit y ≈ a + b·x.
func line(x, y []float64) (a, b float64, err error) {
	mx, _ := meanStd(x)
	my, _ := meanStd(y)
	var sxy, sxx float64
	for i := range x {
		sxy += (x[i] - mx) * (y[i] - my)
		sxx += (x[i] - mx) * (x[i] - mx)
	}
	if sxx == 0 {
		return 0, 0, errors.New("subsets of one size: no line through FID over 1/N")
	}
	b = sxy / sxx
	return my - b*mx, b, nil
}
