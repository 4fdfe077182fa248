package images

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Standard is the path that stands for standard input, from which a tar is read,
// compressed or not.
const Standard = "-"

// said is what messages call a path.
func said(path string) string {
	if path == Standard {
		return "standard input"
	}
	return path
}

// A scratch is a file that was unpacked to the folder of temporary files. It has no name
// there, so that it goes with the process, however that ends.
type scratch struct {
	*os.File
	of    string // path and identity of the file that it was unpacked from
	cut   error  // why not all of that could be unpacked; nil = all was
	users int
}

// Scratches are kept for the next one who opens the same file, idle ones up to maxIdle:
// an evaluation reads a set once for each network.
const maxIdle = 2

var scratches struct {
	sync.Mutex
	all []*scratch // those used last come last
}

// Close implements io.Closer: the file may go, unless it is asked for again.
func (s *scratch) Close() error {
	scratches.Lock()
	defer scratches.Unlock()
	s.users--
	return dropIdle()
}

// dropIdle closes all scratches that are idle but the last ones. Standard input cannot
// be read again and stays.
func dropIdle() error {
	var faults []error
	idle, kept := 0, scratches.all[:0:0]
	for i := len(scratches.all) - 1; i >= 0; i-- {
		s := scratches.all[i]
		if s.users == 0 && s.of != Standard {
			if idle++; idle > maxIdle {
				faults = append(faults, s.File.Close())
				continue
			}
		}
		kept = append([]*scratch{s}, kept...)
	}
	scratches.all = kept
	return errors.Join(faults...)
}

// openUnpacked opens a file, unpacked if it is compressed. cut tells that it is not whole.
func openUnpacked(ctx context.Context, path string) (f *os.File, closer io.Closer, cut, err error) {
	if path == Standard {
		s, err := unpackOnce(ctx, Standard, openStandard)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", said(path), err)
		}
		return s.File, s, s.cut, nil
	}
	if f, err = os.Open(path); err != nil {
		return nil, nil, nil, err
	}
	head := make([]byte, 512)
	n, _ := f.ReadAt(head, 0)
	if compression(string(head[:n])) == "" {
		return f, f, nil, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, nil, err
	}
	id := info.Sys().(*syscall.Stat_t)
	s, err := unpackOnce(ctx, fmt.Sprint(path, id.Dev, id.Ino, id.Size, id.Mtim), func() (io.Reader, error) { return f, nil })
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return s.File, s, s.cut, nil
}

// openStandard is standard input, which has to be a pipe or a file.
func openStandard() (io.Reader, error) {
	info, err := os.Stdin.Stat()
	if err == nil && info.Mode()&os.ModeCharDevice != 0 {
		err = errors.New("is a terminal or a device, expected a tar of images: cat images.tar | sagbench eval REF -")
	}
	return os.Stdin, err
}

// unpackOnce unpacks what is not unpacked yet.
func unpackOnce(ctx context.Context, of string, open func() (io.Reader, error)) (*scratch, error) {
	scratches.Lock()
	defer scratches.Unlock()
	for _, s := range scratches.all {
		if s.of == of {
			s.users++
			return s, nil
		}
	}
	from, err := open()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "sagbench-*.tar")
	if err != nil {
		return nil, fmt.Errorf("a temporary file cannot be made ($TMPDIR names the folder): %w", err)
	}
	var cut error
	err = os.Remove(f.Name()) // the open file stays
	if err == nil {
		cut, err = unpack(ctx, f, from)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &scratch{f, of, cut, 1}
	scratches.all = append(scratches.all, s)
	return s, dropIdle()
}

// compression is what a file that begins so is compressed with: gzip, zstd, another one,
// or "".
func compression(head string) string {
	for magic, name := range map[string]string{"\x1f\x8b": "gzip", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2", "\xfd7zXZ\x00": "xz", "\x04\x22\x4d\x18": "lz4"} {
		if strings.HasPrefix(head, magic) {
			return name
		}
	}
	return ""
}

// isTar reports whether a file that begins so, with a whole block, is a tar.
func isTar(head string) bool {
	if len(head) < 512 {
		return false
	}
	if head[257:262] == "ustar" {
		return true
	}
	if strings.Trim(head[:512], "\x00") == "" { // an empty archive
		return true
	}
	var sum, stated int // of the form before POSIX, which has no magic
	for i, c := range []byte(head[:512]) {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	if _, err := fmt.Sscanf(strings.Trim(head[148:156], " \x00"), "%o", &stated); err != nil {
		return false
	}
	return sum == stated
}

// A compressed file may unpack to mostUnpacked times its size and mostTar bytes: images
// hardly shrink, but blocks of small ones are half empty.
const (
	mostUnpacked = 200
	mostTar      = 1 << 30
)

// unpack writes a tar to a file from what may be compressed. cut tells that the end is
// missing.
func unpack(ctx context.Context, to *os.File, from io.Reader) (cut, err error) {
	read := &counter{r: from}
	out, err := unpacked(read)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	block := make([]byte, 1<<20)
	written := int64(0)
	for {
		n, err := io.ReadFull(out, block)
		if written == 0 && !isTar(string(block[:n])) {
			return nil, notTar(n, err)
		}
		if written += int64(n); written/mostUnpacked > read.n+mostTar/mostUnpacked {
			return nil, fmt.Errorf("unpacks to more than %d bytes from %d, which no images need", written, read.n)
		}
		if _, err := to.Write(block[:n]); err != nil {
			return nil, explainFull(err, to, written)
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF && ended(out):
			return nil, ctx.Err()
		case err != nil:
			return fmt.Errorf("is truncated or damaged after %d bytes (%w)", read.n, err), ctx.Err()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
}

// unpacked is what a reader gives, unpacked if it is compressed.
func unpacked(from io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(from, 1<<20)
	head, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch kind := compression(string(head)); kind {
	case "":
		return io.NopCloser(in), nil
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("is no whole gzip file: %w", err)
		}
		return z, nil
	case "zstd":
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderMaxWindow(1<<27), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("is no whole zstd file: %w", err)
		}
		return z.IOReadCloser(), nil
	default:
		return nil, fmt.Errorf("is compressed with %s, expected a tar that is not compressed, or with gzip or zstd; unpack it first", kind)
	}
}

// ended tells the end of a stream from one that is cut off: io.ReadFull has one error for
// both.
func ended(r io.Reader) bool {
	n, err := r.Read(make([]byte, 1))
	return n == 0 && err == io.EOF
}

// notTar says that the first n bytes that were read are no tar.
func notTar(n int, err error) error {
	switch {
	case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
		return fmt.Errorf("cannot be unpacked: %w", err)
	case n == 0:
		return errors.New("is empty, expected a tar of images")
	}
	return errors.New("is no tar, expected one of images, as it is or compressed with gzip or zstd")
}

// explainFull is an error of writing a temporary file with what to do.
func explainFull(err error, f *os.File, need int64) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("a temporary file cannot be written: %w", err)
	}
	var fs syscall.Statfs_t
	free := ""
	if syscall.Fstatfs(int(f.Fd()), &fs) == nil {
		free = fmt.Sprintf(", %d bytes are free", int64(fs.Bavail)*int64(fs.Bsize))
	}
	return fmt.Errorf("does not fit into %s when it is unpacked: %d bytes so far%s; set $TMPDIR to a folder with more room, or unpack it yourself (%w)", os.TempDir(), need, free, err)
}

// A counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
