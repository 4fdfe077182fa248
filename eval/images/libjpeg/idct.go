package libjpeg

// Constants of the inverse DCT: 13 fractional bits, and two more kept between
// the passes (jidctint.c).
const (
	constBits = 13
	passBits  = 2

	fix0298 = 2446
	fix0390 = 3196
	fix0541 = 4433
	fix0765 = 6270
	fix0899 = 7373
	fix1175 = 9633
	fix1501 = 12299
	fix1847 = 15137
	fix1961 = 16069
	fix2053 = 16819
	fix2562 = 20995
	fix3072 = 25172
)

// idct is the inverse DCT of a block with its coefficients multiplied by the
// quantization table, to samples at out with stride between rows: first along
// the columns, then along the rows.
func idct(coefs []int16, quant *[64]uint16, out []uint8, stride int) {
	var work [64]int32
	for x := range 8 {
		var in [8]int32
		rest := int16(0)
		for y := range 8 {
			c := coefs[8*y+x]
			in[y] = int32(c) * int32(quant[8*y+x])
			if y > 0 {
				rest |= c
			}
		}
		if rest == 0 {
			for y := range 8 {
				work[8*y+x] = in[0] << passBits
			}
			continue
		}
		for y, v := range idct8(in) {
			work[8*y+x] = descale(v, constBits-passBits)
		}
	}
	for y := range 8 {
		row := out[y*stride : y*stride+8 : y*stride+8]
		for x, v := range idct8([8]int32(work[8*y:])) {
			row[x] = clamp(descale(v, constBits+passBits+3) + 128)
		}
	}
}

func descale(v int32, n int) int32 { return (v + 1<<(n-1)) >> n }

func clamp(v int32) uint8 { return uint8(min(max(v, 0), 255)) }

// idct8 is one dimension of it, after Loeffler, Ligtenberg and Moschytz; the
// result has constBits more fractional bits than the input.
func idct8(in [8]int32) [8]int32 {
	// The even part.
	z := (in[2] + in[6]) * fix0541
	t2, t3 := z-in[6]*fix1847, z+in[2]*fix0765
	t0, t1 := (in[0]+in[4])<<constBits, (in[0]-in[4])<<constBits
	e0, e3, e1, e2 := t0+t3, t0-t3, t1+t2, t1-t2

	// The odd part.
	a, b, c, d := in[7], in[5], in[3], in[1]
	z5 := (a + c + b + d) * fix1175
	z1, z2 := -(a+d)*fix0899, -(b+c)*fix2562
	z3, z4 := -(a+c)*fix1961+z5, -(b+d)*fix0390+z5
	a = a*fix0298 + z1 + z3
	b = b*fix2053 + z2 + z4
	c = c*fix3072 + z2 + z3
	d = d*fix1501 + z1 + z4
	return [8]int32{e0 + d, e1 + c, e2 + b, e3 + a, e3 - a, e2 - b, e1 - c, e0 - d}
}
