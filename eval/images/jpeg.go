package images

import (
	"bytes"
	"image"
	"image/jpeg"
)

func leastJPEG(_ []byte, pixels int) int { return pixels / 512 }

func decodeJPEG(data []byte) (Image, error) {
	p, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return Image{}, err
	}
	b := p.Bounds()
	rgba := image.NewRGBA(b)
	for y := range b.Dy() {
		for x := range b.Dx() {
			rgba.Set(x, y, p.At(x, y))
		}
	}
	return toRGB(rgba)
}
