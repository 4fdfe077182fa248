package eval

import (
	"context"
	"errors"
	"fmt"

	"sagbench/eval/linalg"
)

// FID is the Fréchet distance of two Gaussians fitted to pool features
// (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", eq. 6):
//
//	d² = |μ₁−μ₂|² + Tr Σ₁ + Tr Σ₂ − 2·Tr √(Σ₁Σ₂)
//
// evaluator.py, FIDStatistics.frechet_distance. ADM and torch-fidelity take
// means in float32 (row after row), pytorch-fid and torchmetrics in float64.
//
// Where SciPy's square root of Σ₁Σ₂ is not finite, evaluator.py, pytorch-fid
// and clean-fid take that of (Σ₁+εI)(Σ₂+εI), ε = 10⁻⁶, and a feature that is
// constant in one set alone then adds up to 2√(εσ²) less to the distance. The
// root here is always finite and exact; Offset is for repeating such a number.
type FID struct {
	statisticsOfPool
	Mean   MeanType `yaml:"mean" doc:"float32 (ADM, torch-fidelity) or float64 (exact; pytorch-fid, torchmetrics)"`
	Offset float64  `yaml:"offset" min:"0" max:"1" doc:"added to all variances under the root; 0: exact, 1e-6: what evaluators print after SciPy's root has failed"`
}

var _ Resampler = (*FID)(nil)

// A MeanType is the arithmetic of the mean of features.
type MeanType string

// The arithmetics of the mean. Statistics that were read from a file have the
// mean that the file holds, whatever is asked for.
const (
	MeanFloat32 MeanType = "float32"
	MeanFloat64 MeanType = "float64"
)

// Validate reports an unknown name.
func (m MeanType) Validate() error {
	if m != MeanFloat32 && m != MeanFloat64 {
		return fmt.Errorf("mean %q; known: %s, %s", string(m), MeanFloat32, MeanFloat64)
	}
	return nil
}

// Validate implements the check after decoding.
func (m *FID) Validate() error {
	if !(m.Offset >= 0 && m.Offset <= 1) {
		return fmt.Errorf("offset is %g, expected 0 to 1", m.Offset)
	}
	return m.Mean.Validate()
}

// Column implements Metric.
func (*FID) Column() Column { return Column{"fid", "FID", Lower, 2} }

// Score implements Metric.
func (m *FID) Score(_ context.Context, ref, gen *Features) ([]Score, error) {
	return m.scoreOfPools(m.Column(), ref, gen)
}

// scoreOfPools is the score of pool features under a metric's name.
func (m *FID) scoreOfPools(c Column, ref, gen *Features) ([]Score, error) {
	r, err := ref.poolStats()
	if err != nil {
		return nil, err
	}
	g, err := gen.poolStats()
	if err != nil {
		return nil, err
	}
	return frechetScore(c, r, g, *m, products(gen, ref))
}

// Replicates implements Resampler; each takes a covariance and a trace.
func (m *FID) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	r, err := ref.poolStats()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(gen.requirePool(), gen.requireOwn(gen.Stats)); err != nil {
		return nil, err
	}
	return frechetReplicates(ctx, r, gen.Pool, d, *m, products(gen, ref))
}

// frechetScore is the distance as a score, with what may mislead about it.
func frechetScore(c Column, ref, gen *Stats, m FID, p linalg.Products) ([]Score, error) {
	f, err := m.distance(ref, gen, p)
	if err != nil {
		return nil, err
	}
	s := Score{Column: c, Value: f.Distance, Numerics: f.Route}
	for _, set := range []*Stats{ref, gen} {
		if set.N == 0 || set.N > set.D() {
			continue
		}
		more, err := m.ofHalves(ref, gen, set, p)
		if err != nil {
			return nil, err
		}
		about := ""
		if more > f.Distance {
			about = fmt.Sprintf(", by roughly %.2g, which is what half of them give on top", more-f.Distance)
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf(
			"%s: %d images in %d dimensions: the covariance is singular and %s is biased upwards%s; compare equal numbers of images only",
			set.name(), set.N, set.D(), c.Title, about))
	}
	return []Score{s}, nil
}

// ofHalves is the mean distance with every other image of a set whose features
// are known, 0 where there are none. Since FID_N ≈ a + b/N (FIDInfinity),
// it exceeds the distance by about the bias b/N.
func (m *FID) ofHalves(ref, gen, set *Stats, p linalg.Products) (float64, error) {
	d, sum := set.D(), 0.0
	if set.Rows == nil || set.N < 4 {
		return 0, nil
	}
	for first := range 2 {
		var list []int32
		for i := first; i < set.N; i += 2 {
			list = append(list, int32(i))
		}
		half, err := statsAt(set.Rows, d, list, p)
		if err != nil {
			return 0, err
		}
		r, g := half, gen
		if set == gen {
			r, g = ref, half
		}
		f, err := m.distance(r, g, p)
		if err != nil {
			return 0, err
		}
		sum += f.Distance / 2
	}
	return sum, nil
}

// statsAt are the statistics of the listed rows of features [N,d].
func statsAt[T int | int32](rows []float32, d int, list []T, p linalg.Products) (*Stats, error) {
	a := NewAccumulator(d, p)
	for _, i := range list {
		if err := a.Add(rows[int(i)*d : (int(i)+1)*d]); err != nil {
			return nil, err
		}
	}
	return a.Stats()
}

// frechetReplicates are the Fréchet distances of the draws from rows [N,d]; a
// product of matrices and an eigenvalue problem each.
func frechetReplicates(ctx context.Context, ref *Stats, rows []float32, d *Draws, m FID, p linalg.Products) ([]float64, error) {
	out := make([]float64, d.Len())
	for b, list := range d.index {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := statsAt(rows, len(rows)/d.N, list, p)
		if err != nil {
			return nil, err
		}
		f, err := m.distance(ref, s, p)
		if err != nil {
			return nil, err
		}
		out[b] = f.Distance
		d.progress(b + 1)
	}
	return out, nil
}

// A Frechet is the Fréchet distance and its parts.
type Frechet struct {
	Distance float64
	Mean     float64 // |μ₁−μ₂|²
	Traces   float64 // Tr Σ₁ + Tr Σ₂
	Root     float64 // Tr √(Σ₁Σ₂)
	Route    string  // how Root was computed
}

// FrechetDistance compares two sets of statistics. Rounding can leave the
// distance of equal sets a little below zero; it is then zero. Nil products
// are linalg.Gonum.
func FrechetDistance(ref, gen *Stats, mean MeanType, p linalg.Products) (Frechet, error) {
	return (&FID{Mean: mean}).distance(ref, gen, p)
}

// distance is FrechetDistance with all options.
func (m *FID) distance(ref, gen *Stats, p linalg.Products) (Frechet, error) {
	if ref.D() != gen.D() {
		return Frechet{}, fmt.Errorf("%s has %d dimensions, %s has %d: they come from different networks",
			ref.name(), ref.D(), gen.name(), gen.D())
	}
	root, route, err := linalg.TraceOfRoot(ref.covariance(m.Offset), gen.covariance(m.Offset), p)
	if err != nil {
		return Frechet{}, err
	}
	f := Frechet{Mean: meanDistance(ref, gen, m.Mean), Traces: ref.trace() + gen.trace(), Root: root, Route: route}
	f.Distance = max(f.Mean+f.Traces-2*f.Root, 0)
	return f, nil
}

// meanDistance is |μ₁−μ₂|². Two float32 means are subtracted in float32, as
// NumPy does; their squares are added exactly.
func meanDistance(ref, gen *Stats, mean MeanType) float64 {
	sum := 0.0
	for j := range ref.Mean {
		delta := ref.Mean[j] - gen.Mean[j]
		if mean == MeanFloat32 {
			switch {
			case ref.Mean32 != nil && gen.Mean32 != nil:
				delta = float64(ref.Mean32[j] - gen.Mean32[j])
			case ref.Mean32 != nil:
				delta = float64(ref.Mean32[j]) - gen.Mean[j]
			case gen.Mean32 != nil:
				delta = ref.Mean[j] - float64(gen.Mean32[j])
			}
		}
		sum += delta * delta
	}
	return sum
}
