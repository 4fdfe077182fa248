package work

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// An FS are the calls of a file system that workers make on what they share. Disk is
// the real one; tests have some that are slow, or that lie as NFS may.
type FS interface {
	// Names lists a folder; one that is not there is empty.
	Names(folder string) ([]string, error)
	// Look tells of a file what its server knows, not what was known here a while ago.
	Look(path string) (Info, error)
	// Read is the content of a small file.
	Read(path string) ([]byte, error)
	// Create makes a file, which must not be there, of what fill writes; durable: it is
	// on the disk before Create returns. Nothing is left where fill fails.
	Create(path string, durable bool, fill func(io.Writer) error) error
	// Rewrite overwrites the first bytes of a file that is there.
	Rewrite(path string, data []byte) error
	Link(from, to string) error
	Rename(from, to string) error
	Remove(path string) error
	MakeFolder(path string) error
}

// An Info is what workers ask about a file.
type Info struct {
	Time  time.Time // of the last change of the content, by the clock of the server
	Links int       // names of the file
}

// Disk is the file system of the operating system.
type Disk struct{}

var _ FS = Disk{}

// Names implements FS.
func (Disk) Names(folder string) ([]string, error) {
	d, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
		err = nil
	}
	return names, err
}

// Look implements FS. To open a file makes NFS ask the server.
func (Disk) Look(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	info := Info{Time: i.ModTime(), Links: 1}
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		info.Links = int(s.Nlink)
	}
	return info, nil
}

// Read implements FS.
func (Disk) Read(path string) ([]byte, error) { return os.ReadFile(path) }

// Create implements FS.
func (Disk) Create(path string, durable bool, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	if err = fill(w); err == nil {
		err = w.Flush()
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// Rewrite implements FS.
func (Disk) Rewrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// Link implements FS.
func (Disk) Link(from, to string) error { return os.Link(from, to) }

// Rename implements FS.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (Disk) Remove(path string) error { return os.Remove(path) }

// MakeFolder implements FS.
func (Disk) MakeFolder(path string) error { return os.MkdirAll(path, 0o755) }

// gone reports whether an error is that of a file which is not there.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// taken reports whether an error is that of a name which is there.
func taken(err error) bool { return errors.Is(err, fs.ErrExist) }
