package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"

	"sagbench/eval/images"
)

// FolderName matches the names that an experiment, and thus the folder of its
// results, may have.
var FolderName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// WriteFile writes a file, and makes its folder if need be. Whatever happens, a
// power cut included, the old content is there or all of the new.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return ExplainWrite(path, err)
	}
	err := renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o644))
	return ExplainWrite(path, err)
}

// leftover matches the temporary names of files that were being written.
var leftover = regexp.MustCompile(`^\..*\d$`)

// RemoveLeftovers removes what a killed process was writing in a folder. Only
// the holder of the folder's lock may call it.
func RemoveLeftovers(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if e.Type().IsRegular() && leftover.MatchString(e.Name()) {
			faults = append(faults, os.Remove(filepath.Join(folder, e.Name())))
		}
	}
	return errors.Join(faults...)
}

// ExplainWrite is err with the path that could not be written and, for a full
// disk and the like, what to do about it; nil where err is nil.
func ExplainWrite(path string, err error) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		hint = "the disk is full; free some space and run the same command again, it goes on where it stopped"
	case errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		hint = "a limit on the size of files is reached; raise it and run the same command again, it goes on where it stopped"
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		hint = "the folder cannot be written to; choose another with --results"
	default:
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return fmt.Errorf("%s cannot be written: %s; nothing half written is left (%w)", path, hint, err)
}

// Exists reports whether there is anything at a path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Hashes keeps the sha256 of files and folders by path, so that one command
// reads each of them once, and knows whether one changed since.
type Hashes map[string]hashed

type hashed struct {
	sum string
	identity
}

// Of is the sha256, in hexadecimal, of what lies at a path: of a file's content,
// or of a folder's images (images.Hash).
func (h Hashes) Of(path string) (string, error) {
	if known, ok := h[path]; ok {
		return known.sum, nil
	}
	before, err := identityOf(path)
	if err != nil {
		return "", err
	}
	sum, err := images.Hash(path)
	if err != nil {
		return "", err
	}
	if after, err := identityOf(path); err != nil || after != before {
		return "", errors.Join(err, fmt.Errorf("%s: changed while it was read; run the same command again when nobody writes to it", path))
	}
	h[path] = hashed{sum, before}
	return sum, nil
}

// Unchanged is an error where a file that was hashed is not the one that it was:
// what was computed since may be of another content than its results would say. It
// looks at size, time and inode and, where only the time of the inode is another,
// at the content again. A folder is looked at if folders is set, which takes a
// look at each of its files.
func (h Hashes) Unchanged(folders bool) error {
	var faults []error
	for _, path := range slices.Sorted(maps.Keys(h)) {
		was := h[path]
		if was.folder && !folders {
			continue
		}
		now, err := identityOf(path)
		if err == nil && now.inode != was.inode && now.content == was.content {
			var sum string
			if sum, err = images.Hash(path); err == nil && sum == was.sum {
				h[path] = hashed{sum, now}
				continue
			}
		}
		if err != nil || now != was.identity {
			faults = append(faults, errors.Join(fmt.Errorf("%s: changed since the command began, which read it then; what was computed with it since is not kept. Leave it as it is while a command uses it, and run the same command again", path), err))
		}
	}
	return errors.Join(faults...)
}

// An identity tells without reading a file whether it is the one that it was.
type identity struct {
	folder  bool
	content string // inode, size and time of the content; of a folder, a hash of those of its files
	inode   string // time of the inode, which a rename or a new mode changes as well
}

func identityOf(path string) (id identity, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return id, err
	}
	if !info.IsDir() {
		s := info.Sys().(*syscall.Stat_t)
		return identity{false, fmt.Sprint(s.Dev, s.Ino, s.Size, s.Mtim), fmt.Sprint(s.Ctim)}, nil
	}
	all := sha256.New()
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := os.Stat(name); err == nil { // a link that leads nowhere is no file
			s := info.Sys().(*syscall.Stat_t)
			fmt.Fprintln(all, name, s.Dev, s.Ino, s.Size, s.Mtim)
		}
		return nil
	})
	return identity{true, fmt.Sprintf("%x", all.Sum(nil)), ""}, err
}

// Files hashes files; paths and the result are by what the files are used for:
// reference, samples, the name of a network.
func (h Hashes) Files(paths map[string]string) (map[string]InputFile, error) {
	out := map[string]InputFile{}
	var faults []error
	for use, path := range paths {
		sum, err := h.Of(path)
		faults = append(faults, err)
		out[use] = InputFile{filepath.Base(path), sum}
	}
	return out, errors.Join(faults...)
}

// A Lock keeps other processes out of an experiment's folder. The kernel removes
// it when the process ends, however it ends.
type Lock struct{ f *os.File }

// LockFolder locks a folder, which is made if need be. If another process holds
// the lock, the error names that process.
func LockFolder(folder string) (*Lock, error) {
	path := filepath.Join(folder, ".lock")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, ExplainWrite(folder, err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, ExplainWrite(path, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(heldBy(folder, f, err), f.Close())
		}
		if !current(f, path) { // its holder removed it while we opened it
			f.Close()
			continue
		}
		l := &Lock{f}
		if err := l.sign(); err != nil {
			l.Release()
			return nil, ExplainWrite(path, err)
		}
		return l, nil
	}
}

// heldBy is the error about a lock that could not be taken; f, the file of the
// lock, names the process that holds it.
func heldBy(folder string, f *os.File, err error) error {
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s cannot be locked: %w; choose a folder on a local disk with --results", folder, err)
	}
	who := "another process"
	if pid, err := io.ReadAll(io.LimitReader(f, 32)); err == nil && len(pid) > 0 {
		who = "process " + strings.TrimSpace(string(pid))
	}
	return fmt.Errorf("%s is in use by %s; wait until it is done or stop it, or choose another folder with --results", folder, who)
}

// current reports whether f is still the file at path.
func current(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// sign writes our process id into the lock.
func (l *Lock) sign() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}

// Release unlocks the folder. The file is removed first, while nobody else can
// hold the lock.
func (l *Lock) Release() {
	os.Remove(l.f.Name())
	l.f.Close()
}
