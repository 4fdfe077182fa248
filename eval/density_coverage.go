package eval

import (
	"context"
	"math"

	"sagbench/eval/neighbours"
)

// Density and Coverage (Naeem et al., "Reliable Fidelity and Diversity Metrics
// for Generative Models", eq. 2 and 4; package prdc) look at reference balls
// alone, whose radius is the distance to the k-th neighbour:
//
//	density  = 1/(kM) Σⱼ Σᵢ [|rᵢ−gⱼ| < ρₖ(rᵢ)]
//	coverage = 1/N Σᵢ [∃j: |rᵢ−gⱼ| < ρₖ(rᵢ)]
//
// The comparison is strict, so that sets of identical images score 0; density
// may exceed 1. Distances are exact.
type Density struct {
	rowsOfPool
	K int `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
}

// Coverage is the share of reference balls that hold a generated image; see
// Density.
type Coverage struct {
	shareOfPool
	K int `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
}

// PRDCPrecision is Precision as prdc defines it: strict <, exact distances.
type PRDCPrecision struct {
	shareOfPool
	K int `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
}

// PRDCRecall is Recall as prdc defines it: strict <, exact distances.
type PRDCRecall struct {
	shareOfPool
	K int `yaml:"k" min:"1" max:"10000" doc:"neighbour whose distance is the radius"`
}

var (
	_ Resampler = (*Density)(nil)
	_ Resampler = (*Coverage)(nil)
	_ Resampler = (*PRDCPrecision)(nil)
	_ Resampler = (*PRDCRecall)(nil)
)

// prdc are the balls of package prdc: open, distances exact.
func prdc(k int) balls { return balls{neighbours.DistanceF32, k, true} }

// Validate implements the check after decoding.
func (m *Density) Validate() error { return prdc(m.K).validate() }

// Validate implements the check after decoding.
func (m *Coverage) Validate() error { return prdc(m.K).validate() }

// Validate implements the check after decoding.
func (m *PRDCPrecision) Validate() error { return prdc(m.K).validate() }

// Validate implements the check after decoding.
func (m *PRDCRecall) Validate() error { return prdc(m.K).validate() }

// Bounds implements Bounded.
func (*Density) Bounds() (low, high float64) { return 0, math.Inf(1) }

// MinImages implements Metric: an image and its neighbours.
func (m *Density) MinImages() int { return m.K + 1 }

// MinImages implements Metric: an image and its neighbours.
func (m *Coverage) MinImages() int { return m.K + 1 }

// MinImages implements Metric: an image and its neighbours.
func (m *PRDCPrecision) MinImages() int { return m.K + 1 }

// MinImages implements Metric: an image and its neighbours.
func (m *PRDCRecall) MinImages() int { return m.K + 1 }

// Column implements Metric.
func (*Density) Column() Column { return Column{"density", "Density", Higher, 3} }

// Column implements Metric.
func (*Coverage) Column() Column { return Column{"coverage", "Coverage", Higher, 3} }

// Column implements Metric.
func (*PRDCPrecision) Column() Column {
	return Column{"prdc_precision", "Precision (prdc)", Higher, 3}
}

// Column implements Metric.
func (*PRDCRecall) Column() Column { return Column{"prdc_recall", "Recall (prdc)", Higher, 3} }

// Score implements Metric.
func (m *Density) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(m.K).score(ctx, m.Column(), ref, gen, func(found *neighbours.Members) float64 {
		sum := 0
		for _, n := range found.Balls {
			sum += int(n)
		}
		return float64(sum) / (float64(m.K) * float64(gen.N))
	})
}

// Score implements Metric.
func (m *Coverage) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(m.K).score(ctx, m.Column(), ref, gen, func(found *neighbours.Members) float64 {
		return shareOtherThan(neighbours.None, found.Holds)
	})
}

// Score implements Metric.
func (m *PRDCPrecision) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(m.K).score(ctx, m.Column(), ref, gen, precision)
}

// Score implements Metric.
func (m *PRDCRecall) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(m.K).score(ctx, m.Column(), ref, gen, recall)
}

// Replicates implements Resampler; see Precision.
func (m *Density) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdc(m.K).replicates(ctx, ref, gen, d, func(found *neighbours.Members, d *Draws) []float64 {
		return meanReplicates(found.Balls, d, func(balls int32) float64 { return float64(balls) / float64(m.K) })
	})
}

// Replicates implements Resampler; see Precision.
func (m *Coverage) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdc(m.K).replicates(ctx, ref, gen, d, func(found *neighbours.Members, d *Draws) []float64 {
		return shareReplicates(found.Holds, d)
	})
}

// Replicates implements Resampler; see Precision.
func (m *PRDCPrecision) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdc(m.K).replicates(ctx, ref, gen, d, precisionReplicates)
}

// Replicates implements Resampler; see Recall.
func (m *PRDCRecall) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdc(m.K).replicates(ctx, ref, gen, d, recallReplicates)
}
