package eval

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

// halfRow writes row, rounded to float16, to dst.
func halfRow(dst, row []float32) {
	for i, v := range row {
		bits := math.Float32bits(v)
		if magnitude := bits &^ (1 << 31); magnitude < 0x38800000 || magnitude >= 0x477fe000 {
			dst[i] = float32(roundHalf(float64(v))) // subnormal, zero, or near overflow
			continue
		}
		bits += 0xfff + bits>>13&1
		dst[i] = math.Float32frombits(bits &^ 0x1fff)
	}
}

// normHalf is |u|² of a row of float16 values as the "fp16" definition has it:
// each square rounded to float16, their exact sum rounded once.
func normHalf(row []float32) float64 {
	sum := 0.0
	for _, v := range row {
		sum += roundHalf(float64(v) * float64(v))
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
	var sum [packets][lanes]float64
	square := func(i int) float64 { return roundHalf(float64(row[i]) * float64(row[i])) }
	at := 0
	for ; at+packets*lanes <= len(row); at += packets * lanes {
		for p := range packets {
			for l := range lanes {
				sum[p][l] = roundHalf(sum[p][l] + square(at+p*lanes+l))
			}
		}
	}
	for p := 1; p < packets; p++ {
		for l := range lanes {
			sum[0][l] = roundHalf(sum[0][l] + sum[p][l])
		}
	}
	for ; at+lanes <= len(row); at += lanes {
		for l := range lanes {
			sum[0][l] = roundHalf(sum[0][l] + square(at+l))
		}
	}
	rest := 0.0
	for ; at < len(row); at++ {
		rest = roundHalf(rest + square(at))
	}
	var quad [4]float32
	for l := range quad {
		quad[l] = float32(sum[0][l]) + float32(sum[0][l+4])
	}
	return roundHalf(rest + roundHalf(float64((quad[0]+quad[2])+(quad[1]+quad[3]))))
}
