package eval

import (
	"context"
	"errors"
	"fmt"
)

// SpatialFID is sFID, the Fréchet distance of spatial features (Nash et al.,
// "Generating Images with Sparse Representations", §4.1; evaluator.py): the
// first 7 channels of Mixed_6d.branch1x1, 17·17·7 = 2023 features in the order
// (h·17+w)·7+c. See FID for the formula.
type SpatialFID struct {
	statisticsOfPool
	Mean   MeanType `yaml:"mean" doc:"float32 (ADM) or float64 (exact)"`
	Offset float64  `yaml:"offset" min:"0" max:"1" doc:"as FID's"`
}

var _ Resampler = (*SpatialFID)(nil)

// Validate implements the check after decoding.
func (m *SpatialFID) Validate() error { return (*FID)(m).Validate() }

// Column implements Metric.
func (*SpatialFID) Column() Column { return Column{"sfid", "sFID", Lower, 2} }

// Needs implements Metric.
func (*SpatialFID) Needs() Needs { return Needs{Parts{Spatial: true}, Parts{Spatial: true}} }

// Score implements Metric.
func (m *SpatialFID) Score(_ context.Context, ref, gen *Features) ([]Score, error) {
	if err := errors.Join(ref.requireSpatial(), gen.requireSpatial()); err != nil {
		return nil, err
	}
	return frechetScore(m.Column(), ref.Spatial, gen.Spatial, FID(*m), products(gen, ref))
}

// Replicates implements Resampler; see FID.
func (m *SpatialFID) Replicates(ctx context.Context, ref, gen *Features, d *Draws) ([]float64, error) {
	if err := errors.Join(ref.requireSpatial(), gen.requireOwn(gen.Spatial)); err != nil {
		return nil, err
	}
	if gen.SpatialRows == nil {
		return nil, fmt.Errorf("%s has no spatial features of single images: statistics are not enough", gen.name())
	}
	return frechetReplicates(ctx, ref.Spatial, gen.SpatialRows, d, FID(*m), products(gen, ref))
}

// requireSpatial reports that there are no spatial statistics.
func (f *Features) requireSpatial() error {
	if f.Spatial == nil {
		return fmt.Errorf("%s has no spatial statistics: a reference .npz of the ADM layout supplies them as mu_s and sigma_s, images as arr_0", f.name())
	}
	return nil
}
