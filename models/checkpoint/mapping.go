package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// errClosed is what reading a tensor of a closed File yields.
var errClosed = errors.New("the checkpoint is closed")

// A mapping is a file mapped read-only into memory.
type mapping struct {
	path string
	data []byte
	file *os.File // nil where data is plain memory (fuzzing)

	mu     sync.RWMutex // held for reading while data is read, for writing by close
	closed bool

	hash    sync.Mutex // guards sum
	sum     string
	release func([]byte) error
}

// mapFile maps the regular, non-empty file at path.
func mapFile(path string) (m *mapping, err error) {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
	if err != nil {
		return nil, cause(err)
	}
	switch {
	case info.IsDir():
		return nil, errors.New("is a directory, not a checkpoint file; name one of the files in it")
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("is not a regular file (%s)", info.Mode().Type())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if info, err = file.Stat(); err != nil { // again: its size may have changed
		return nil, cause(err)
	}
	size := info.Size()
	switch {
	case size == 0:
		return nil, errors.New("is empty (0 bytes); download it again")
	case int64(int(size)) != size:
		return nil, fmt.Errorf("%d bytes do not fit this machine's address space", size)
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	return &mapping{path: path, data: data, file: file, release: unix.Munmap}, nil
}

func (m *mapping) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	data := m.data
	m.data = nil
	if m.file == nil {
		return nil
	}
	return errors.Join(m.release(data), m.file.Close())
}

// view is the bytes [off, off+size) of the map. The caller holds m.mu for
// reading.
func (m *mapping) view(off, size int64) ([]byte, error) {
	if m.closed {
		return nil, errClosed
	}
	n := int64(len(m.data))
	if off < 0 || size < 0 || off > n || size > n-off {
		return nil, fmt.Errorf("bytes [%d, %d+%d) lie outside the file of %d bytes", off, off, size, n)
	}
	return m.data[off : off+size : off+size], nil
}

func (m *mapping) sha256() (string, error) {
	m.hash.Lock()
	defer m.hash.Unlock()
	if m.sum != "" {
		return m.sum, nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return "", errClosed
	}
	// The file is read, not the map: two gigabytes of touched pages would
	// count as this process's memory.
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(m.file, 0, int64(len(m.data))))
	if err != nil {
		return "", cause(err)
	}
	if n != int64(len(m.data)) {
		return "", fmt.Errorf("the file shrank from %d to %d bytes while it was open", len(m.data), n)
	}
	m.sum = hex.EncodeToString(h.Sum(nil))
	return m.sum, nil
}

// cause takes the path off an *fs.PathError; our own errors name it already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// guard turns a panic into an error, also the fault that reading a mapped
// page raises when the disk fails or somebody shortens the file. Use:
//
//	defer guard(&err)()
func guard(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = fmt.Errorf("the content is broken: %s", shorten(fmt.Sprint(r)))
		}
	}
}

// shorten keeps an error that quotes the file's content readable.
func shorten(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return s[:most] + " …"
}
