package eval

import "fmt"

// Subset are the features of the images with these indices, in this order: of one class of
// a set, above all. Every part that has rows is taken over row by row; statistics are
// computed anew from the rows, as they are for a set of these images alone. It is an error
// where there are no features of single images.
func (f *Features) Subset(index []int) (*Features, error) {
	if err := f.requirePool(); err != nil {
		return nil, err
	}
	for _, i := range index {
		if i < 0 || i >= f.N {
			return nil, fmt.Errorf("%s: image %d of %d", f.name(), i, f.N)
		}
	}
	s := &Features{Source: f.Source, Network: f.Network, N: len(index), D: f.D, ClassWeight: f.ClassWeight, Products: f.Products, Height: f.Height, Width: f.Width}
	s.Pool = rowsAt(f.Pool, f.D, index)
	if f.Logits != nil {
		s.Logits = rowsAt(f.Logits, len(f.Logits)/f.N, index)
	}
	if f.Texts != nil {
		s.Texts = rowsAt(f.Texts, len(f.Texts)/f.N, index)
	}
	for name, values := range f.Outputs {
		if s.Outputs == nil {
			s.Outputs = map[string][]float32{}
		}
		s.Outputs[name] = rowsAt(values, len(values)/f.N, index)
	}
	if f.SpatialRows == nil || len(index) < 2 {
		return s, nil
	}
	d := len(f.SpatialRows) / f.N
	s.SpatialRows = rowsAt(f.SpatialRows, d, index)
	var err error
	if s.Spatial, err = StatsOf(s.SpatialRows, d, f.Products); err != nil {
		return nil, fmt.Errorf("%s: spatial features: %w", f.name(), err)
	}
	s.Spatial.Source = f.Source
	return s, nil
}

// rowsAt are some rows of values [N,width].
func rowsAt(values []float32, width int, index []int) []float32 {
	out := make([]float32, 0, len(index)*width)
	for _, i := range index {
		out = append(out, values[i*width:(i+1)*width]...)
	}
	return out
}
