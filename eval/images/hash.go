package images

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Hash identifies the content of what lies at a path, in hexadecimal: of a file
// the sha256 of its bytes, of a folder the sha256 of one line for each image
// file, in the order in which the set is read: the file's own sha256, two
// spaces and its path below the folder (the output of sha256sum). What is not
// read as an image does not count; an image that cannot be opened, which is
// broken, has zeros. The files that a list names, those of a pattern and the shards of a
// folder are lines of the same form; standard input is the tar that was read from it,
// unpacked. Set.Content is a hash that does not depend on names.
func Hash(path string) (string, error) {
	if path == Standard {
		f, closer, _, err := openUnpacked(context.Background(), path)
		if err != nil {
			return "", err
		}
		defer closer.Close()
		return hashOf(io.NewSectionReader(f, 0, 1<<62))
	}
	if list := listPath(path); list != "" {
		l, err := listFiles(context.Background(), list)
		if err != nil {
			return "", err
		}
		return hashFiles(path, l.files)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil && isPattern(path):
		shards, err := expand(path)
		if err != nil {
			return "", err
		}
		return hashFiles(path, shardFiles(shards, filepath.Base))
	case err != nil:
		return "", err
	case info.IsDir():
		l, err := listFolder(path, false)
		if err != nil {
			return "", err
		}
		if len(l.files) == 0 {
			l.files = shardFiles(l.shards, func(name string) string { return name })
			for i, shard := range l.shardPaths(path) {
				l.files[i].open = func() (io.ReadCloser, error) { return os.Open(shard) }
			}
		}
		return hashFiles(path, l.files)
	case !info.Mode().IsRegular(): // before Open, which would wait on a pipe
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

// shardFiles are files under the names that name gives their paths.
func shardFiles(paths []string, name func(string) string) []file {
	all := make([]file, len(paths))
	for i, path := range paths {
		all[i] = file{name: name(path), open: func() (io.ReadCloser, error) { return os.Open(path) }}
	}
	return all
}

// hashFiles is the sha256 of the lines of the files of a path.
func hashFiles(path string, files []file) (string, error) {
	sums := make([]string, len(files))
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i, f := range files {
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
	for i, f := range files {
		fmt.Fprintf(h, "%s  %s\n", sums[i], f.name)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	block := blocks.Get().(*[1 << 18]byte)
	defer blocks.Put(block)
	if _, err := io.CopyBuffer(h, r, block[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
