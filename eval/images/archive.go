package images

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

func openZip(ctx context.Context, path string, opt Options) (*Set, error) {
	z, err := zip.OpenReader(path)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are names here, nothing is extracted
		return nil, fmt.Errorf("%s: is no zip archive, or not all of one (%w)", path, err)
	}
	l, err := listZip(&z.Reader)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), z.Close())
	}
	s, err := l.newSet(ctx, path, opt, z)
	if err != nil {
		return nil, errors.Join(err, z.Close())
	}
	return s, nil
}

// listZip lists the images of an archive, stored or deflated.
func listZip(z *zip.Reader) (*listing, error) {
	l := &listing{}
	seen := map[string]bool{}
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		if seen[e.Name] {
			return nil, fmt.Errorf("two entries are named %q; which one is meant cannot be known", e.Name)
		}
		seen[e.Name] = true
		l.add(file{e.Name, int64(min(e.UncompressedSize64, maxFile+1)), func() (io.ReadCloser, error) { return openEntry(e) }})
	}
	l.sort()
	return l, nil
}

func openEntry(e *zip.File) (io.ReadCloser, error) {
	switch {
	case e.Flags&1 != 0:
		return nil, errors.New("is encrypted")
	case e.UncompressedSize64 > mostDeflated*e.CompressedSize64+mostFlat:
		return nil, fmt.Errorf("claims %d bytes in %d deflated ones, which no image needs", e.UncompressedSize64, e.CompressedSize64)
	}
	return e.Open()
}

// Files of images hardly shrink, but for bitmaps of one colour: what a small
// archive may unpack to is bounded.
const (
	mostDeflated = 64
	mostFlat     = 16 << 20
)
