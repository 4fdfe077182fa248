package store

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxAppended bounds a CSV file that lines are added to, in bytes.
const maxAppended = 1 << 27

// CheckAppend is an error where AppendCSV could not add lines under this head to a file.
func CheckAppend(path string, head []string) error {
	_, err := appendable(path, head)
	return err
}

// appendable is the content of a CSV file with this head, ready for more lines; nil
// where there is none, or it is no file that keeps anything.
func appendable(path string, head []string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	if err == nil && info.Size() > maxAppended {
		err = fmt.Errorf("%s: has %d bytes, and lines are added to files of at most %d; begin another one", path, info.Size(), maxAppended)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil || len(data) == 0 {
		return nil, err
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if want := strings.Join(head, ","); string(first) != want {
		return nil, fmt.Errorf("%s: lines can only be added under the same head; its first line is %.300q, expected %q; name another file", path, first, want)
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord, r.ReuseRecord = len(head), true
	for err == nil {
		_, err = r.Read()
	}
	if err != io.EOF {
		return nil, fmt.Errorf("%s: lines cannot be added: %w; mend it, or name another file", path, err)
	}
	if data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return data, nil
}

// AppendCSV adds lines of CSV to a file that the user has named, whole or not at all. The
// first of them is the head: it has to be that of a file that is there, and begins one
// that is not. Several processes may add to one file at once.
func AppendCSV(path string, lines []byte) error {
	first, rest, _ := bytes.Cut(lines, []byte("\n"))
	head, err := csv.NewReader(bytes.NewReader(first)).Read()
	if err != nil {
		return err
	}
	if err := CheckOutput(path); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return WriteOutput(path, lines)
	}
	file, made, err := lockFile(path)
	if err != nil {
		return ExplainWrite(path, err)
	}
	defer file.Close() // and with it the lock
	there, err := appendable(path, head)
	if err == nil {
		if there == nil {
			rest = lines
		}
		err = WriteOutput(path, slices.Concat(there, rest))
	}
	if info, errStat := os.Stat(path); err != nil && made && errStat == nil && info.Size() == 0 {
		os.Remove(path) // what was made to be locked
	}
	return err
}

// lockFile opens the file at a path, which it makes if need be, and waits until no other
// process has it locked. Who had the lock may have put another file there.
func lockFile(path string) (file *os.File, made bool, err error) {
	for {
		_, err := os.Stat(path)
		made = errors.Is(err, fs.ErrNotExist)
		if file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
			return nil, false, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOLCK) {
			file.Close()
			return nil, false, err
		}
		mine, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, false, err
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(mine, now) {
			return file, made, nil
		}
		file.Close()
	}
}
