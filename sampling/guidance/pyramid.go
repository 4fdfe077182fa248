package guidance

// A pyramid is an image as a sum of frequency bands, the highest first, each of
// half the height and width of the one before; the last is a small image.
// Source: kornia geometry.transform build_laplacian_pyramid, pyrdown and pyrup.
type pyramid []band

// A band is planes of H×W pixels, [C,H,W].
type band struct {
	planes        []float32
	height, width int
}

// newPyramid takes an image [C,H,W] apart into n bands; 2ⁿ⁻¹ divides H and W.
func newPyramid(image []float32, height, width, n int) pyramid {
	var p pyramid
	rest := band{append([]float32(nil), image...), height, width}
	for range n - 1 {
		smaller := rest.down()
		for j, v := range smaller.up().planes {
			rest.planes[j] -= v
		}
		p, rest = append(p, rest), smaller
	}
	return append(p, rest)
}

// image is the image whose bands p has; p is left undefined.
func (p pyramid) image() []float32 {
	rest := p[len(p)-1]
	for k := len(p) - 2; k >= 0; k-- {
		for j, v := range rest.up().planes {
			p[k].planes[j] += v
		}
		rest = p[k]
	}
	return rest.planes
}

// down is the blurred image at half the size: bilinear, so the mean of 2×2.
func (b band) down() band {
	fine := b.blurred()
	out := band{make([]float32, len(b.planes)/4), b.height / 2, b.width / 2}
	for i := range len(out.planes) / out.width {
		first := fine.planes[2*i*b.width:][:b.width]
		second := fine.planes[(2*i+1)*b.width:][:b.width]
		for x := range out.width {
			out.planes[i*out.width+x] = (first[2*x] + first[2*x+1] + second[2*x] + second[2*x+1]) / 4
		}
	}
	return out
}

// up is the image at twice the size, bilinear, blurred.
func (b band) up() band {
	out := band{make([]float32, 4*len(b.planes)), 2 * b.height, 2 * b.width}
	size := b.height * b.width
	for p := range len(b.planes) / size {
		from, to := b.planes[p*size:][:size], out.planes[4*p*size:][:4*size]
		for y := range out.height {
			y0, y1 := neighbours(y, b.height)
			near, far := from[y0*b.width:][:b.width], from[y1*b.width:][:b.width]
			for x := range out.width {
				x0, x1 := neighbours(x, b.width)
				to[y*out.width+x] = mix(mix(near[x0], near[x1]), mix(far[x0], far[x1]))
			}
		}
	}
	return out.blurred()
}

// neighbours are the pixel of n that covers half-size pixel i, and the one that
// is next nearest to it, which the edge repeats.
func neighbours(i, n int) (near, far int) {
	near = i / 2
	if i%2 == 0 {
		return near, max(near-1, 0)
	}
	return near, min(near+1, n-1)
}

// mix weighs the nearer of two pixels as bilinear enlargement by 2 does.
func mix(near, far float32) float32 { return float32(0.75*near) + float32(0.25*far) }

// binomial is the kernel of the pyramid's blur, over 16.
var binomial = [5]float32{1, 4, 6, 4, 1}

// blurred is the band under the binomial kernel, reflected at the edges.
func (b band) blurred() band {
	rows := make([]float32, len(b.planes))
	for i := 0; i < len(rows); i += b.width {
		for x := range b.width {
			for k, w := range binomial {
				rows[i+x] += float32(w / 16 * b.planes[i+reflect(x+k-2, b.width)])
			}
		}
	}
	out := make([]float32, len(b.planes))
	size := b.height * b.width
	for p := 0; p < len(out); p += size {
		for y := range b.height {
			for k, w := range binomial {
				from := rows[p+reflect(y+k-2, b.height)*b.width:][:b.width]
				for x, v := range from {
					out[p+y*b.width+x] += float32(w / 16 * v)
				}
			}
		}
	}
	return band{out, b.height, b.width}
}
