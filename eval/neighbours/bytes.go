package neighbours

import (
	"math"
	"slices"

	"sagbench/eval/linalg"
)

// maxByteDims is how many dimensions a sum of products of bytes may have in int32.
const maxByteDims = 1 << 16

// byteRows are the rows of a block in 8 bits. With w the row less the centre
// and ŵ = scale·signed + middle,
//
//	u·v ≈ scaleᵢ·scaleⱼ·signedᵢ·signedⱼ + shiftᵢ + shiftⱼ
//
// and the measure, of w, bounds how far that is off.
type byteRows struct {
	unsigned []uint8   // [n,d] signed + 128, of signed in −127…127
	columns  []int8    // signed, each tile of rows transposed: [d,rows]
	scale    []float32 // [n]
	shift    []float32 // [n] w·centre + |centre|²/2 + scale·Σsigned·middle + d·middle²/2
	measure
}

// middleRows is how many rows tell where the middle is: more would not change it
// by much.
const middleRows = 1000

// middleOf is the middle between the smallest and the largest element of a row
// less the centre, averaged over the rows. Rectified features reach further above their
// mean than below it: counted from this middle, the steps of 8 bits are smaller.
func middleOf(rows, centre []float32) float32 {
	sum, n := 0.0, len(rows)/len(centre)
	for row := range slices.Chunk(rows, len(centre)) {
		low, high := math.Inf(1), math.Inf(-1)
		for j, v := range row {
			w := float64(v - centre[j])
			low, high = min(low, w), max(high, w)
		}
		sum += (low + high) / 2
	}
	return float32(sum / float64(n))
}

// quantise prepares the rows in 8 bits, in tiles of side rows. centre is nil
// where work is already less the centre.
func (b *block) quantise(centre []float32, middle float32, side int) {
	q := b.bytes
	if q == nil {
		q = &byteRows{}
	}
	*q = byteRows{unsigned: resized(q.unsigned, b.n*b.d), columns: resized(q.columns, b.n*b.d),
		scale: make([]float32, b.n), shift: make([]float32, b.n), measure: newMeasure(b.n)}
	q.unit = 0x1p-20 // a few roundings in float32
	if centre == nil {
		centre = make([]float32, b.d)
	}
	offset := math.Sqrt(dot(centre, centre))
	middles := math.Abs(float64(middle)) * math.Sqrt(float64(b.d)) // length of a row of it
	linalg.Parallel(b.n, func(from, to int) {
		w := make([]float32, b.d)
		for i := from; i < to; i++ {
			for j, v := range b.row(i) {
				w[j] = v - centre[j]
			}
			unsigned := q.unsigned[i*b.d : (i+1)*b.d]
			// A part in 2²⁰ more than computed is more than any rounding of it.
			q.norm[i] = math.Sqrt(dot(w, w)) * (1 + 0x1p-20)
			shift := (offset*offset+middles*middles)/2 + dot(w, centre)
			for j := range w {
				w[j] -= middle
			}
			scale, sum, square := quantiseRow(unsigned, w)
			q.err[i] = (math.Sqrt(square) + (q.norm[i]+middles)*0x1p-20) * (1 + 0x1p-20)
			q.span[i] = q.norm[i] + q.err[i] + offset + middles
			q.scale[i] = scale
			q.shift[i] = float32(shift + float64(scale)*float64(middle)*float64(sum))
			tile := i / side * side // its first row
			column, rows := q.columns[tile*b.d+i-tile:], min(side, b.n-tile)
			for j, x := range unsigned {
				column[j*rows] = int8(x ^ 0x80)
			}
		}
	})
	q.summarise()
	b.bytes = q
}

// quantiseRow rounds w to multiples of a 127th of its largest element, and
// returns that, the sum of the multiples and Σ(w−ŵ)².
func quantiseRow(unsigned []uint8, w []float32) (scale float32, sum int, square float64) {
	const magnitude = 1<<31 - 1
	bits := uint32(0) // ordered as the numbers are
	for _, v := range w {
		bits = max(bits, math.Float32bits(v)&magnitude)
	}
	scale = math.Float32frombits(bits) / 127
	inverse := 1 / scale
	if scale < 0x1p-120 { // so that neither is zero or infinite
		scale, inverse = 0, 0
	}
	const round = 3 << 22 // adding it leaves an integer in the last bits
	var s0, s1 float64
	unsigned = unsigned[:len(w)]
	for j, v := range w {
		r := v*inverse + round
		x := int8(math.Float32bits(r))
		unsigned[j] = uint8(x) ^ 0x80
		sum += int(x)
		e := float64(v - scale*(r-round))
		s0, s1 = s1, s0+e*e
	}
	return scale, sum, s0 + s1
}

// estimate turns the exact products of the bytes of row i of u with rows j… of
// v into products of the rows.
func (p pair) estimate(products []float32, sums []int32, i, j int) {
	u, v := p.u.bytes, p.v.bytes
	a, b, scale, shift := u.scale[i], u.shift[i], v.scale[j:][:len(sums)], v.shift[j:][:len(sums)]
	products = products[:len(sums)]
	for x, q := range sums {
		products[x] = float32(q)*(a*scale[x]) + (b + shift[x])
	}
}
