package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of an archive's index, which lies in memory.
const (
	maxEntries = 50_000_000
	maxName    = 4096    // bytes
	maxNames   = 4 << 30 // bytes, of all
)

// tarKey is what WebDataset calls an image and what lies beside it: its name up to the
// first dot of its base name.
func tarKey(name string) string {
	base := strings.LastIndexByte(name, '/') + 1
	if dot := strings.IndexByte(name[base:], '.'); dot >= 0 {
		return name[:base+dot]
	}
	return name
}

// openTar opens the images of an archive, or of several as if they were one: shard after
// shard, those of a shard in the byte order of their names.
func openTar(ctx context.Context, name string, shards []string, opt Options) (*Set, error) {
	all := &listing{flat: opt.Flat, key: tarKey}
	var open closers
	var notes []string
	for _, shard := range shards {
		f, closer, cut, err := openUnpacked(ctx, shard)
		if err != nil {
			return nil, errors.Join(err, open.Close())
		}
		open = append(open, closer)
		switch {
		case cut != nil && !opt.SkipBroken:
			return nil, errors.Join(fmt.Errorf("%s: %w; copy or write it again, or use what is there with --skip-broken", said(shard), cut), open.Close())
		case cut != nil:
			notes = append(notes, fmt.Sprintf("%s: %v; the images before are used", said(shard), cut))
		}
		l, note, err := listTar(ctx, f, opt)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", said(shard), err), open.Close())
		}
		if note != "" {
			notes = append(notes, said(shard)+": "+note)
		}
		all.append(l)
	}
	err := all.checkKeys()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", said(name), err), open.Close())
	}
	s, err := all.newSet(ctx, name, opt, open, notes...)
	if err != nil {
		return nil, errors.Join(err, open.Close())
	}
	return s, nil
}

// append adds the images of the next shard.
func (l *listing) append(next *listing) {
	l.files = append(l.files, next.files...)
	l.sides = append(l.sides, next.sides...)
	l.below += next.below
	for suffix, n := range next.others {
		if l.others == nil {
			l.others = map[string]int{}
		}
		l.others[suffix] += n
	}
}

// checkKeys puts what lies beside images into the order of keys, and is an error where
// two images, or two files of one kind beside them, have one key.
func (l *listing) checkKeys() error {
	byKey := slices.Clone(l.files)
	slices.SortFunc(byKey, l.compareKeys)
	for i := 1; i < len(byKey); i++ {
		switch a, b := byKey[i-1].name, byKey[i].name; {
		case a == b:
			return fmt.Errorf("two images are named %s; which one is meant cannot be known", quoted(a))
		case tarKey(a) == tarKey(b):
			return fmt.Errorf("two images have the key %s: %s and %s; in a tar, as WebDataset has it, a name up to its first dot is the key of one image. Archive files whose names hold more dots as a .zip", quoted(tarKey(a)), quoted(a), quoted(b))
		}
	}
	slices.SortFunc(l.sides, func(a, b file) int {
		return cmp.Or(l.compareKeys(a, b), strings.Compare(a.name, b.name))
	})
	for i := 1; i < len(l.sides); i++ {
		if a := l.sides[i-1].name; a == l.sides[i].name {
			return fmt.Errorf("two files are named %s; which one is meant cannot be known", quoted(a))
		}
	}
	return nil
}

// listTar lists the images of an archive by one pass over its headers. note tells where it
// is not whole.
func listTar(ctx context.Context, f io.ReaderAt, opt Options) (l *listing, note string, err error) {
	l = &listing{flat: opt.Flat, key: tarKey}
	at := &position{r: f}
	r := tar.NewReader(at)
	last, end, names, n := "", int64(0), 0, 0
	for ; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if note = cutOff(err, last, n); !opt.SkipBroken {
				return nil, "", errors.New(note + "; copy or write it again, or use what is there with --skip-broken")
			}
			note += "; the images before are used"
			break
		}
		last, end = h.Name, at.at+h.Size
		if names += len(h.Name); n >= maxEntries || len(h.Name) > maxName || names > maxNames {
			return nil, "", fmt.Errorf("entry %d, %s: at most %d entries with names of %d bytes are read", n+1, quoted(h.Name), maxEntries, maxName)
		}
		l.addTar(h, f, at.at)
	}
	if n == 0 && note == "" && at.at == 0 {
		return nil, "", errors.New("is empty, expected a tar")
	}
	if note == "" {
		note = afterEnd(f, end, last)
	}
	l.sort()
	return l, note, nil
}

// addTar lists an entry whose data begins at a place of the archive.
func (l *listing) addTar(h *tar.Header, f io.ReaderAt, begin int64) {
	one := file{name: strings.Clone(strings.TrimPrefix(h.Name, "./")), size: min(h.Size, maxFile+1)}
	refuse := func(what string) {
		one.open = func() (io.ReadCloser, error) { return nil, errors.New(what) }
	}
	sparse := h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	switch {
	case h.Typeflag == tar.TypeDir, strings.HasSuffix(h.Name, "/"), h.Typeflag == tar.TypeXGlobalHeader:
		return
	case h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink:
		refuse(fmt.Sprintf("is a link to %s, and links in archives are not followed; archive the files with tar --dereference --hard-dereference", quoted(h.Linkname)))
	case sparse:
		refuse("is stored as a sparse file, which is not read; archive it without --sparse")
	case h.Typeflag != tar.TypeReg:
		refuse("is a device or a pipe")
	default:
		size := h.Size
		one.open = func() (io.ReadCloser, error) {
			return io.NopCloser(&whole{io.NewSectionReader(f, begin, size), size}), nil
		}
	}
	l.add(one)
}

// whole is a reader of a size: where it ends before is an error.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = fmt.Errorf("is cut off: the archive ends %d bytes before it does", w.left)
	}
	return n, err
}

// cutOff says what an error of reading the header after the last entry means.
func cutOff(err error, last string, n int) string {
	where := "at its beginning"
	if n > 0 {
		where = fmt.Sprintf("after its entry %d, %s", n, quoted(last))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "is a tar that is truncated " + where
	}
	return fmt.Sprintf("is no tar, or a damaged one, %s (%v)", where, err)
}

// afterEnd tells of an archive whose last entry ends at a place and which has no end mark
// behind it, or more than that; "" if all is well.
func afterEnd(f io.ReaderAt, end int64, last string) string {
	end = (end + 511) / 512 * 512
	tail, _ := io.ReadAll(io.NewSectionReader(f, end, 1<<20))
	switch {
	case last != "" && len(tail) < 512:
		return fmt.Sprintf("ends behind %s without the end mark of a tar; it may be truncated", quoted(last))
	case len(bytes.Trim(tail, "\x00")) > 0:
		return "goes on behind its end mark, which is not read; is it several archives in one?"
	}
	return ""
}

// A position is a reader that knows where it is.
type position struct {
	r  io.ReaderAt
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.ReadAt(b, p.at)
	p.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker for tar.Reader, which passes over data with it.
func (p *position) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		p.at = offset
	case io.SeekCurrent:
		p.at += offset
	default:
		return 0, errors.New("the end is not known")
	}
	return p.at, nil
}

// closers close all.
type closers []io.Closer

// Close implements io.Closer.
func (c closers) Close() error {
	var faults []error
	for _, one := range c {
		faults = append(faults, one.Close())
	}
	return errors.Join(faults...)
}
