package eval

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"sagbench/eval/linalg"
)

// Stats are the mean and the covariance of a set of features of D dimensions.
type Stats struct {
	N      int       // images; 0 where a file of statistics does not say
	Mean   []float64 // [D]
	Mean32 []float32 // [D], the mean as NumPy computes it from float32 rows; nil where only Mean is known
	Cov    []float64 // [D,D] row-major, symmetric, divided by N−1 (numpy.cov)
	Rows   []float32 // [N,D], the features themselves, kept while N ≤ D; nil otherwise
	Source string    // file or folder, for messages
}

// D is the number of dimensions.
func (s *Stats) D() int { return len(s.Mean) }

// name is how messages call a set of statistics.
func (s *Stats) name() string {
	if s.Source == "" {
		return "one set"
	}
	return s.Source
}

// covariance is the covariance with a constant added to all variances.
func (s *Stats) covariance(offset float64) linalg.Covariance {
	c := linalg.Covariance{Name: s.name(), Matrix: s.Cov, Mean: s.Mean, Rows: s.Rows}
	if offset != 0 {
		c.Matrix, c.Rows = slices.Clone(s.Cov), nil
		for i := range s.D() {
			c.Matrix[i*s.D()+i] += offset
		}
	}
	return c
}

// trace is the trace of the covariance.
func (s *Stats) trace() float64 {
	sum, d := 0.0, s.D()
	for i := range d {
		sum += s.Cov[i*d+i]
	}
	return sum
}

const (
	// batchRows is how many rows the accumulator gathers before it multiplies
	// them. It is fixed, so that the result does not depend on the batches in
	// which the features arrive.
	batchRows = 1024
	// lineFloats are in a line of the cache: columns that are read together.
	lineFloats = 16
)

// An Accumulator computes Stats from features that arrive in batches, in one
// pass and in memory that does not grow with their number.
//
// Batches are centred by their own mean and merged (Chan, Golub and LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances",
// 1979), so that nothing cancels however far from zero the features lie:
//
//	S ← S + Σ(x−m_b)(x−m_b)ᵀ + n·n_b/(n+n_b)·(m_b−m)(m_b−m)ᵀ
type Accumulator struct {
	d        int
	products linalg.Products
	n        int       // rows merged into mean and square
	mean     []float64 // [D]
	square   []float64 // [D,D], upper triangle of S
	sum32    []float32 // [D], row after row in float32, as numpy.mean over axis 0
	batch    []float32 // rows that are not merged yet
	rows     []float32 // all rows, while there are no more than D
	seen     int
}

// NewAccumulator accumulates features of d dimensions; nil products are linalg.Gonum.
func NewAccumulator(d int, products linalg.Products) *Accumulator {
	if products == nil {
		products = linalg.Gonum{}
	}
	return &Accumulator{d: d, products: products, mean: make([]float64, d), sum32: make([]float32, d)}
}

// Add takes the next rows [n,D] in file order. A value that is not finite is a
// *NotFiniteError that names the image, counted from the first row ever added.
func (a *Accumulator) Add(rows []float32) error {
	if a.d == 0 || len(rows)%a.d != 0 {
		return fmt.Errorf("eval: %d values are no rows of %d features", len(rows), a.d)
	}
	if err := checkFinite(rows, a.d, a.seen); err != nil {
		return err
	}
	a.seen += len(rows) / a.d
	if a.seen <= a.d {
		a.rows = append(a.rows, rows...)
	} else {
		a.rows = nil
	}
	linalg.Parallel(a.d, func(from, to int) {
		for at := 0; at < len(rows); at += a.d {
			sum := a.sum32[from:to]
			for j, v := range rows[at+from : at+to] {
				sum[j] += v
			}
		}
	})
	for len(rows) > 0 {
		n := min(len(rows), batchRows*a.d-len(a.batch))
		a.batch = append(a.batch, rows[:n]...)
		rows = rows[n:]
		if len(a.batch) == batchRows*a.d {
			if err := a.merge(); err != nil {
				return err
			}
		}
	}
	return nil
}

// merge adds the rows of the batch to mean and S.
func (a *Accumulator) merge() error {
	nb := len(a.batch) / a.d
	if nb == 0 {
		return nil
	}
	if a.square == nil {
		a.square = make([]float64, a.d*a.d)
	}
	total := float64(a.n + nb)
	weight := math.Sqrt(float64(a.n) * float64(nb) / total)
	// Column j of the centred batch, and the shift of the means as one more row.
	columns := make([]float64, a.d*(nb+1))
	blocks := (a.d + lineFloats - 1) / lineFloats
	linalg.Parallel(blocks, func(from, to int) {
		for b := from; b < to; b++ {
			first, last := b*lineFloats, min((b+1)*lineFloats, a.d)
			var mean [lineFloats]float64
			for i := range nb {
				for j, v := range a.batch[i*a.d+first : i*a.d+last] {
					mean[j] += float64(v)
				}
			}
			for j := range mean {
				mean[j] /= float64(nb)
			}
			to := columns[first*(nb+1):]
			for i := range nb {
				for j, v := range a.batch[i*a.d+first : i*a.d+last] {
					to[j*(nb+1)+i] = float64(v) - mean[j]
				}
			}
			for j := first; j < last; j++ {
				delta := mean[j-first] - a.mean[j]
				columns[j*(nb+1)+nb] = weight * delta
				a.mean[j] += delta * float64(nb) / total
			}
		}
	})
	a.n += nb
	a.batch = a.batch[:0]
	return linalg.AddGram(a.products, a.square, columns, a.d, nb+1)
}

// Stats are the statistics of the rows so far; at least two are needed.
func (a *Accumulator) Stats() (*Stats, error) {
	if a.seen < 2 {
		return nil, fmt.Errorf("eval: %d images: a covariance needs at least 2", a.seen)
	}
	if err := a.merge(); err != nil {
		return nil, err
	}
	s := &Stats{N: a.n, Mean: append([]float64(nil), a.mean...), Mean32: make([]float32, a.d),
		Cov: make([]float64, a.d*a.d), Rows: append([]float32(nil), a.rows...)}
	if len(a.rows) == 0 {
		s.Rows = nil
	}
	for j, v := range a.sum32 {
		s.Mean32[j] = v / float32(a.n)
	}
	linalg.Parallel((a.d+lineFloats-1)/lineFloats, func(from, to int) {
		for b := from; b < to; b++ {
			first, last := b*lineFloats, min((b+1)*lineFloats, a.d)
			for j := range a.d { // the block's rows, of which square holds the upper part
				for i := first; i < last; i++ {
					s.Cov[i*a.d+j] = a.square[min(i, j)*a.d+max(i, j)] / float64(a.n-1)
				}
			}
		}
	})
	return s, nil
}

// StatsOf are the statistics of features [n,d] that lie in memory.
func StatsOf(rows []float32, d int, products linalg.Products) (*Stats, error) {
	a := NewAccumulator(d, products)
	if err := a.Add(rows); err != nil {
		return nil, err
	}
	return a.Stats()
}

// A NotFiniteError is a feature that is NaN or infinite.
type NotFiniteError struct {
	Image, Dim int
	Value      float32
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("eval: feature %d of image %d (counted from 0) is %v: the network or the image is damaged", e.Dim, e.Image, e.Value)
}

// checkFinite looks for the first value of rows [n,d] that is not finite;
// first is the index of the first image.
func checkFinite(rows []float32, d, first int) error {
	var found atomic.Bool
	linalg.Parallel(len(rows), func(from, to int) {
		sum := float32(0) // of zeros, or NaN
		for _, v := range rows[from:to] {
			sum += v - v
		}
		if sum != 0 {
			found.Store(true)
		}
	})
	if !found.Load() {
		return nil
	}
	i := slices.IndexFunc(rows, func(v float32) bool { return v-v != 0 })
	return &NotFiniteError{Image: first + i/d, Dim: i % d, Value: rows[i]}
}
