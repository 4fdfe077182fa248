package libjpeg

// image makes pixels of the coefficients.
func (d *decoder) image() *Image {
	f := d.frame
	n := len(f.components)
	im := &Image{Height: f.height, Width: f.width, Channels: n, Pixels: make([]uint8, f.height*f.width*n)}
	planes, rows := make([]plane, n), make([][]uint8, n)
	for i := range f.components {
		planes[i] = f.components[i].samples()
		f.components[i].coefs = nil
		rows[i] = make([]uint8, f.width)
	}
	convert := d.conversion()
	sums := make([]int32, f.width)
	for y := range f.height {
		for i, p := range planes {
			c := f.components[i]
			p.upsample(rows[i], y, f.hMax/c.h, f.vMax/c.v, sums)
		}
		convert(im.Pixels[y*f.width*n:][:f.width*n], rows)
	}
	return im
}

// conversion is how the components become colours, by what the file says of
// itself (jdapimin.c default_decompress_parms).
func (d *decoder) conversion() func(out []uint8, rows [][]uint8) {
	c := d.frame.components
	switch len(c) {
	case 3:
		rgb := d.adobe && d.transform == 0
		if !d.adobe {
			rgb = c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B'
		}
		if d.jfif || !rgb {
			return fromYCC
		}
	case 4:
		if d.adobe && d.transform != 0 {
			return fromYCCK
		}
	}
	return interleave
}

func interleave(out []uint8, rows [][]uint8) {
	for i, row := range rows {
		for x, v := range row {
			out[x*len(rows)+i] = v
		}
	}
}

// The conversion from YCbCr in 16 fractional bits (jdcolor.c
// build_ycc_rgb_table). Both terms of green are shifted together.
const (
	half  = 1 << 15
	crToR = 91881  // 1.40200
	cbToB = 116130 // 1.77200
	crToG = 46802  // 0.71414
	cbToG = 22554  // 0.34414
)

func rgbOf(y, cb, cr uint8) (r, g, b uint8) {
	l, u, v := int32(y), int32(cb)-128, int32(cr)-128
	return clamp(l + (crToR*v+half)>>16), clamp(l + (half-cbToG*u-crToG*v)>>16), clamp(l + (cbToB*u+half)>>16)
}

func fromYCC(out []uint8, rows [][]uint8) {
	for x, y := range rows[0] {
		out[3*x], out[3*x+1], out[3*x+2] = rgbOf(y, rows[1][x], rows[2][x])
	}
}

// fromYCCK has the complements of red, green and blue for cyan, magenta and
// yellow.
func fromYCCK(out []uint8, rows [][]uint8) {
	for x, y := range rows[0] {
		r, g, b := rgbOf(y, rows[1][x], rows[2][x])
		out[4*x], out[4*x+1], out[4*x+2], out[4*x+3] = 255-r, 255-g, 255-b, rows[3][x]
	}
}
