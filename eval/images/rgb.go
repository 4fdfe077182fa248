package images

import (
	"fmt"
	"image"
	"image/color"
)

// toRGB takes the colours of what the decoders of PNG, BMP and lossless WebP
// give and drops alpha. Colours are never premultiplied in these files: where
// the decoder's type is (image.RGBA), the image is opaque.
func toRGB(p image.Image) (Image, error) {
	b := p.Bounds()
	im := Image{Height: b.Dy(), Width: b.Dx(), Pixels: make([]uint8, b.Dy()*b.Dx()*3)}
	switch p := p.(type) {
	case *image.Gray:
		eachRow(im, func(y int, out []uint8) { repeat(out, p.Pix[y*p.Stride:]) })
	case *image.Gray16: // clipGrey
	case *image.RGBA:
		im.threeOf(p.Pix, p.Stride, 1)
	case *image.NRGBA:
		im.threeOf(p.Pix, p.Stride, 1)
	case *image.RGBA64:
		im.threeOf(p.Pix, p.Stride, 2)
	case *image.NRGBA64:
		im.threeOf(p.Pix, p.Stride, 2)
	case *image.Paletted:
		colors := make([]color.NRGBA, 256) // an index beyond the palette is black
		for i, c := range p.Palette {
			colors[i] = color.NRGBAModel.Convert(c).(color.NRGBA)
		}
		eachRow(im, func(y int, out []uint8) {
			for x, v := range p.Pix[y*p.Stride:][:im.Width] {
				out[3*x], out[3*x+1], out[3*x+2] = colors[v].R, colors[v].G, colors[v].B
			}
		})
	default:
		return Image{}, fmt.Errorf("pixels of an unexpected type %T", p)
	}
	return im, nil
}

func eachRow(im Image, row func(y int, out []uint8)) {
	for y := range im.Height {
		row(y, im.Pixels[y*im.Width*3:][:im.Width*3])
	}
}

// repeat makes three equal channels of one.
func repeat(out, grey []uint8) {
	for x := range len(out) / 3 {
		v := grey[x]
		out[3*x], out[3*x+1], out[3*x+2] = v, v, v
	}
}

// threeOf takes the first three of four channels of so many bytes each, of each
// channel the first byte, which is the high one. Rows begin stride bytes apart.
func (im Image) threeOf(in []uint8, stride, channel int) {
	eachRow(im, func(y int, out []uint8) {
		for x := range im.Width {
			p := in[y*stride+x*4*channel:]
			out[3*x], out[3*x+1], out[3*x+2] = p[0], p[channel], p[2*channel]
		}
	})
}

// clipGrey sets the pixels to min(v, 255) for grey v of 16 bits, as Pillow's
// conversion from I;16 does.
func clipGrey(p image.Image, pixels []uint8) {
	clip := func(in []uint8, size int) {
		for i := range len(pixels) / 3 {
			v := in[i*size+1]
			if in[i*size] > 0 {
				v = 255
			}
			pixels[3*i], pixels[3*i+1], pixels[3*i+2] = v, v, v
		}
	}
	switch p := p.(type) { // png.Decode leaves no gaps between rows
	case *image.Gray16:
		clip(p.Pix, 2)
	case *image.NRGBA64:
		clip(p.Pix, 8)
	}
}
