// Package libjpeg decodes JPEG files to the pixels that libjpeg-turbo gives with
// its defaults, bit for bit: the accurate integer inverse DCT (JDCT_ISLOW),
// chroma interpolated between samples ("fancy upsampling") and colours in fixed
// point. The JPEG standard leaves these open, and decoders differ in them by
// several levels; Pillow, and so every public evaluator, has libjpeg-turbo's.
//
// In goes a whole file: baseline, extended or progressive, Huffman-coded, of 8
// bits, with one, three or four components. Damaged data is an error where
// libjpeg-turbo would warn and invent the rest of the image.
//
// Sources: ITU-T T.81; libjpeg-turbo src/jidctint.c, jdsample.c, jdcolor.c,
// jdapimin.c (default_decompress_parms).
package libjpeg

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
)

// An Image is a decoded file: one channel of grey, three of RGB, or four of
// CMYK as they lie in the file, [Height,Width,Channels].
type Image struct {
	Height, Width, Channels int
	Pixels                  []uint8
}

// Decode decodes a file. io.ErrUnexpectedEOF means that it is truncated.
func Decode(data []byte) (*Image, error) {
	d := &decoder{data: data}
	if err := d.decode(); err != nil {
		return nil, err
	}
	return d.image(), nil
}

// DecodeConfig reads a file as far as its frame header.
func DecodeConfig(r io.Reader) (image.Config, error) {
	s := segments{r: r}
	if err := s.start(); err != nil {
		return image.Config{}, err
	}
	for {
		marker, payload, err := s.next()
		switch {
		case err != nil:
			return image.Config{}, err
		case isFrame(marker):
			f, err := parseFrame(marker, payload)
			if err != nil {
				return image.Config{}, err
			}
			return image.Config{ColorModel: color.YCbCrModel, Width: f.width, Height: f.height}, nil
		case marker == markerSOS || marker == markerEOI:
			return image.Config{}, errors.New("no frame header before the image data")
		}
	}
}

// A decoder holds what the segments of a file have said so far.
type decoder struct {
	data      []byte
	frame     *frame
	quant     [4]*[64]uint16 // natural order
	dc, ac    [4]*huffman
	restart   int // MCUs between restart markers; 0 = none
	jfif      bool
	adobe     bool
	transform byte // of the Adobe segment
}

func (d *decoder) decode() error {
	s := segments{r: &byteReader{d.data, 0}}
	if err := s.start(); err != nil {
		return err
	}
	for scans := 0; ; {
		marker, payload, err := s.next()
		if errors.Is(err, io.ErrUnexpectedEOF) && d.whole() { // the end marker alone is missing
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case marker == markerEOI:
			return d.complete()
		case marker == markerSOS:
			if scans++; scans > maxScans {
				return fmt.Errorf("more than %d scans", maxScans)
			}
			at := s.r.(*byteReader)
			n, err := d.scan(payload, d.data[at.at:])
			if err != nil {
				return err
			}
			at.at += n
		default:
			if err := d.segment(marker, payload); err != nil {
				return err
			}
		}
	}
}

// maxScans bounds the work that a small file can ask for.
const maxScans = 200

// segment reads the segments that hold tables and parameters.
func (d *decoder) segment(marker byte, payload []byte) error {
	switch {
	case isFrame(marker):
		if d.frame != nil {
			return errors.New("two frames")
		}
		f, err := parseFrame(marker, payload)
		if err == nil {
			err = f.allocate(len(d.data))
		}
		d.frame = f
		return err
	case marker == markerDQT:
		return d.quantTables(payload)
	case marker == markerDHT:
		return d.huffmanTables(payload)
	case marker == markerDRI:
		if len(payload) != 2 {
			return errors.New("a restart interval of another length than 2 bytes")
		}
		d.restart = be16(payload)
	case marker == markerAPP0:
		d.jfif = d.jfif || len(payload) >= 14 && string(payload[:5]) == "JFIF\x00"
	case marker == markerAPP14:
		if len(payload) >= 12 && string(payload[:5]) == "Adobe" {
			d.adobe, d.transform = true, payload[11]
		}
	case marker == markerDAC:
		return errors.New("arithmetic coding is not supported")
	case marker == markerDNL:
		return errors.New("a height that follows the image is not supported")
	}
	return nil
}

// complete reports what is missing at the end of the file.
func (d *decoder) complete() error {
	if d.frame == nil {
		return errors.New("no image")
	}
	for i := range d.frame.components {
		c := &d.frame.components[i]
		if !c.seen {
			return fmt.Errorf("component %d of %d is missing", i+1, len(d.frame.components))
		}
		for k, bit := range c.precision[:d.frame.coefficients()] {
			if bit != 0 {
				return fmt.Errorf("the progressive scans are not all there: coefficient %d of component %d", k, i+1)
			}
		}
	}
	return nil
}

// whole reports whether a file without an end marker has all of its image; of a
// progressive one nobody can know.
func (d *decoder) whole() bool {
	return d.frame != nil && !d.frame.progressive && d.complete() == nil
}
