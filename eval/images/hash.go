package images

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Hash identifies the content of what lies at a path, in hexadecimal: of a file
// the sha256 of its bytes, of a folder the sha256 of one line for each image
// file, in the order in which the set is read: the file's own sha256, two
// spaces and its path below the folder (the output of sha256sum). What is not
// read as an image does not count; an image that cannot be opened, which is
// broken, has zeros.
func Hash(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() { // before Open, which would wait on a pipe
			return "", fmt.Errorf("%s: is neither a file nor a folder", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		sum, err := hashOf(f)
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return sum, err
	}
	l, err := listFolder(path, false)
	if err != nil {
		return "", err
	}
	sums := make([]string, len(l.files))
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i, f := range l.files {
		group.Go(func() error {
			r, err := f.open()
			if err != nil {
				sums[i] = strings.Repeat("0", 2*sha256.Size)
				return nil
			}
			defer r.Close()
			if sums[i], err = hashOf(r); err != nil {
				err = fmt.Errorf("%s: %s: %w", path, f.name, err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	h := sha256.New()
	for i, f := range l.files {
		fmt.Fprintf(h, "%s  %s\n", sums[i], f.name)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, r, make([]byte, 1<<18)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
