package eval

import (
	"context"
	"fmt"
)

// Precision is the share of generated images that lie in the manifold of the
// reference: within the ball around some reference image whose radius is the
// distance to its k-th neighbour among the reference images (Kynkäänniemi et
// al., "Improved Precision and Recall Metric", eq. 1 and 2):
//
//	precision = 1/M Σⱼ [∃i: |rᵢ−gⱼ|² ≤ ρₖ(rᵢ)²]
//
// evaluator.py: k = 3, squared distances in float16, see Distance.
type Precision struct {
	K        int      `yaml:"k" doc:"neighbour whose distance is the radius"`
	Distance Distance `yaml:"distance" doc:"adm (evaluator.py on TensorFlow's CPU kernels), fp16 (the same, each sum exact) or f32 (exact)"`
}

// Recall is the share of reference images that lie in the manifold of the
// generated ones; see Precision.
//
//	recall = 1/N Σᵢ [∃j: |rᵢ−gⱼ|² ≤ ρₖ(gⱼ)²]
type Recall struct {
	K        int      `yaml:"k" doc:"neighbour whose distance is the radius"`
	Distance Distance `yaml:"distance" doc:"adm (evaluator.py on TensorFlow's CPU kernels), fp16 (the same, each sum exact) or f32 (exact)"`
}

var (
	_ Resampler = (*Precision)(nil)
	_ Resampler = (*Recall)(nil)
)

// Validate implements the check after decoding.
func (m *Precision) Validate() error { return validBalls(m.K, m.Distance) }

// Validate implements the check after decoding.
func (m *Recall) Validate() error { return validBalls(m.K, m.Distance) }

func validBalls(k int, d Distance) error {
	if k < 1 {
		return fmt.Errorf("k is %d, expected at least 1", k)
	}
	return d.Validate()
}

// Column implements Metric.
func (*Precision) Column() Column { return Column{"precision", "Precision", Higher, 2} }

// Column implements Metric.
func (*Recall) Column() Column { return Column{"recall", "Recall", Higher, 2} }

// Score implements Metric.
func (m *Precision) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	c, err := compareManifolds(ctx, ref, gen, manifoldKey{m.Distance, m.K, false})
	if err != nil {
		return nil, err
	}
	return ballsScore(m.Column(), float64(c.genIn)/float64(gen.N), ref, ballsNote(m.K, string(m.Distance), ref, gen)), nil
}

// Score implements Metric.
func (m *Recall) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	c, err := compareManifolds(ctx, ref, gen, manifoldKey{m.Distance, m.K, false})
	if err != nil {
		return nil, err
	}
	return ballsScore(m.Column(), float64(c.refIn)/float64(ref.N), ref, ballsNote(m.K, string(m.Distance), ref, gen)), nil
}

// Replicates implements Resampler: the reference balls stay, images are drawn.
func (m *Precision) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	found, err := manifoldMembers(ctx, ref, gen, manifoldKey{m.Distance, m.K, false})
	if err != nil {
		return nil, err
	}
	return found.means(d, inAny), nil
}

// Replicates implements Resampler: images are drawn with their balls, whose
// radii stay.
func (m *Recall) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	found, err := manifoldMembers(ctx, ref, gen, manifoldKey{m.Distance, m.K, false})
	if err != nil {
		return nil, err
	}
	return found.in.replicates(d), nil
}

func ballsNote(k int, distances string, ref, gen *Features) string {
	return fmt.Sprintf("k = %d, %s distances, %d reference and %d generated images", k, distances, ref.N, gen.N)
}

// ballsScore is a share of images in balls. Balls shrink as a set grows, so
// that shares compare only at equal numbers; published ones have 10,000
// reference images (those of ImageNet 512² only 1,000).
func ballsScore(c Column, share float64, ref *Features, note string) []Score {
	const usual = 10000
	s := c.score(share, note)
	if ref.N < usual {
		s.Warnings = append(s.Warnings, fmt.Sprintf(
			"%s: %d reference images: precision, recall, density and coverage compare with published ones at %d only", ref.name(), ref.N, usual))
	}
	return []Score{s}
}

// A manifoldKey says how two sets are compared; the outcome is remembered.
type manifoldKey struct {
	distance Distance
	k        int
	strict   bool
}

type radiiKey struct {
	distance Distance
	k        int
}

// radiiOf are the radii of a set, computed once.
func (f *Features) radii(s *scan, k int) ([]float64, error) {
	return remember(f, radiiKey{s.kind, k}, func() ([]float64, error) {
		r, err := s.radii(f.Pool, []int{k})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name(), err)
		}
		return r[0], nil
	})
}

// compareManifolds counts the images of one set in the balls of the other.
func compareManifolds(ctx context.Context, ref, gen *Features, key manifoldKey) (manifoldCount, error) {
	if err := pools(ref, gen); err != nil {
		return manifoldCount{}, err
	}
	if err := validBalls(key.k, key.distance); err != nil {
		return manifoldCount{}, err
	}
	type against struct {
		ref *Features
		manifoldKey
	}
	return remember(gen, against{ref, key}, func() (manifoldCount, error) {
		s := newScan(ctx, key.distance, products(gen, ref), ref.Pool, ref.D)
		r, err := ref.radii(s, key.k)
		if err != nil {
			return manifoldCount{}, err
		}
		g, err := gen.radii(s, key.k)
		if err != nil {
			return manifoldCount{}, err
		}
		c, err := s.manifolds(ref.Pool, gen.Pool, [][]float64{r}, [][]float64{g}, key.strict)
		if err != nil {
			return manifoldCount{}, err
		}
		return c[0], nil
	})
}
