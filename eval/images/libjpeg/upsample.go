package libjpeg

// A plane is the samples of one component.
type plane struct {
	pixels     []uint8
	stride     int
	rows, cols int // samples that the image needs; beyond lies padding
}

// samples are the component's, after the inverse DCT.
func (c *component) samples() plane {
	p := plane{stride: 8 * c.stride, rows: c.rows, cols: c.cols}
	p.pixels = make([]uint8, p.stride*8*c.blocksY)
	for y := range c.blocksY {
		for x := range c.blocksX {
			at := 64 * (y*c.stride + x)
			idct(c.coefs[at:at+64:at+64], c.quant, p.pixels[8*y*p.stride+8*x:], p.stride)
		}
	}
	return p
}

func (p plane) row(y int) []uint8 { return p.pixels[min(max(y, 0), p.rows-1)*p.stride:][:p.cols] }

// upsample fills out with row y of the image at full width. hScale and vScale
// are how many pixels a sample stands for (jdsample.c jinit_upsampler).
func (p plane) upsample(out []uint8, y, hScale, vScale int, sums []int32) {
	fancy := p.cols > 2
	switch {
	case hScale == 1 && vScale == 1:
		copy(out, p.row(y))
	case hScale == 2 && vScale == 1 && fancy:
		h2v1(out, p.row(y))
	case hScale == 1 && vScale == 2:
		near, far, bias := p.row(y/2), p.row(y/2-1+2*(y%2)), uint16(1+y%2)
		for x, v := range near[:len(out)] {
			out[x] = uint8((3*uint16(v) + uint16(far[x]) + bias) >> 2)
		}
	case hScale == 2 && vScale == 2 && fancy:
		near, far := p.row(y/2), p.row(y/2-1+2*(y%2))
		for x, v := range near {
			sums[x] = 3*int32(v) + int32(far[x])
		}
		h2v2(out, sums[:len(near)])
	default:
		row := p.row(y / vScale)
		for x := range out {
			out[x] = row[x/hScale]
		}
	}
}

// h2v1 interpolates along a row: 3/4 of the nearer sample and 1/4 of the other,
// rounded down and up in turns.
func h2v1(out, in []uint8) {
	put := func(x int, v uint16) {
		if x < len(out) {
			out[x] = uint8(v)
		}
	}
	last := len(in) - 1
	for i, v := range in {
		left, right := uint16(v), uint16(v)
		if i > 0 {
			left = (3*uint16(v) + uint16(in[i-1]) + 1) >> 2
		}
		if i < last {
			right = (3*uint16(v) + uint16(in[i+1]) + 2) >> 2
		}
		put(2*i, left)
		put(2*i+1, right)
	}
}

// h2v2 does so along sums of two rows, 3/4 and 1/4 of them times four.
func h2v2(out []uint8, in []int32) {
	put := func(x int, v int32) {
		if x < len(out) {
			out[x] = uint8(v >> 4)
		}
	}
	last := len(in) - 1
	for i, v := range in {
		left, right := 4*v+8, 4*v+7
		if i > 0 {
			left = 3*v + in[i-1] + 8
		}
		if i < last {
			right = 3*v + in[i+1] + 7
		}
		put(2*i, left)
		put(2*i+1, right)
	}
}
