package neighbours

import "math"

// roundHalf rounds to the nearest float16, ties to even, from a value that is
// known to float64: once, where rounding by way of float32 would do so twice.
// Values of 65520 and more become ±Inf.
func roundHalf(x float64) float64 {
	const mantissa, minExponent = 10, -14
	abs := math.Abs(x)
	if abs >= 65520 {
		return math.Inf(int(math.Copysign(1, x)))
	}
	if x == 0 || x != x {
		return x
	}
	exponent := max(int(math.Float64bits(abs)>>52)-1023, minExponent)
	quantum := math.Float64frombits(uint64(exponent-mantissa+1023) << 52)
	return math.RoundToEven(x/quantum) * quantum
}

// roundHalf32 is roundHalf of a float32. It serves for sums and products of
// two float16 values as well: float32 has more than twice their digits, so
// that rounding twice changes nothing.
//
// Adding 3·2¹² times the power of two below x, at least that of the smallest
// normal float16, leaves ten bits of x after its first, and taking it away
// again leaves x rounded to them, without a branch on what x is.
func roundHalf32(x float32) float32 {
	const (
		exponents = 0x7f800000
		smallest  = 0x38800000 // bits of 2⁻¹⁴, the smallest normal float16
		largest   = 0x47800000 // bits of 2¹⁶, infinite in float16
	)
	power := min(max(math.Float32bits(x)&exponents, smallest), largest)
	digits := math.Float32frombits(power + 13<<23 + 1<<22)
	r := x + digits - digits
	if r > 65504 || r < -65504 {
		r *= math.MaxFloat32 // infinite
	}
	return r
}

// halfRow writes row, rounded to float16, to dst.
func halfRow(dst, row []float32) {
	for i, v := range row {
		dst[i] = roundHalf32(v)
	}
}

// normHalf is |u|² of a row of float16 values as the "fp16" definition has it:
// each square rounded to float16, their exact sum rounded once.
func normHalf(row []float32) float64 {
	sum := 0.0
	for _, v := range row {
		sum += float64(roundHalf32(v * v))
	}
	return roundHalf(sum)
}

// normHalfEigen is |u|² of a row of float16 values as tf.reduce_sum(tf.square(U), 1)
// computes it on the CPU: Eigen's inner-most reduction runs four packets of
// eight lanes, each lane a float16 that is rounded after every addition, adds
// the packets, and adds the lanes in float32. The evaluator's own radii and
// distances come out to the bit (cases out.adm.*), for up to 8192 features.
func normHalfEigen(row []float32) float64 {
	const lanes, packets = 8, 4
	var sum [packets * lanes]float32
	at := 0
	for ; at+len(sum) <= len(row); at += len(sum) {
		for l, v := range row[at : at+len(sum)] {
			sum[l] = roundHalf32(sum[l] + roundHalf32(v*v))
		}
	}
	first := sum[:lanes]
	for l, v := range sum[lanes:] {
		first[l%lanes] = roundHalf32(first[l%lanes] + v)
	}
	for ; at+lanes <= len(row); at += lanes {
		for l, v := range row[at : at+lanes] {
			first[l] = roundHalf32(first[l] + roundHalf32(v*v))
		}
	}
	rest := float32(0)
	for _, v := range row[at:] {
		rest = roundHalf32(rest + roundHalf32(v*v))
	}
	var quad [4]float32
	for l := range quad {
		quad[l] = first[l] + first[l+4]
	}
	return float64(roundHalf32(rest + roundHalf32((quad[0]+quad[2])+(quad[1]+quad[3]))))
}
