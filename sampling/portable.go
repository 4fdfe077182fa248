package sampling

import "math"

// Package math may give another last bit on another machine (assembly, fused
// multiply-add), and a sample must not. The functions here use +, −, ×, ÷ and √
// alone, which IEEE 754 rounds alike everywhere, and round every product by a
// conversion, which the Go specification says prevents fusion. They are good
// to about 1e-12, far below the float32 in which their results end.

const logCells = 256 // of [1,2)

type logCell struct{ reciprocal, log float64 } // 1/c and ln c of the cell's centre c

const angleCells = 256 // of a full turn

type angleCell struct{ cos, sin float64 } // of the cell's centre

const expCells = 32 // of [1,2) on the logarithmic scale

var (
	logTable   = makeLogTable()
	angleTable = makeAngleTable()
	expTable   = makeExpTable() // 2^(j/32)
)

// makeLogTable sums ln c = 2 artanh((c−1)/(c+1)), |argument| < 1/3.
func makeLogTable() (table [logCells]logCell) {
	for j := range table {
		c := 1 + (float64(j)+0.5)/logCells
		z := (c - 1) / (c + 1)
		zz := float64(z * z)
		sum := 0.0
		for k := 39; k >= 1; k -= 2 {
			sum = float64(sum*zz) + 1/float64(k)
		}
		table[j] = logCell{1 / c, float64(2 * float64(z*sum))}
	}
	return table
}

// makeAngleTable sums the Taylor series of cosine and sine on (−π, π).
func makeAngleTable() (table [angleCells]angleCell) {
	for j := range table {
		a := float64((float64(j) + 0.5 - angleCells/2) * (2 * math.Pi / angleCells))
		aa := float64(a * a)
		cos, sin := 0.0, 0.0
		for k := 32; k >= 0; k -= 2 {
			cos = 1 - float64(cos*aa)/float64((k+1)*(k+2))
			sin = 1 - float64(sin*aa)/float64((k+2)*(k+3))
		}
		// the angle was moved by half a turn to keep the series short
		table[j] = angleCell{-cos, -float64(a * sin)}
	}
	return table
}

func makeExpTable() (table [expCells]float64) {
	root := 2.0
	for n := expCells; n > 1; n /= 2 {
		root = math.Sqrt(root)
	}
	table[0] = 1
	for j := 1; j < expCells; j++ {
		table[j] = float64(table[j-1] * root)
	}
	return table
}

// logUniform is ln((r + ½)/2³²), below 0.
func logUniform(r uint32) float64 {
	bits := math.Float64bits(float64(2*uint64(r)+1) / (1 << 33))
	exponent := float64(int(bits>>52) - 1023)
	cell := &logTable[bits>>44&(logCells-1)]
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52) // in [1,2)
	d := float64(m*cell.reciprocal) - 1                  // |d| < 1/512
	series := float64(d * (1 - float64(d*(0.5-float64(d*(1.0/3-float64(d*0.25)))))))
	return float64(exponent*math.Ln2) + cell.log + series
}

// turn is cosine and sine of r/2³² turns.
func turn(r uint32) (cos, sin float64) {
	cell := &angleTable[r>>24]
	d := float64(float64(int32(r&(1<<24-1))-1<<23) * (2 * math.Pi / (1 << 32))) // |d| ≤ π/256
	dd := float64(d * d)
	c := 1 - float64(dd*(0.5-float64(dd*(1.0/24))))
	s := float64(d * (1 - float64(dd*(1.0/6))))
	return float64(cell.cos*c) - float64(cell.sin*s), float64(cell.sin*c) + float64(cell.cos*s)
}

// exp32 is eˣ rounded to float32; below about −103.3 it is 0, above about 88.7
// infinite, and NaN of NaN.
func exp32(x float32) float32 {
	switch {
	case x != x:
		return x
	case x < -104:
		return 0
	case x > 89:
		return float32(math.Inf(1))
	}
	const offset = 1 << 20 // keeps the truncated number positive
	k := int(float64(float64(x)*(expCells/math.Ln2))+(offset+0.5)) - offset
	d := float64(x) - float64(float64(k)*(math.Ln2/expCells)) // |d| ≤ ln 2 / 64
	series := 1 + float64(d*(1+float64(d*(0.5+float64(d*(1.0/6+float64(d*(1.0/24))))))))
	power := math.Float64frombits(uint64(k>>5+1023) << 52)
	return float32(float64(series*expTable[k&(expCells-1)]) * power)
}
