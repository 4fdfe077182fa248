package images

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"

	"golang.org/x/image/webp"
)

// animatedWebP is the bit of the flags in the chunk VP8X that says so.
const animatedWebP = 0x02

func decodeWebP(data []byte) (Image, error) {
	if len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&animatedWebP != 0 {
		return decodeAnimatedWebP(data)
	}
	if !wholeWebP(data) {
		return Image{}, io.ErrUnexpectedEOF
	}
	if err := checkCanvas(data); err != nil {
		return Image{}, err
	}
	p, err := webp.Decode(bytes.NewReader(data))
	if err != nil {
		return Image{}, err
	}
	switch p := p.(type) {
	case *image.YCbCr:
		return rgbOfVP8(p), nil
	case *image.NYCbCrA:
		im := rgbOfVP8(&p.YCbCr)
		im.Converted = []Conversion{Alpha}
		return im, nil
	}
	im, err := toRGB(p)
	if losslessAlpha(data) {
		im.Converted = []Conversion{Alpha}
	}
	return im, err
}

// checkCanvas is an error where the image has another size than the canvas that the header
// tells, which is the one that was checked.
func checkCanvas(data []byte) error {
	canvas, err := webp.DecodeConfig(bytes.NewReader(data))
	if err != nil || string(data[12:16]) != "VP8X" {
		return err
	}
	bare, err := stillWebP(data[12:], 0, 0, false)
	if err != nil {
		return err
	}
	image, err := webp.DecodeConfig(bytes.NewReader(bare))
	if err == nil && (image.Width != canvas.Width || image.Height != canvas.Height) {
		err = fmt.Errorf("its image has %d×%d pixels, its canvas %d×%d", image.Width, image.Height, canvas.Width, canvas.Height)
	}
	return err
}

// decodeAnimatedWebP decodes the first frame as libwebp's WebPAnimDecoder does: the canvas
// around it is black.
func decodeAnimatedWebP(data []byte) (Image, error) {
	if len(data) < 30 {
		return Image{}, io.ErrUnexpectedEOF
	}
	triple := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
	im := Image{Width: 1 + triple(data[24:]), Height: 1 + triple(data[27:])}
	frame, frames, err := firstFrame(data)
	if err != nil {
		return Image{}, err
	}
	left, top, width, height := 2*triple(frame), 2*triple(frame[3:]), 1+triple(frame[6:]), 1+triple(frame[9:])
	if left+width > im.Width || top+height > im.Height {
		return Image{}, fmt.Errorf("its first frame, %d×%d at (%d,%d), does not lie in its %d×%d pixels", width, height, left, top, im.Width, im.Height)
	}
	still, err := stillWebP(frame[16:], width, height, true)
	if err != nil {
		return Image{}, err
	}
	one, err := decodeWebP(still)
	if err != nil {
		return Image{}, err
	}
	im.Converted = one.Converted
	if frames > 1 {
		im.Converted = append(im.Converted, Animated)
	}
	if one.Width == im.Width && one.Height == im.Height {
		im.Pixels = one.Pixels
		return im, nil
	}
	im.Pixels = make([]uint8, im.Height*im.Width*3)
	for y := range height {
		copy(im.Pixels[3*((top+y)*im.Width+left):], one.Pixels[3*y*width:][:3*width])
	}
	return im, nil
}

// firstFrame is the content of the first chunk ANMF, at least 16 bytes, and how many there
// are.
func firstFrame(data []byte) (frame []byte, frames int, err error) {
	for at := 12; at+8 <= len(data); {
		name, size := string(data[at:at+4]), int64(binary.LittleEndian.Uint32(data[at+4:]))
		if name == "ANMF" {
			if frames++; frames == 1 {
				if size > int64(len(data)-at-8) || size < 16 {
					return nil, 0, io.ErrUnexpectedEOF
				}
				frame = data[at+8:][:size]
			}
		}
		if size > int64(len(data)-at-8) {
			break
		}
		at += 8 + int(size+size%2)
	}
	if frame == nil {
		return nil, 0, errors.New("there is no frame in it")
	}
	return frame, frames, nil
}

// stillWebP is a file of the image that lies in chunks, with the header of its canvas or
// bare.
func stillWebP(chunks []byte, width, height int, canvas bool) ([]byte, error) {
	var alpha, image []byte
	for len(chunks) >= 8 && image == nil {
		name, size := string(chunks[:4]), int64(binary.LittleEndian.Uint32(chunks[4:]))
		if size > int64(len(chunks)-8) {
			return nil, io.ErrUnexpectedEOF
		}
		whole := chunks[:8+size]
		chunks = chunks[min(len(chunks), int(8+size+size%2)):]
		if size%2 == 1 {
			whole = append(bytes.Clone(whole), 0)
		}
		switch name {
		case "ALPH":
			alpha = whole
		case "VP8 ", "VP8L":
			image = whole
		}
	}
	if image == nil {
		return nil, errors.New("there is no image in it")
	}
	body := []byte("WEBP")
	if canvas {
		flags := uint32(0)
		if alpha != nil && string(image[:4]) == "VP8 " {
			flags = 0x10
		} else {
			alpha = nil
		}
		head := binary.LittleEndian.AppendUint32([]byte("VP8X"), 10)
		head = binary.LittleEndian.AppendUint32(head, flags)
		head = append(head, byte(width-1), byte((width-1)>>8), byte((width-1)>>16), byte(height-1), byte((height-1)>>8), byte((height-1)>>16))
		body = append(append(body, head...), alpha...)
	}
	body = append(body, image...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...), nil
}

// wholeWebP reports whether the chunks up to the image's are as long as they say:
// the decoder takes memory on their word.
func wholeWebP(data []byte) bool {
	for at := 12; at+8 <= len(data); {
		name, size := string(data[at:at+4]), int64(binary.LittleEndian.Uint32(data[at+4:]))
		if size > int64(len(data)-at-8) {
			return false
		}
		if name == "VP8 " || name == "VP8L" {
			return true
		}
		at += 8 + int(size+size%2)
	}
	return false
}

// losslessAlpha reports whether the header of a lossless image says that its
// alpha is used.
func losslessAlpha(data []byte) bool {
	at := bytes.Index(data, []byte("VP8L"))
	return at >= 0 && len(data) > at+12 && data[at+12]&0x10 != 0
}

// rgbOfVP8 is libwebp's conversion of a lossy image: each chroma sample is
// weighted 9:3:3:1 between its four neighbours, and colours are of BT.601 in
// fixed point (src/dsp/upsampling.c, yuv.h). Go's own conversion takes the
// planes for those of a JPEG file, of another range.
func rgbOfVP8(p *image.YCbCr) Image {
	b := p.Bounds()
	im := Image{Height: b.Dy(), Width: b.Dx(), Pixels: make([]uint8, b.Dy()*b.Dx()*3)}
	rows := (im.Height + 1) / 2
	u, v := make([]uint8, im.Width), make([]uint8, im.Width)
	eachRow(im, func(y int, out []uint8) {
		near := y / 2
		far := near - 1 + 2*(y%2) // the row above for even rows, below for odd ones
		if far < 0 || far >= rows {
			far = near
		}
		fancyRow(u, p.Cb[near*p.CStride:], p.Cb[far*p.CStride:])
		fancyRow(v, p.Cr[near*p.CStride:], p.Cr[far*p.CStride:])
		luma := p.Y[y*p.YStride:]
		for x := range im.Width {
			out[3*x], out[3*x+1], out[3*x+2] = rgbOfYUV(int(luma[x]), int(u[x]), int(v[x]))
		}
	})
	return im
}

// fancyRow is a row of chroma at full width from the nearer and the farther row
// of samples.
func fancyRow(out, near, far []uint8) {
	samples := (len(out) + 1) / 2
	for x := range out {
		i := x / 2
		j := i - 1 + 2*(x%2) // the neighbour at the left for even columns, at the right for odd ones
		if j < 0 || j >= samples {
			out[x] = uint8((3*int(near[i]) + int(far[i]) + 2) >> 2)
			continue
		}
		a, b, c, d := int(near[i]), int(near[j]), int(far[i]), int(far[j])
		diagonal := (a + b + c + d + 8 + 2*(b+c)) >> 3
		out[x] = uint8((diagonal + a) >> 1)
	}
}

func rgbOfYUV(y, u, v int) (r, g, b uint8) {
	high := func(v, factor int) int { return v * factor >> 8 }
	clip := func(v int) uint8 { return uint8(min(max(v>>6, 0), 255)) }
	luma := high(y, 19077)
	return clip(luma + high(v, 26149) - 14234),
		clip(luma - high(u, 6419) - high(v, 13320) + 8708),
		clip(luma + high(u, 33050) - 17685)
}
