package images

import "sagbench/eval/images/libjpeg"

func decodeJPEG(data []byte) (Image, error) {
	j, err := libjpeg.Decode(data)
	if err != nil {
		return Image{}, err
	}
	im := Image{Height: j.Height, Width: j.Width, Pixels: j.Pixels}
	switch j.Channels {
	case 1:
		im.Pixels = make([]uint8, 3*len(j.Pixels))
		repeat(im.Pixels, j.Pixels)
		im.Converted = []Conversion{Grey}
	case 4:
		im.Pixels = make([]uint8, len(j.Pixels)/4*3)
		for i := range len(j.Pixels) / 4 {
			rgbOfCMYK(im.Pixels[3*i:], j.Pixels[4*i:])
		}
		im.Converted = []Conversion{CMYK}
	}
	return im, nil
}

// rgbOfCMYK is Pillow's conversion of a pixel of a JPEG file, whose inks it takes
// for stored as their complements, as Adobe does: (255−C)·(255−K)/255 with C and
// K the ink.
func rgbOfCMYK(out, in []uint8) {
	black := int(in[3]) // 255 − K
	for c := range 3 {
		t := (255-int(in[c]))*black + 128
		out[c] = uint8(max(black-(t>>8+t)>>8, 0))
	}
}
