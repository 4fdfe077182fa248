package npz

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// A Writer writes an .npz archive of stored arrays, ZIP64 where they need it.
// The file appears under its name when Commit returns, whole and flushed to
// the disk; until then it is a hidden temporary file in the same folder. Equal
// content gives equal bytes.
type Writer struct {
	path    string
	pending *renameio.PendingFile // nil where the archive goes to a writer
	zip     *zip.Writer
	names   []string
	current *ArrayWriter
	done    bool
}

// epoch is the oldest time a zip archive can name; NumPy writes it as well.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Create begins the archive that Commit will put at path.
func Create(path string) (*Writer, error) {
	pending, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	return &Writer{path: path, pending: pending, zip: zip.NewWriter(pending)}, nil
}

// NewWriter begins an archive that goes to w, which the caller flushes and closes
// after Commit; name is what messages call it.
func NewWriter(w io.Writer, name string) *Writer { return &Writer{path: name, zip: zip.NewWriter(w)} }

// An ArrayWriter takes the values of one array, in C order.
type ArrayWriter struct {
	name  string
	dtype Dtype
	left  int64 // values still to come
	w     io.Writer
	owner *Writer
	buf   []byte
}

// Array begins the next array; the one before must have all its values. Its
// name is "arr_0" for images [N,H,W,3] uint8 and "arr_1" for labels [N] int64
// in a file of samples (scripts/image_sample.py of guided-diffusion).
func (w *Writer) Array(name string, d Dtype, shape ...int) (*ArrayWriter, error) {
	if err := w.ready(); err != nil {
		return nil, err
	}
	if slices.Contains(w.names, name) {
		return nil, fmt.Errorf("npz: %s: array %s twice", w.path, name)
	}
	if !slices.Contains([]Dtype{Uint8, Int64, Float32, Float64}, d) {
		return nil, fmt.Errorf("npz: %s: %s: dtype %s is not written", w.path, name, d)
	}
	values, _, err := (&header{dtype: d, shape: shape}).count()
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %s: %w", w.path, name, err)
	}
	entry, err := w.zip.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store, Modified: epoch})
	if err == nil {
		_, err = entry.Write(encodeHeader(d, shape))
	}
	if err != nil {
		return nil, fmt.Errorf("npz: %s: %w", w.path, err)
	}
	w.names = append(w.names, name)
	w.current = &ArrayWriter{name: name, dtype: d, left: values, w: entry, owner: w}
	return w.current, nil
}

// ready reports whether the archive is open and no array is unfinished.
func (w *Writer) ready() error {
	if w.done {
		return fmt.Errorf("npz: %s: %w", w.path, os.ErrClosed)
	}
	if w.current != nil && w.current.left > 0 {
		return fmt.Errorf("npz: %s: %s: %d values are missing", w.path, w.current.name, w.current.left)
	}
	return nil
}

// WriteArray adds an array with all its values, in C order.
func WriteArray[T Number](w *Writer, name string, values []T, shape ...int) error {
	a, err := w.Array(name, dtypeOf[T](), shape...)
	if err != nil {
		return err
	}
	return WriteRows(a, values)
}

// WriteRows appends values to the array that was begun last. Their type must
// be the array's, and there must not be more than its shape holds.
func WriteRows[T Number](a *ArrayWriter, values []T) error {
	switch {
	case a.owner.done || a.owner.current != a:
		return fmt.Errorf("npz: %s: %s: the array is closed", a.owner.path, a.name)
	case dtypeOf[T]() != a.dtype:
		return fmt.Errorf("npz: %s: %s: %s given, the array is %s", a.owner.path, a.name, dtypeOf[T](), a.dtype)
	case int64(len(values)) > a.left:
		return fmt.Errorf("npz: %s: %s: %d values given, %d fit", a.owner.path, a.name, len(values), a.left)
	}
	const chunk = 1 << 16
	for len(values) > 0 {
		part := values[:min(chunk, len(values))]
		var err error
		if a.buf, err = binary.Append(a.buf[:0], binary.LittleEndian, part); err == nil {
			_, err = a.w.Write(a.buf)
		}
		if err != nil {
			return fmt.Errorf("npz: %s: %s: %w", a.owner.path, a.name, err)
		}
		a.left -= int64(len(part))
		values = values[len(part):]
	}
	return nil
}

// Commit finishes the archive, flushes it to the disk and puts it in place.
// On an error nothing is put in place and an older file stays as it was.
func (w *Writer) Commit() error {
	err := w.ready()
	if w.done {
		return err
	}
	if err == nil {
		err = w.zip.Close()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("npz: %s: %w", w.path, err), w.Abort())
	}
	w.done = true
	if w.pending == nil {
		return nil
	}
	if err := w.pending.CloseAtomicallyReplace(); err != nil {
		return errors.Join(fmt.Errorf("npz: %s: %w", w.path, err), w.pending.Cleanup())
	}
	return syncFolder(filepath.Dir(w.path))
}

// Abort removes what was written. After Commit it does nothing, so that it
// can be deferred.
func (w *Writer) Abort() error {
	if w.done || w.pending == nil {
		w.done = true
		return nil
	}
	w.done = true
	return w.pending.Cleanup()
}

// syncFolder makes a rename last through a loss of power.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("npz: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("npz: %s: %w", dir, err)
	}
	return nil
}
