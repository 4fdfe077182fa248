package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of a list of files.
const (
	maxList     = 50_000_000 // lines
	maxListLine = 4096       // bytes
)

// ListPath is the path of the set that a list of files is, @ and its path; "" where the
// argument names none. A .txt is one.
func listPath(argument string) string {
	if list, ok := strings.CutPrefix(argument, "@"); ok {
		return list
	}
	return ""
}

// SetPath is the path of the set that an argument of a command names: a .txt is a list of
// files.
func SetPath(argument string) string {
	if strings.EqualFold(filepath.Ext(argument), ".txt") && listPath(argument) == "" {
		return "@" + argument
	}
	return argument
}

// readList reads the paths of a list, which are relative to its folder, in its order:
// one a line, without the empty ones. No file of them is opened.
func readList(list string, add func(line int, name string) error) error {
	info, err := os.Stat(list)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file, expected a list of the paths of images, one a line", list)
	}
	if err != nil {
		return err
	}
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 4096), maxListLine+2)
	n := 0
	for lines.Scan() {
		if n++; n > maxList {
			return fmt.Errorf("%s:%d: a list may have %d lines", list, n, maxList)
		}
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" {
			continue
		}
		if strings.ContainsRune(line, 0) {
			return fmt.Errorf("%s:%d: holds a zero byte, expected the path of an image", list, n)
		}
		if err := add(n, line); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: is longer than the %d bytes of a path", list, n+1, maxListLine)
	}
	return lines.Err()
}

// inList is the path of a file that a list names.
func inList(list, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(list), filepath.FromSlash(name))
}

// maxMissing bounds the lines of a message.
const maxMissing = 5

// listFiles lists the images that a list names, in its order.
func listFiles(ctx context.Context, list string) (*listing, error) {
	l := &listing{}
	lines := map[string]int{}
	var faults []error
	bad := 0
	fault := func(line int, what string) {
		if bad++; bad <= maxMissing {
			faults = append(faults, fmt.Errorf("%s:%d: %s", list, line, what))
		}
	}
	err := readList(list, func(line int, name string) error {
		if line%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if before, twice := lines[name]; twice {
			fault(line, fmt.Sprintf("names %s again, as line %d; a set holds an image once", quoted(name), before))
			return nil
		}
		lines[name] = line
		info, err := os.Stat(inList(list, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			fault(line, fmt.Sprintf("there is no file %s; paths are relative to the list's folder", quoted(inList(list, name))))
		case err != nil:
			fault(line, err.Error())
		case !info.Mode().IsRegular():
			fault(line, fmt.Sprintf("%s is a folder or a device, expected the file of an image", quoted(name)))
		case shardSuffix(name) != "" || strings.EqualFold(path.Ext(name), ".zip"):
			fault(line, fmt.Sprintf("%s is an archive, expected the file of an image; several archives are a folder of them, or a pattern", quoted(name)))
		default:
			l.files = append(l.files, file{name: name, size: info.Size(), open: func() (io.ReadCloser, error) { return os.Open(inList(list, name)) }})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if bad > maxMissing {
		faults = append(faults, fmt.Errorf("… and %d more such lines", bad-maxMissing))
	}
	if len(l.files) == 0 && bad == 0 {
		return nil, fmt.Errorf("%s: is empty, expected the paths of images, one a line", list)
	}
	l.key = fileKey
	return l, errors.Join(faults...)
}

// openList opens the images that a list names.
func openList(ctx context.Context, argument string, opt Options) (*Set, error) {
	list := listPath(argument)
	l, err := listFiles(ctx, list)
	if err != nil {
		return nil, err
	}
	l.besides = func(name string) (found []file, err error) {
		for _, suffix := range sideSuffixes {
			side := fileKey(name) + suffix
			info, err := os.Stat(inList(list, side))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found = append(found, file{name: side, size: info.Size(), open: func() (io.ReadCloser, error) { return os.Open(inList(list, side)) }})
		}
		return found, nil
	}
	return l.newSet(ctx, argument, opt, nil)
}

// shardSuffixes are those of files of which several may make up a set.
var shardSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".npz", ".parquet"}

// shardSuffix is the one that a name has; "" if none.
func shardSuffix(name string) string {
	name = strings.ToLower(name)
	i := slices.IndexFunc(shardSuffixes, func(s string) bool { return strings.HasSuffix(name, s) })
	if i < 0 {
		return ""
	}
	return shardSuffixes[i]
}
