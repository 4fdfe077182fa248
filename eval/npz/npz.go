// Package npz reads and writes NumPy's .npz and .npy files as streams.
//
// In go paths of files that NumPy, the ADM evaluator or pytorch-fid wrote; out
// come arrays whose rows are read in batches, so that a sample file of
// 50,000 images of 256×256 (9.8 GB) never lies in memory. The other way round
// rows go in and a file comes out that appears under its name only when it is
// whole. Nothing in a file is trusted: lengths are checked before memory is
// taken, checksums before the last row is handed out, and pickled objects are
// refused unread.
//
// Source of the format: numpy/lib/format.py (NEP 1) and the .ZIP application
// note; archives may be stored or deflated, with or without ZIP64.
package npz

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A File is an open .npz archive. Its arrays are independent streams.
type File struct {
	path    string
	f       *os.File
	names   []string
	entries map[string]*zip.File
}

// Open opens the .npz archive at path and reads its directory. Two entries of
// one name, encrypted entries and files that are no zip archive are errors.
func Open(path string) (*File, error) {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%s: is not a regular file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	file, err := open(path, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return file, nil
}

func open(path string, f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("npz: %s: is a folder, expected an .npz archive", path)
	}
	entries, names, err := directory(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %w", path, err)
	}
	return &File{path: path, f: f, names: names, entries: entries}, nil
}

// maxArrays bounds the arrays of an archive.
const maxArrays = 4096

// directory lists the arrays of an archive by their names without ".npy".
func directory(r io.ReaderAt, size int64) (map[string]*zip.File, []string, error) {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, nil, notZip(r, err)
	}
	if len(z.File) > maxArrays {
		return nil, nil, fmt.Errorf("holds %d entries, at most %d arrays are read: is it a .zip of images?", len(z.File), maxArrays)
	}
	entries := make(map[string]*zip.File, len(z.File))
	var names []string
	var faults []error
	for _, e := range z.File {
		name := strings.TrimSuffix(e.Name, ".npy")
		switch {
		case entries[name] != nil:
			faults = append(faults, fmt.Errorf("two entries are named %q; which one is meant cannot be known", e.Name))
		case e.Flags&1 != 0:
			faults = append(faults, fmt.Errorf("entry %q is encrypted", e.Name))
		default:
			names = append(names, name)
		}
		entries[name] = e
	}
	if n := len(faults); n > 3 {
		faults = append(faults[:3], fmt.Errorf("… and %d more of such entries", n-3))
	}
	return entries, names, errors.Join(faults...)
}

// notZip says what a file that is no archive is instead, where that is known.
func notZip(r io.ReaderAt, cause error) error {
	head := make([]byte, 6)
	n, _ := r.ReadAt(head, 0)
	switch head = head[:n]; {
	case bytes.Equal(head, []byte(magic)):
		return errors.New("is a single .npy array, expected an .npz archive (numpy.savez writes one)")
	case bytes.HasPrefix(head, []byte("PK")):
		return fmt.Errorf("begins like a zip archive but has no directory at its end: the file is truncated or was not finished; copy or write it again (%w)", cause)
	case n == 0:
		return errors.New("is empty, expected an .npz archive")
	}
	return fmt.Errorf("is not an .npz archive (%w)", cause)
}

// Names are the arrays of the archive in file order, without ".npy".
func (f *File) Names() []string { return slices.Clone(f.names) }

// first names the first arrays.
func (f *File) first() string {
	if len(f.names) > 8 {
		return strings.Join(f.names[:8], ", ") + fmt.Sprintf(" and %d more", len(f.names)-8)
	}
	return strings.Join(f.names, ", ")
}

// Has reports whether the archive holds an array of that name.
func (f *File) Has(name string) bool { return f.entries[name] != nil }

// Path is the path with which the file was opened.
func (f *File) Path() string { return f.path }

// Close closes the archive; arrays that are still open fail afterwards.
func (f *File) Close() error { return f.f.Close() }

// Array opens one array and reads its header. The caller closes it.
func (f *File) Array(name string) (*Array, error) {
	e := f.entries[name]
	if e == nil {
		return nil, fmt.Errorf("npz: %s: missing %s; the file holds %s", f.path, name, cmp.Or(f.first(), "nothing"))
	}
	label := fmt.Sprintf("%s: %s", f.path, name)
	r, err := e.Open()
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %w", label, err)
	}
	var stream io.ReadCloser = r
	if e.CRC32 == 0 { // archive/zip takes a checksum of zero for "unknown"
		stream = &zeroSum{ReadCloser: r}
	}
	if e.UncompressedSize64 > 1<<62 {
		return nil, errors.Join(fmt.Errorf("npz: %s: the directory claims %d bytes", label, e.UncompressedSize64), r.Close())
	}
	a, err := newArray(label, stream, int64(e.UncompressedSize64), int64(min(e.CompressedSize64, 1<<62)))
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	a.Name = name
	return a, nil
}

// OpenArray opens a bare .npy file.
func OpenArray(path string) (*Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("npz: %w", err), f.Close())
	}
	a, err := newArray(path, f, info.Size(), info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a.Name = strings.TrimSuffix(filepath.Base(path), ".npy")
	return a, nil
}
