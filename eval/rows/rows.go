// Package rows keeps the features of many images.
//
// In go float32 values, batch after batch; out comes one slice of all of them.
// Few stay in memory. More go to a file in the system's folder of temporary
// files, which has no name there any more and is gone with the process, and the
// slice is a view of that file: what a process holds of it is what it looked at
// since it last called Rest.
package rows

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// defaultLimit is how many bytes of a set of rows stay in memory: those of 50,000
// images of 2048 features and some more.
const defaultLimit = 450_000_000

// restAfter is how many bytes of a file may be looked at before the memory that
// holds them is given back.
const restAfter = 1 << 26

// Rows are float32 values that grow at their end. The zero value is empty. It is
// used by one goroutine at a time.
type Rows struct {
	Limit  int  // bytes that stay in memory; 0 = 450 MB
	many   bool // more than the limit are expected
	memory []float32
	file   *os.File // of all values, once there are too many; memory is empty then
	n      int      // values
	view   []float32
	seen   int // bytes since the last Rest
}

// Expect prepares for n values, so that they need not be moved as they grow.
func (r *Rows) Expect(n int) {
	if r.many = mappable && n > r.most()/size; r.n == 0 && !r.many {
		r.memory = make([]float32, 0, n)
	}
}

const size = 4 // bytes of a value

func (r *Rows) most() int {
	if r.Limit > 0 {
		return r.Limit
	}
	return defaultLimit
}

// Append adds values. An error says that they do not fit the folder of temporary
// files.
func (r *Rows) Append(values []float32) error {
	if err := r.forget(); err != nil {
		return err
	}
	if r.file == nil {
		if !mappable || !r.many && (len(r.memory)+len(values))*size <= r.most() {
			r.memory = append(r.memory, values...)
			r.n = len(r.memory)
			return nil
		}
		if err := r.create(); err != nil {
			return err
		}
	}
	return r.write(values)
}

// create moves the values from memory to a file.
func (r *Rows) create() error {
	f, err := os.CreateTemp("", "sagbench-features-")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return fmt.Errorf("the features do not fit in memory, and there is no file for them: %w; TMPDIR names another folder", err)
	}
	held := r.memory
	r.file, r.memory, r.n = f, nil, 0
	return r.write(held)
}

func (r *Rows) write(values []float32) error {
	if len(values) == 0 {
		return nil
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), len(values)*size)
	if _, err := r.file.WriteAt(raw, int64(r.n)*size); err != nil {
		return fmt.Errorf("%s: after %d MB of features: %w; TMPDIR names a folder with more room", os.TempDir(), r.n*size>>20, err)
	}
	r.n += len(values)
	return nil
}

// Len is the number of values.
func (r *Rows) Len() int { return r.n }

// Values are all values, nil where there are none. They are valid until the next
// Append or Close, and are not to be changed.
func (r *Rows) Values() ([]float32, error) {
	if r.file == nil {
		return r.memory, nil
	}
	if r.view == nil {
		raw, err := mapFile(r.file, r.n*size)
		if err != nil {
			return nil, fmt.Errorf("%s: the features of a temporary file cannot be read: %w", os.TempDir(), err)
		}
		r.view = unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), r.n)
	}
	return r.view, nil
}

// Touched tells that so many values were looked at, and gives memory back from time
// to time.
func (r *Rows) Touched(values int) {
	if r.view == nil {
		return
	}
	if r.seen += values * size; r.seen >= restAfter {
		r.Rest()
	}
}

// Rest gives back the memory that holds what was looked at. The values stay valid.
func (r *Rows) Rest() {
	r.seen = 0
	if r.view != nil {
		forgetPages(r.raw())
	}
}

func (r *Rows) raw() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&r.view[0])), len(r.view)*size)
}

func (r *Rows) forget() error {
	if r.view == nil {
		return nil
	}
	err := unmap(r.raw())
	r.view = nil
	return err
}

// Close frees the file. The values must not be used any more.
func (r *Rows) Close() error {
	err := r.forget()
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	*r = Rows{Limit: r.Limit}
	return err
}
