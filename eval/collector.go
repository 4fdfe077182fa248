package eval

import (
	"fmt"
)

// A Collector gathers the Features of images that arrive in batches, in file
// order, from one pass of the network. Pool features are kept, since precision
// and recall need them (8 kB an image); spatial features become statistics.
type Collector struct {
	features *Features
	spatial  *Accumulator
	width    int // spatial features of an image; 0 where none are gathered
}

// NewCollector gathers images of the given numbers of features; images is how
// many will come, if that is known, and saves copies. spatial 0 gathers no
// spatial features: for a reference whose statistics come from its file.
func NewCollector(source string, images, pool, spatial int, p Products) *Collector {
	c := &Collector{features: &Features{Source: source, D: pool, Pool: make([]float32, 0, images*pool), Products: p}, width: spatial}
	if spatial > 0 {
		c.spatial = NewAccumulator(spatial, p)
	}
	return c
}

// Add takes the features of the next images: pool [n,D] and spatial [n,S].
func (c *Collector) Add(pool, spatial []float32) error {
	f := c.features
	n := len(pool) / max(f.D, 1)
	if f.D < 1 || len(pool) != n*f.D || len(spatial) != n*c.width {
		return fmt.Errorf("eval: %s: %d pool and %d spatial values, expected rows of %d and %d", f.name(), len(pool), len(spatial), f.D, c.width)
	}
	err := checkFinite(pool, f.D, f.N)
	if err == nil && c.spatial != nil {
		err = c.spatial.Add(spatial)
	}
	if err != nil {
		return fmt.Errorf("eval: %s: %w", f.name(), err)
	}
	f.Pool = append(f.Pool, pool...)
	f.N += n
	return nil
}

// N is the number of images so far.
func (c *Collector) N() int { return c.features.N }

// Features are those of all images added. Add must not be called afterwards.
func (c *Collector) Features() (*Features, error) {
	f := c.features
	if c.spatial == nil || f.N < 2 {
		return f, nil
	}
	s, err := c.spatial.Stats()
	if err != nil {
		return nil, err
	}
	s.Source = f.Source
	f.Spatial = s
	return f, nil
}
