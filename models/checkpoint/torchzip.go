package checkpoint

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// A torchZip is what torch.save writes since 1.6: a zip archive with NAME/data.pkl,
// NAME/byteorder and the storages NAME/data/KEY, as a rule uncompressed and
// aligned to 64 bytes (torch/serialization.py, _save).
type torchZip struct {
	m        *mapping
	b        *budget
	root     string // NAME/
	entries  map[string]*zip.File
	inflated map[string][]byte
}

func parseTorchZip(m *mapping, set string, b *budget) (*File, error) {
	z := &torchZip{m: m, b: b, inflated: map[string][]byte{}}
	if err := z.readDirectory(); err != nil {
		return nil, err
	}
	if err := z.checkByteOrder(); err != nil {
		return nil, err
	}
	raw, err := z.content("data.pkl")
	if err != nil {
		return nil, err
	}
	u := &unpickler{b: b, persistent: func(id pyTuple) (any, error) { return parseStorage(id) }}
	root, _, err := u.load(raw)
	if err != nil {
		return nil, fmt.Errorf("%sdata.pkl: %w", z.root, err)
	}
	f := &File{Format: TorchZip, Opaque: u.opaqueNames()}
	return f, f.unwrap(root, set, &resolver{z.locate, m, b})
}

// readDirectory lists the archive's entries and finds the folder of data.pkl.
func (z *torchZip) readDirectory() error {
	r, err := zip.NewReader(bytes.NewReader(z.m.data), int64(len(z.m.data)))
	if errors.Is(err, zip.ErrFormat) {
		return fmt.Errorf("the zip archive is truncated or broken: it has no directory at its end (%d bytes); download it again", len(z.m.data))
	} else if err != nil {
		return fmt.Errorf("the zip archive is broken: %w", err)
	}
	z.entries = make(map[string]*zip.File, len(r.File))
	var roots []string
	for _, e := range r.File {
		if z.entries[e.Name] != nil {
			return fmt.Errorf("the zip archive has two entries named %q", shorten(e.Name))
		}
		z.entries[e.Name] = e
		if path.Base(e.Name) == "data.pkl" {
			roots = append(roots, strings.TrimSuffix(e.Name, "data.pkl"))
		}
	}
	switch len(roots) {
	case 1:
		z.root = roots[0]
	case 0:
		return fmt.Errorf("is a zip archive but not of torch.save: data.pkl is missing; it holds %s", z.sample(r.File))
	default:
		return fmt.Errorf("the zip archive has %d entries named data.pkl where torch.save writes one", len(roots))
	}
	if z.entries[z.root+"constants.pkl"] != nil {
		return errors.New("is a TorchScript archive (torch.jit.save); save the state dict instead: torch.save(model.state_dict(), path)")
	}
	return nil
}

// sample names the first entries of an archive for a message.
func (z *torchZip) sample(files []*zip.File) string {
	if len(files) == 0 {
		return "nothing"
	}
	var names []string
	for _, e := range files[:min(len(files), 3)] {
		names = append(names, fmt.Sprintf("%q", shorten(e.Name)))
	}
	if len(files) > 3 {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

func (z *torchZip) checkByteOrder() error {
	if z.entries[z.root+"byteorder"] == nil {
		return nil // before PyTorch 2.1 a file had the byte order of the machine that wrote it, in practice little-endian
	}
	order, err := z.content("byteorder")
	if err != nil {
		return err
	}
	if s := strings.TrimSpace(string(order)); s != "little" {
		return fmt.Errorf("byte order is %q; only little-endian files are supported: load and save it on a little-endian machine", shorten(s))
	}
	return nil
}

// content is the content of entry root+name, a view of the map where it is
// stored.
func (z *torchZip) content(name string) ([]byte, error) {
	reg, err := z.find(name)
	if err != nil || reg.raw != nil {
		return reg.raw, err
	}
	return z.m.view(reg.off, reg.size)
}

// locate finds storage data/KEY.
func (z *torchZip) locate(s *storage) (region, error) {
	if z.entries[z.root+"data/"+s.key] == nil {
		return region{}, fmt.Errorf("storage %q is missing: the archive has no entry %q", shorten(s.key), shorten(z.root+"data/"+s.key))
	}
	return z.find("data/" + s.key)
}

// find locates entry root+name: in the file where it is stored, decompressed
// where it is deflated.
//
// The CRC of a stored entry is not checked: that would mean to read all weights,
// and PyTorch, which can be told not to write it, does not check it either.
func (z *torchZip) find(name string) (region, error) {
	e := z.entries[z.root+name]
	off, err := e.DataOffset()
	if err != nil {
		return region{}, fmt.Errorf("zip entry %q: its local header is broken: %w", shorten(e.Name), err)
	}
	total := uint64(len(z.m.data))
	if off < 0 || uint64(off) > total || e.CompressedSize64 > total-uint64(off) {
		return region{}, fmt.Errorf("zip entry %q: its %d bytes at %d lie outside the file of %d bytes", shorten(e.Name), e.CompressedSize64, off, total)
	}
	if e.Flags&1 != 0 {
		return region{}, fmt.Errorf("zip entry %q is encrypted", shorten(e.Name))
	}
	switch e.Method {
	case zip.Store:
		if e.CompressedSize64 != e.UncompressedSize64 {
			return region{}, fmt.Errorf("zip entry %q is stored, but its sizes differ: %d and %d", shorten(e.Name), e.CompressedSize64, e.UncompressedSize64)
		}
		return region{off: off, size: int64(e.UncompressedSize64)}, nil
	case zip.Deflate:
		raw, err := z.inflate(e)
		if err != nil {
			return region{}, fmt.Errorf("zip entry %q: %w", shorten(e.Name), err)
		}
		return region{size: int64(len(raw)), raw: raw}, nil
	}
	return region{}, fmt.Errorf("zip entry %q: compression method %d is not supported; only stored and deflated entries are", shorten(e.Name), e.Method)
}

// inflate decompresses an entry once and checks its size and CRC.
func (z *torchZip) inflate(e *zip.File) ([]byte, error) {
	if raw, ok := z.inflated[e.Name]; ok {
		return raw, nil
	}
	const most = 1032 // deflate's best ratio
	size := e.UncompressedSize64
	if size/most > e.CompressedSize64 {
		return nil, fmt.Errorf("%d compressed bytes cannot hold the %d that it claims", e.CompressedSize64, size)
	}
	if err := z.b.take(int64(size), "the decompressed entry"); err != nil {
		return nil, err
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw := make([]byte, size)
	_, err = io.ReadFull(r, raw)
	if err == nil {
		// The CRC is compared at the end of the stream, which must be here.
		if _, err = io.ReadFull(r, make([]byte, 1)); err == io.EOF {
			z.inflated[e.Name] = raw
			return raw, nil
		} else if err == nil {
			err = zip.ErrFormat
		}
	}
	switch {
	case errors.Is(err, zip.ErrFormat): // archive/zip's word for more data than stated
		return nil, fmt.Errorf("decompresses to more than the %d bytes that it claims", size)
	case errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF:
		return nil, fmt.Errorf("decompresses to fewer than the %d bytes that it claims", size)
	}
	return nil, fmt.Errorf("decompressing %d bytes: %w", size, err)
}
