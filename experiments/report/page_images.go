package report

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/draw"

	"sagbench/experiments/human"
	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// What the images of a page may take.
const (
	pageImages = 8       // of each row, at most
	pageBytes  = 3 << 20 // of all of them; base64 makes 4 MB of it
	exactSide  = 96      // up to this side they are stored as they are, larger ones as JPEG
	storedSide = 256     // and reduced to this side
	shownSide  = 84      // that they have in their row
)

// strips are the first images of every row, as many of each as fit, or the reason
// why there are none.
func strips(ctx context.Context, rows []*store.Metrics) ([]page.Strip, string, error) {
	folders := make([]string, len(rows))
	for i, m := range rows {
		folders[i] = m.Folder
	}
	g := &Grid{}
	if err := g.read(ctx, folders); err != nil {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		return nil, "The images are not shown: " + oneLine(err.Error()) + ".", nil
	}
	for n := min(pageImages, g.Images); n > 0; n /= 2 {
		out, size, err := encodeStrips(g.rows, rows, n)
		if err != nil || size <= pageBytes {
			return out, "", err
		}
	}
	return nil, fmt.Sprintf("The images are not shown: one of each of the %s rows would make this file too large; `sagbench grid` draws them.", human.Count(len(rows))), nil
}

// encodeStrips stores n images of each row; size is what they take.
func encodeStrips(all []gridRow, rows []*store.Metrics, n int) (out []page.Strip, size int, err error) {
	for i, r := range all {
		s := page.Strip{Label: oneLine(rows[i].Title())}
		for _, pixels := range r.images[:n] {
			picture, err := storedImage(pixels, r.width, r.height)
			if err != nil {
				return nil, 0, err
			}
			size += len(picture.Data)
			s.Images = append(s.Images, picture)
		}
		if size > pageBytes {
			return nil, size, nil
		}
		out = append(out, s)
	}
	return out, size, nil
}

// storedImage encodes pixels [H,W,3].
func storedImage(pixels []uint8, width, height int) (page.Image, error) {
	full := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(full.Pix[4*i:], pixels[3*i:3*i+3])
		full.Pix[4*i+3] = 255
	}
	side := max(width, height)
	shown := page.Image{Width: max(1, width*shownSide/side), Height: max(1, height*shownSide/side)}
	var out bytes.Buffer
	var err error
	if side <= exactSide {
		shown.MIME = "image/png"
		e := png.Encoder{CompressionLevel: png.BestCompression}
		err = e.Encode(&out, full)
	} else {
		shown.MIME = "image/jpeg"
		var small image.Image = full
		if side > storedSide {
			reduced := image.NewNRGBA(image.Rect(0, 0, max(1, width*storedSide/side), max(1, height*storedSide/side)))
			draw.CatmullRom.Scale(reduced, reduced.Bounds(), full, full.Bounds(), draw.Src, nil)
			small = reduced
		}
		err = jpeg.Encode(&out, small, &jpeg.Options{Quality: 88})
	}
	shown.Data = out.Bytes()
	if err != nil {
		return shown, fmt.Errorf("an image of %d×%d pixels: %w", width, height, err)
	}
	return shown, nil
}
