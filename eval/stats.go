package eval

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
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
	// panelRows bounds the rows of a product of which only a triangle is used.
	panelRows = 256
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
	products Products
	n        int       // rows merged into mean and square
	mean     []float64 // [D]
	square   []float64 // [D,D], upper triangle of S
	sum32    []float32 // [D], row after row in float32, as numpy.mean over axis 0
	batch    []float32 // rows that wait
	rows     []float32 // all rows, while there are no more than D
	seen     int
}

// NewAccumulator accumulates features of d dimensions; nil products are Gonum.
func NewAccumulator(d int, products Products) *Accumulator {
	if products == nil {
		products = Gonum{}
	}
	return &Accumulator{d: d, products: products, mean: make([]float64, d), sum32: make([]float32, d)}
}

// N is the number of rows added so far.
func (a *Accumulator) N() int { return a.seen }

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
	parallel(a.d, func(from, to int) {
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

// merge adds the waiting rows to mean and S.
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
	// Column j of the centred batch, and the shift of the means as one row more.
	columns := make([]float64, a.d*(nb+1))
	blocks := (a.d + lineFloats - 1) / lineFloats
	parallel(blocks, func(from, to int) {
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
	return addGram(a.products, a.square, columns, a.d, nb+1)
}

// addGram adds the upper triangle of x·xᵀ, x [d,k], to dst [d,d].
func addGram(p Products, dst, x []float64, d, k int) error {
	tmp := make([]float64, min(d, panelRows)*d)
	for from := 0; from < d; from += panelRows {
		rows, cols := min(panelRows, d-from), d-from
		if err := p.Mul64(tmp, x[from*k:(from+rows)*k], x[from*k:], rows, cols, k); err != nil {
			return err
		}
		parallel(rows, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				out := dst[(from+i)*d+from+i : (from+i+1)*d]
				for j, v := range tmp[i*cols+i : (i+1)*cols] {
					out[j] += v
				}
			}
		})
	}
	return nil
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
	parallel((a.d+lineFloats-1)/lineFloats, func(from, to int) {
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
func StatsOf(rows []float32, d int, products Products) (*Stats, error) {
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
	parallel(len(rows), func(from, to int) {
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
