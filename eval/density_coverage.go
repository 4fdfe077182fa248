package eval

import (
	"context"
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
	K int `yaml:"k" doc:"neighbour whose distance is the radius"`
}

// Coverage is the share of reference balls that hold a generated image; see
// Density.
type Coverage struct {
	K int `yaml:"k" doc:"neighbour whose distance is the radius"`
}

// PRDCPrecision is Precision as prdc defines it: strict <, exact distances.
type PRDCPrecision struct {
	K int `yaml:"k" doc:"neighbour whose distance is the radius"`
}

// PRDCRecall is Recall as prdc defines it: strict <, exact distances.
type PRDCRecall struct {
	K int `yaml:"k" doc:"neighbour whose distance is the radius"`
}

var (
	_ Resampler = (*Density)(nil)
	_ Resampler = (*Coverage)(nil)
	_ Resampler = (*PRDCPrecision)(nil)
	_ Resampler = (*PRDCRecall)(nil)
)

// Validate implements the check after decoding.
func (m *Density) Validate() error { return validBalls(m.K, DistanceF32) }

// Validate implements the check after decoding.
func (m *Coverage) Validate() error { return validBalls(m.K, DistanceF32) }

// Validate implements the check after decoding.
func (m *PRDCPrecision) Validate() error { return validBalls(m.K, DistanceF32) }

// Validate implements the check after decoding.
func (m *PRDCRecall) Validate() error { return validBalls(m.K, DistanceF32) }

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
	return prdc(ctx, m.Column(), m.K, ref, gen, func(c manifoldCount) float64 {
		return float64(c.pairs) / (float64(m.K) * float64(gen.N))
	})
}

// Score implements Metric.
func (m *Coverage) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(ctx, m.Column(), m.K, ref, gen, func(c manifoldCount) float64 {
		return float64(c.refHolds) / float64(ref.N)
	})
}

// Score implements Metric.
func (m *PRDCPrecision) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(ctx, m.Column(), m.K, ref, gen, func(c manifoldCount) float64 {
		return float64(c.genIn) / float64(gen.N)
	})
}

// Score implements Metric.
func (m *PRDCRecall) Score(ctx context.Context, ref, gen *Features) ([]Score, error) {
	return prdc(ctx, m.Column(), m.K, ref, gen, func(c manifoldCount) float64 {
		return float64(c.refIn) / float64(ref.N)
	})
}

func prdc(ctx context.Context, c Column, k int, ref, gen *Features, share func(manifoldCount) float64) ([]Score, error) {
	found, err := compareManifolds(ctx, ref, gen, manifoldKey{DistanceF32, k, true})
	if err != nil {
		return nil, err
	}
	return ballsScore(c, share(found), ref, ballsNote(k, "exact", ref, gen)+", strictly inside"), nil
}

// Replicates implements Resampler; see Precision.
func (m *Density) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdcReplicates(ctx, m.K, ref, gen, func(found *members) []float64 {
		return found.means(d, func(pairs int32) float64 { return float64(pairs) / float64(m.K) })
	})
}

// Replicates implements Resampler; see Precision.
func (m *Coverage) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdcReplicates(ctx, m.K, ref, gen, func(found *members) []float64 { return found.holds.replicates(d) })
}

// Replicates implements Resampler; see Precision.
func (m *PRDCPrecision) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdcReplicates(ctx, m.K, ref, gen, func(found *members) []float64 { return found.means(d, inAny) })
}

// Replicates implements Resampler; see Recall.
func (m *PRDCRecall) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	return prdcReplicates(ctx, m.K, ref, gen, func(found *members) []float64 { return found.in.replicates(d) })
}

func prdcReplicates(ctx context.Context, k int, ref, gen *Features, values func(*members) []float64) ([]float64, error) {
	found, err := manifoldMembers(ctx, ref, gen, manifoldKey{DistanceF32, k, true})
	if err != nil {
		return nil, err
	}
	return values(found), nil
}
