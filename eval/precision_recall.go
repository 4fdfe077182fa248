package eval

import (
	"cmp"
	"context"
	"fmt"

	"sagbench/eval/neighbours"
)

// Precision is the share of generated images that lie in the manifold of the
// reference: within the ball around some reference image whose radius is the
// distance to its k-th neighbour among the reference images (Kynkäänniemi et
// al., "Improved Precision and Recall Metric", eq. 1 and 2):
//
//	precision = 1/M Σⱼ [∃i: |rᵢ−gⱼ|² ≤ ρₖ(rᵢ)²]
//
// evaluator.py: k = 3, squared distances in float16, see neighbours.Distance.
type Precision struct {
	shareOfPool
	K        int                 `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
	Distance neighbours.Distance `yaml:"distance" doc:"adm (evaluator.py on TensorFlow's CPU kernels), fp16 (the same, each sum exact) or f32 (exact)"`
}

// Recall is the share of reference images that lie in the manifold of the
// generated ones; see Precision.
//
//	recall = 1/N Σᵢ [∃j: |rᵢ−gⱼ|² ≤ ρₖ(gⱼ)²]
type Recall struct {
	shareOfPool
	K        int                 `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
	Distance neighbours.Distance `yaml:"distance" doc:"adm (evaluator.py on TensorFlow's CPU kernels), fp16 (the same, each sum exact) or f32 (exact)"`
}

var (
	_ Resampler = (*Precision)(nil)
	_ Resampler = (*Recall)(nil)
)

func (m *Precision) balls() balls { return balls{m.Distance, m.K, false} }
func (m *Recall) balls() balls    { return balls{m.Distance, m.K, false} }

// Validate implements the check after decoding.
func (m *Precision) Validate() error { return m.balls().validate() }

// Validate implements the check after decoding.
func (m *Recall) Validate() error { return m.balls().validate() }

// MinImages implements Metric: an image and its neighbours.
func (m *Precision) MinImages() int { return m.K + 1 }

// MinImages implements Metric: an image and its neighbours.
func (m *Recall) MinImages() int { return m.K + 1 }

// Column implements Metric.
func (*Precision) Column() Column { return Column{"precision", "Precision", Higher, 2} }

// Column implements Metric.
func (*Recall) Column() Column { return Column{"recall", "Recall", Higher, 2} }

// Score implements Metric.
func (m *Precision) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return m.balls().score(ctx, m.Column(), ref, gen, precision)
}

// Score implements Metric.
func (m *Recall) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return m.balls().score(ctx, m.Column(), ref, gen, recall)
}

// Replicates implements Resampler: the reference balls stay, images are drawn.
func (m *Precision) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return m.balls().replicates(ctx, ref, gen, d, precisionReplicates)
}

// Replicates implements Resampler: images are drawn with their balls, whose
// radii stay.
func (m *Recall) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return m.balls().replicates(ctx, ref, gen, d, recallReplicates)
}

func precision(m *neighbours.Members) float64 { return shareOtherThan(0, m.Balls) }
func recall(m *neighbours.Members) float64    { return shareOtherThan(neighbours.None, m.HeldBy) }

// shareOtherThan is the share of values other than the one that says "in no ball".
func shareOtherThan(outside int32, values []int32) float64 {
	n := 0
	for _, v := range values {
		if v != outside {
			n++
		}
	}
	return float64(n) / float64(len(values))
}

func precisionReplicates(m *neighbours.Members, d *Draws) []float64 {
	return meanReplicates(m.Balls, d, func(balls int32) float64 { return float64(min(balls, 1)) })
}

func recallReplicates(m *neighbours.Members, d *Draws) []float64 {
	return shareReplicates(m.HeldBy, d)
}

// balls are those around the images of a set that reach to the k-th neighbour
// of the image in its set; strict leaves out what lies on the surface.
type balls struct {
	distance neighbours.Distance
	k        int
	strict   bool
}

func (b balls) validate() error {
	if b.k < 1 {
		return fmt.Errorf("k is %d, expected at least 1", b.k)
	}
	return b.distance.Validate()
}

// members says which images of each set lie in balls of the other; it is
// computed once for the two sets.
func (b balls) members(ctx context.Context, ref, gen *Features) (*neighbours.Members, error) {
	if err := cmp.Or(requirePools(ref, gen), b.validate()); err != nil {
		return nil, err
	}
	type key struct {
		ref *Features
		balls
	}
	return remember(gen, key{ref, b}, func() (*neighbours.Members, error) {
		s := neighbours.NewScan(ctx, b.distance, products(gen, ref), ref.Pool, ref.D)
		s.Touched = func(values int) {
			ref.Touched(values)
			gen.Touched(values)
		}
		r, err := b.radii(s, ref)
		if err != nil {
			return nil, err
		}
		g, err := b.radii(s, gen)
		if err != nil {
			return nil, err
		}
		return s.Members(ref.Pool, gen.Pool, r, g, b.strict)
	})
}

// radii are those of the balls around the images of a set, computed once.
func (b balls) radii(s *neighbours.Scan, f *Features) ([]float64, error) {
	b.strict = false // radii do not depend on it
	return remember(f, b, func() ([]float64, error) {
		r, err := s.Radii(f.Pool, b.k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name(), err)
		}
		return r, nil
	})
}

// score is a share of images in balls. Balls shrink as a set grows, so that
// shares compare only at equal numbers; published ones have 10,000 reference
// images (those of ImageNet 512² only 1,000).
func (b balls) score(ctx context.Context, c Column, ref, gen *Features, share func(*neighbours.Members) float64) ([]Score, error) {
	found, err := b.members(ctx, ref, gen)
	if err != nil {
		return nil, err
	}
	const usual = 10000
	distances, inside := string(b.distance), ""
	if b.strict {
		distances, inside = "exact", ", strictly inside"
	}
	s := c.score(share(found), fmt.Sprintf("k = %d, %s distances, %d reference and %d generated images%s", b.k, distances, ref.N, gen.N, inside))
	if ref.N < usual {
		s.Warnings = append(s.Warnings, fmt.Sprintf(
			"%s: %d reference images: precision, recall, density and coverage compare with published ones at %d only", ref.name(), ref.N, usual))
	}
	return []Score{s}, nil
}

// replicates are the shares for the draws.
func (b balls) replicates(ctx context.Context, ref, gen *Features, d *Draws, values func(*neighbours.Members, *Draws) []float64) ([]float64, error) {
	found, err := b.members(ctx, ref, gen)
	if err != nil {
		return nil, err
	}
	return values(found, d), nil
}
