package store

import (
	"bytes"
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
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"sagbench/eval/images"
)

// FolderName matches the names that an experiment, and thus the folder of its
// results, may have.
var FolderName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// WriteFile writes a file, and makes its folder if need be. Whatever happens, a
// power cut included, the old content is there or all of the new. A file that has
// this content already is left alone, so that finished results can lie in a folder
// that cannot be written to.
func WriteFile(path string, data []byte) error {
	if same(path, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return ExplainWrite(path, err)
	}
	return ExplainWrite(path, renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path))))
}

// same reports whether a file has a content.
func same(path string, data []byte) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false
	}
	there, err := os.ReadFile(path)
	return err == nil && bytes.Equal(there, data)
}

// WriteOutput writes a file that the user has named. A device, a FIFO, and what
// standard output is connected to, are written to as they are. Of a symbolic link,
// the file that it leads to is written. That one, and any other file, has the old
// content or all of the new at every moment, and keeps its permissions.
func WriteOutput(path string, data []byte) error {
	return Output(path, func(file string) error {
		err := renameio.WriteFile(file, data, 0o644, renameio.WithTempDir(filepath.Dir(file)))
		return ExplainWrite(file, err)
	})
}

// Output writes what the user has called path, as WriteOutput does. create writes
// all of it to a file of another name that it is given.
func Output(path string, create func(file string) error) error {
	if err := CheckOutput(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	own := err == nil && (isOpenAs(os.Stdout, info) || isOpenAs(os.Stderr, info))
	if !own && (err != nil || info.Mode().IsRegular()) {
		file, err := linked(path)
		if err != nil {
			return err
		}
		return create(file)
	}
	scratch, err := os.MkdirTemp("", "sagbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	file := filepath.Join(scratch, filepath.Base(path))
	if err := create(file); err != nil {
		return err
	}
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	os.RemoveAll(scratch) // a FIFO without a reader may keep us until we are killed
	var to *os.File
	switch {
	case isOpenAs(os.Stdout, info):
		to = os.Stdout
	case isOpenAs(os.Stderr, info):
		to = os.Stderr
	default:
		if to, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			return ExplainWrite(path, err)
		}
		defer to.Close()
	}
	_, err = io.Copy(to, from)
	return ExplainWrite(path, err)
}

// CheckOutput is an error where Output could not write what the user has called path:
// it is a folder, or there is no folder to put it into.
func CheckOutput(path string) error {
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a folder; name the file to write", path)
	case err == nil:
		return nil
	}
	file, err := linked(path)
	if err != nil {
		return err
	}
	folder := filepath.Dir(file)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return fmt.Errorf("%s: there is no folder %s to write it into; make it first", path, folder)
	}
	return nil
}

// CheckApart is an error where what is to be written to a path would take the place of
// an input, or of what is written to another path before it. Devices and FIFOs, which
// keep nothing, are no such files.
func CheckApart(path string, others ...string) error {
	file, err := linked(path)
	if err != nil {
		return err
	}
	own, errOwn := os.Stat(file)
	for _, other := range others {
		another, err := os.Stat(other)
		if errOwn == nil && err == nil && own.Mode().IsRegular() && os.SameFile(own, another) {
			return fmt.Errorf("%s is %s, which it would replace; name another file", path, other)
		}
		if to, err := linked(other); errOwn != nil && err == nil && absolute(to) == absolute(file) {
			return fmt.Errorf("%s is given for two files; name another one", path)
		}
	}
	return nil
}

// absolute is a path from the root, as far as it can be told.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return filepath.Clean(path)
}

// isOpenAs reports whether f is the file that info describes.
func isOpenAs(f *os.File, info os.FileInfo) bool {
	open, err := f.Stat()
	return err == nil && os.SameFile(open, info)
}

// linked is where the symbolic links at a path lead to, which need not be there.
func linked(path string) (string, error) {
	for range 40 { // as many as Linux follows
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // it is none
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// leftover matches the temporary names of files that were being written.
var leftover = regexp.MustCompile(`^\..*\d$`)

// Leftovers are the paths of files in a folder that some process is writing, or was
// when it was killed.
func Leftovers(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		if e.Type().IsRegular() && leftover.MatchString(e.Name()) {
			all = append(all, filepath.Join(folder, e.Name()))
		}
	}
	return all, err
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
	case IsReadOnly(err):
		hint = "nothing may be written there; choose another place, for results with --results"
	default:
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return fmt.Errorf("%s cannot be written: %s; nothing half written is left (%w)", path, hint, err)
}

// IsFull reports whether an error is that of a full disk, or of a limit on what may
// be written to it.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// IsReadOnly reports whether an error is that of a place where nothing may be
// written.
func IsReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission)
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
	told bool // by another process, which has read it
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
	h[path] = hashed{sum, before, false}
	return sum, nil
}

// A Known is the hash of a file, for a process that sees the same file: as long as
// size and time are the same, it need not read it.
type Known struct {
	SHA256 string    `json:"sha256"`
	Size   int64     `json:"size"`
	Time   time.Time `json:"time"` // of the last change
}

// Known are the files that were read so far, by their paths. Folders are not among
// them.
func (h Hashes) Known() map[string]Known {
	all := map[string]Known{}
	for path, was := range h {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			all[path] = Known{was.sum, info.Size(), info.ModTime().UTC()}
		}
	}
	return all
}

// Believe takes a hash from another process, if the file is the one that it has
// read. Confirm reads it.
func (h Hashes) Believe(path string, k Known) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Size() != k.Size || !info.ModTime().Equal(k.Time) {
		return
	}
	if id, err := identityOf(path); err == nil {
		h[path] = hashed{k.SHA256, id, true}
	}
}

// Confirm reads all files whose hashes were only told.
func (h Hashes) Confirm() error {
	for path, was := range h {
		if !was.told {
			continue
		}
		sum, err := images.Hash(path)
		if err == nil && sum != was.sum {
			err = fmt.Errorf("%s: its sha256 is %.12s…, but the process that began this work has read %.12s…: the file was changed without a new time, or differs between machines; make it the same everywhere, and run the same command again", path, sum, was.sum)
		}
		if err != nil {
			return err
		}
		h[path] = hashed{was.sum, was.identity, false}
	}
	return nil
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
				h[path] = hashed{sum, now, false}
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
	if path == images.Standard { // which is read once
		return id, nil
	}
	if files, err := images.Files(path); err != nil || files != nil {
		all := sha256.New()
		for _, name := range files {
			if info, err := os.Stat(name); err == nil {
				s := info.Sys().(*syscall.Stat_t)
				fmt.Fprintln(all, name, s.Dev, s.Ino, s.Size, s.Mtim)
			}
		}
		return identity{true, fmt.Sprintf("%x", all.Sum(nil)), ""}, err
	}
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
