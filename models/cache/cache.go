// Package cache keeps files that cost time to make in the user's cache folder: a
// key goes in, the path of a file with the content that was kept comes out. A
// file's name holds the sha256 of its content, so that one that is damaged is
// seen when it is asked for, and made anew.
package cache

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Root is the program's folder in the user's cache folder.
func Root() (string, error) {
	folder, err := os.UserCacheDir()
	return filepath.Join(folder, "sagbench"), err
}

// A Store is one kind of kept files: a folder of Root. Those that were used longest
// ago are removed when it is full.
type Store struct {
	Name  string // of the folder
	Ext   string // of its files, with the dot
	Limit int64  // bytes that it may hold
	Holds string // what is in it, for people
}

// Graphs and Features are the kinds of kept files.
var (
	// Graphs are optimized graphs of small networks with their weights, some MB each.
	Graphs = Store{"graphs", ".onnx", 4 << 30, "optimized graphs of small networks"}
	// Features of 50,000 images take half a gigabyte.
	Features = Store{"features", ".npz", 16 << 30, "features of references and of other images"}

	stores = []Store{Graphs, Features}
)

var (
	// kept is the name of a file, without its extension: key and content.
	kept = regexp.MustCompile(`^[0-9a-f]{32}-[0-9a-f]{64}$`)
	// scratch is the name of a folder in which a file is being made. Who makes it
	// holds a lock on the folder, which ends with the process.
	scratch = regexp.MustCompile(`^new-\d+$`)
	// former are the names that version 0.1.0 gave: files that cannot be verified,
	// and those that it was writing when it was killed.
	former = regexp.MustCompile(`^([0-9a-f]{64}\.onnx|[0-9a-f]{32}\.npz|\.[0-9a-f]{32}\.npz\d+)$`)
)

func (s Store) folder() (string, error) {
	root, err := Root()
	return filepath.Join(root, s.Name), err
}

// prefix begins the names of all files with a key.
func prefix(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16]) + "-"
}

// Find is the path of the file that was kept under a key, "" if there is none. Its
// content was read and is what was kept. A file whose content is another is
// removed, and damaged says so.
func (s Store) Find(key []byte) (path string, damaged bool) {
	folder, err := s.folder()
	if err != nil {
		return "", false
	}
	found, _ := filepath.Glob(filepath.Join(folder, prefix(key)+"*"+s.Ext))
	for _, path := range found {
		name := strings.TrimSuffix(filepath.Base(path), s.Ext)
		if !kept.MatchString(name) {
			continue
		}
		_, want, _ := strings.Cut(name, "-")
		if sum, err := Sum(path); err != nil || sum != want {
			damaged = true
			os.Remove(path)
			continue
		}
		now := time.Now()
		os.Chtimes(path, now, now) // only the order of removal depends on it
		return path, damaged
	}
	return "", damaged
}

// Keep keeps the file that write writes at the path that it is given, under a key.
// It is on the disk, whole, before it has its name. What others left half written
// and what does not fit the limit is removed.
func (s Store) Keep(key []byte, write func(path string) error) error {
	folder, err := s.folder()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	lock, err := newScratch(folder)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(lock.Name())
	made := filepath.Join(lock.Name(), "file"+s.Ext)
	if err := write(made); err != nil {
		return err
	}
	if err := flush(made); err != nil {
		return err
	}
	sum, err := Sum(made)
	if err != nil {
		return err
	}
	if err := os.Rename(made, filepath.Join(folder, prefix(key)+sum+s.Ext)); err != nil {
		return err
	}
	_, _, err = s.sweep(folder, s.Limit)
	return errors.Join(flush(folder), err)
}

// newScratch is a new folder below another, open and locked.
func newScratch(folder string) (*os.File, error) {
	for {
		path, err := os.MkdirTemp(folder, "new-")
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process took it for a leftover before it was locked
		}
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, errors.Join(err, os.Remove(path))
		}
		if _, err := os.Stat(path); err == nil {
			return f, nil
		}
		f.Close()
	}
}

// flush waits until a file, or the names in a folder, are on the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Sum is the sha256 of a file's content, in hexadecimal.
func Sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sweep removes leftovers of processes that have ended, and the files that were used
// longest ago until the rest fits the limit; all of them where it is negative. What
// has another name than the program gives stays.
func (s Store) sweep(folder string, limit int64) (files int, bytes int64, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, 0, ignoreMissing(err)
	}
	var total int64
	var whole []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		path := filepath.Join(folder, e.Name())
		switch name, ours := strings.CutSuffix(e.Name(), s.Ext); {
		case e.IsDir() && scratch.MatchString(e.Name()):
			n, size := removeScratch(path)
			files, bytes = files+n, bytes+size
		case info.Mode().IsRegular() && ours && kept.MatchString(name):
			whole, total = append(whole, info), total+info.Size()
		case info.Mode().IsRegular() && former.MatchString(e.Name()) && (limit < 0 || time.Since(info.ModTime()) > time.Hour):
			// The hour is for a process of version 0.1.0 that is at work.
			if os.Remove(path) == nil {
				files, bytes = files+1, bytes+info.Size()
			}
		}
	}
	slices.SortFunc(whole, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, f := range whole {
		if total <= limit {
			break
		}
		if err := os.Remove(filepath.Join(folder, f.Name())); ignoreMissing(err) != nil {
			return files, bytes, err
		}
		files, bytes, total = files+1, bytes+f.Size(), total-f.Size()
	}
	return files, bytes, nil
}

// removeScratch removes a scratch folder whose process has ended.
func removeScratch(path string) (files int, bytes int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return 0, 0
	}
	files, bytes, _ = sizeOf(path)
	if os.RemoveAll(path) != nil {
		return 0, 0
	}
	return files, bytes
}

// A Part is one folder or file in Root.
type Part struct {
	Name  string
	Holds string // what it is; "" where the program does not know
	Files int
	Bytes int64
	Limit int64 // 0: none
}

// Parts are what lies in Root.
func Parts() (root string, parts []Part, err error) {
	if root, err = Root(); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(root)
	if ignoreMissing(err) != nil {
		return root, nil, err
	}
	for _, e := range entries {
		p := Part{Name: e.Name()}
		switch at := slices.IndexFunc(stores, func(s Store) bool { return s.Name == p.Name }); {
		case at >= 0:
			p.Holds, p.Limit = stores[at].Holds, stores[at].Limit
		case strings.HasPrefix(p.Name, "onnxruntime-"):
			p.Holds = "ONNX Runtime, from make onnxruntime"
		case strings.HasPrefix(p.Name, "peers-"):
			p.Holds = "other evaluators, from make bench-peers"
		}
		if p.Files, p.Bytes, err = sizeOf(filepath.Join(root, p.Name)); err != nil {
			return root, nil, err
		}
		parts = append(parts, p)
	}
	return root, parts, nil
}

// sizeOf counts the files at and below a path, which may be a link.
func sizeOf(path string) (files int, bytes int64, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return 0, 0, ignoreMissing(err)
	}
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err == nil {
			files, bytes = files+1, bytes+info.Size()
		}
		return ignoreMissing(err)
	})
	return files, bytes, err
}

// ignoreMissing is err, but for a file that another process has removed.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Clear removes everything that the program makes anew by itself, but for what
// another process is making at this moment. It tells how much that was.
func Clear() (files int, bytes int64, err error) {
	for _, s := range stores {
		folder, err := s.folder()
		if err != nil {
			return files, bytes, err
		}
		n, size, err := s.sweep(folder, -1)
		files, bytes = files+n, bytes+size
		if err != nil {
			return files, bytes, fmt.Errorf("cache: %s cannot be cleared: %w; do it as the owner of the folder, or name another cache folder with XDG_CACHE_HOME", folder, err)
		}
		os.Remove(folder) // where nothing is left in it
	}
	return files, bytes, nil
}
