package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

func openFolder(ctx context.Context, path string, opt Options) (*Set, error) {
	l, err := listFolder(path)
	if err != nil {
		return nil, err
	}
	return l.newSet(ctx, path, opt, nil)
}

// listFolder lists a folder and those below it. Links are followed, but not
// back to a folder that they lie in.
func listFolder(root string) (*listing, error) {
	l := &listing{}
	if err := l.walk(root, "", nil); err != nil {
		return nil, err
	}
	l.sort()
	return l, nil
}

func (l *listing) walk(root, below string, above []os.FileInfo) error {
	folder := filepath.Join(root, filepath.FromSlash(below))
	self, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, self) }) {
		return fmt.Errorf("%s: is a link to a folder that it lies in; remove it", folder)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	above = append(slices.Clip(above), self)
	for _, e := range entries {
		name := e.Name()
		if below != "" {
			name = below + "/" + name
		}
		if isHidden(name) {
			continue
		}
		path := filepath.Join(root, filepath.FromSlash(name))
		info, err := os.Stat(path) // of what a link leads to
		switch {
		case err != nil && isImageFile(name):
			l.add(file{name: name, open: func() (io.ReadCloser, error) { return nil, err }}) // listed as broken
		case err != nil:
			return err
		case info.IsDir():
			if err := l.walk(root, name, above); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			l.add(file{name, info.Size(), func() (io.ReadCloser, error) { return os.Open(path) }})
		}
	}
	return nil
}
