package checkpoint

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

// maxHeader is the official crate's limit for the JSON header, in bytes.
const maxHeader = 100_000_000

// maxKeys is the most tensors, and the most metadata, that a header may name: ten
// times what the largest published checkpoints have.
const maxKeys = 100_000

// parseSafetensors reads the header of a safetensors file: its length as a
// little-endian uint64, then a JSON object that maps names to dtype, shape and
// data_offsets. The data that follow must be covered by the tensors without
// gap or overlap, as the official crate demands (safetensors/src/tensor.rs).
func parseSafetensors(m *mapping) (*File, error) {
	data := m.data
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return nil, fmt.Errorf("safetensors header of %d bytes is claimed; %d is the most", n, maxHeader)
	}
	if n > uint64(len(data)-8) {
		return nil, fmt.Errorf("is truncated: the safetensors header has %d bytes, %d are there", n, len(data)-8)
	}
	header, body := data[8:8+n], data[8+n:]
	if !utf8.Valid(header) {
		return nil, errors.New("safetensors header is not valid UTF-8")
	}
	h := &headerReader{dec: json.NewDecoder(bytes.NewReader(header)), tensors: map[string]entry{}}
	h.dec.UseNumber()
	if err := h.read(); err != nil {
		return nil, fmt.Errorf("safetensors header: %w", err)
	}
	if err := checkCover(h.tensors, uint64(len(body))); err != nil {
		return nil, err
	}
	f := &File{Format: Safetensors, Metadata: h.metadata, Tensors: make(StateDict, len(h.tensors))}
	for name, e := range h.tensors {
		f.Tensors[name] = Tensor{DType: e.dtype, Shape: e.shape, Offset: int64(8 + n + e.from), Size: int64(e.to - e.from)}
	}
	return f, nil
}

// An entry is what the header says of one tensor.
type entry struct {
	dtype    DType
	shape    []int
	from, to uint64 // bytes after the header
}

// checkCover checks sizes, and that the tensors fill the data one after the
// other.
func checkCover(tensors map[string]entry, total uint64) error {
	names := slices.SortedFunc(maps.Keys(tensors), func(a, b string) int {
		x, y := tensors[a], tensors[b]
		return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to), cmp.Compare(a, b))
	})
	var errs []error
	at, bad := uint64(0), false
	for _, name := range names {
		e := tensors[name]
		item := e.dtype.Size()
		if item == 0 {
			errs = append(errs, fmt.Errorf("tensor %q: dtype %s is not supported; convert it to F32, F16 or BF16", shorten(name), shorten(string(e.dtype))))
		} else if want, ok := byteSize(e.shape, uint64(item)); !ok || e.to < e.from || want != e.to-e.from {
			errs = append(errs, fmt.Errorf("tensor %q: data_offsets [%d, %d] do not fit shape %v of %s", shorten(name), e.from, e.to, e.shape, e.dtype))
		}
		if !bad && e.from != at {
			bad = true
			errs = append(errs, fmt.Errorf("tensor %q: data_offsets begin at %d where the tensor before ends at %d; tensors must not overlap or leave gaps", shorten(name), e.from, at))
		}
		if at = e.to; len(errs) > maxFaults {
			return errors.Join(append(errs, errors.New("… and perhaps more"))...)
		}
	}
	switch {
	case bad:
	case at > total:
		errs = append(errs, fmt.Errorf("is truncated: the tensors need %d bytes after the header, %d are there", at, total))
	case at < total:
		errs = append(errs, fmt.Errorf("%d bytes follow after the last tensor", total-at))
	}
	return errors.Join(errs...)
}

// A headerReader reads the JSON header token by token: encoding/json alone
// hides duplicate keys.
type headerReader struct {
	dec      *json.Decoder
	tensors  map[string]entry
	metadata map[string]string
}

func (h *headerReader) read() error {
	err := h.object(func(name string) error {
		if name == "__metadata__" {
			return h.readMetadata()
		}
		if err := h.readTensor(name); err != nil {
			return fmt.Errorf("tensor %q: %w", shorten(name), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if tok, err := h.dec.Token(); err != io.EOF {
		return fmt.Errorf("%v follows after the JSON object", tok)
	}
	return nil
}

// object reads an object and calls field with each key when its value is next.
func (h *headerReader) object(field func(key string) error) error {
	if err := h.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for h.dec.More() {
		tok, err := h.dec.Token()
		if err != nil {
			return broken(err)
		}
		key, _ := tok.(string) // keys are strings: the decoder sees to that
		if seen[key] {
			return fmt.Errorf("key %q is there twice", shorten(key))
		}
		if seen[key] = true; len(seen) > maxKeys+1 {
			return fmt.Errorf("an object of more than %d keys; no checkpoint of a network here has so many: is it of one?", maxKeys)
		}
		if err := field(key); err != nil {
			return err
		}
	}
	return h.delim('}')
}

func (h *headerReader) delim(want json.Delim) error {
	tok, err := h.dec.Token()
	if err != nil {
		return broken(err)
	}
	if tok != want {
		return fmt.Errorf("%s where %s is expected", shorten(fmt.Sprint(tok)), want)
	}
	return nil
}

// broken keeps io.EOF from looking like success.
func broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("broken JSON: %w", err)
}

func (h *headerReader) readMetadata() error {
	h.metadata = map[string]string{}
	return h.object(func(key string) error {
		tok, err := h.dec.Token()
		if err != nil {
			return broken(err)
		}
		value, ok := tok.(string)
		if !ok {
			return fmt.Errorf("__metadata__: %q is %s; all values are strings", shorten(key), shorten(fmt.Sprint(tok)))
		}
		h.metadata[key] = value
		return nil
	})
}

func (h *headerReader) readTensor(name string) error {
	var e entry
	var offsets []int
	have := map[string]bool{}
	err := h.object(func(key string) (err error) {
		have[key] = true
		switch key {
		case "dtype":
			tok, err := h.dec.Token()
			if err != nil {
				return broken(err)
			}
			s, ok := tok.(string)
			if !ok {
				return fmt.Errorf("dtype is %s, not a string", shorten(fmt.Sprint(tok)))
			}
			e.dtype = DType(s)
		case "shape":
			e.shape, err = h.numbers(maxRank)
		case "data_offsets":
			offsets, err = h.numbers(2)
		default:
			return h.dec.Decode(new(json.RawMessage))
		}
		return err
	})
	if err != nil {
		return err
	}
	if !have["dtype"] || !have["shape"] || len(offsets) != 2 {
		return errors.New("dtype, shape and two data_offsets are needed")
	}
	e.from, e.to = uint64(offsets[0]), uint64(offsets[1])
	h.tensors[name] = e
	return nil
}

// numbers reads an array of at most most integers ≥ 0.
func (h *headerReader) numbers(most int) ([]int, error) {
	if err := h.delim('['); err != nil {
		return nil, err
	}
	out := []int{}
	for h.dec.More() {
		tok, err := h.dec.Token()
		if err != nil {
			return nil, broken(err)
		}
		num, _ := tok.(json.Number)
		n, err := strconv.ParseUint(string(num), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer in [0, 2⁶³)", shorten(fmt.Sprint(tok)))
		}
		if len(out) == most {
			return nil, fmt.Errorf("an array longer than %d", most)
		}
		out = append(out, int(n))
	}
	return out, h.delim(']')
}

// WriteSafetensors writes tensors, sorted by name, and metadata (nil: none) as
// a safetensors file. The file appears at path whole or not at all: it is
// written beside it, synced and renamed. Tensors of an open File may be
// written; they are copied piece by piece.
func WriteSafetensors(path string, tensors StateDict, metadata map[string]string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("checkpoint: writing %s: %w", path, cause(err))
		}
	}()
	header, err := safetensorsHeader(tensors, metadata)
	if err != nil {
		return err
	}
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	w := bufio.NewWriterSize(file, 1<<20)
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, name := range tensors.Names() {
		if err := tensors[name].read(func(b []byte) error { _, err := w.Write(b); return err }); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// headerEntry is a tensor's value in the header.
type headerEntry struct {
	DType   DType    `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// safetensorsHeader is the length and the JSON, padded with blanks so that the
// data begin at a multiple of 8. All faulty tensors are named at once.
func safetensorsHeader(tensors StateDict, metadata map[string]string) ([]byte, error) {
	object := map[string]any{} // encoding/json sorts the keys
	if len(metadata) > 0 {
		object["__metadata__"] = metadata
	}
	var errs []error
	at := int64(0)
	for _, name := range tensors.Names() {
		t := tensors[name]
		if name == "__metadata__" {
			errs = append(errs, errors.New("a tensor cannot be named __metadata__"))
			continue
		}
		if err := t.check(); err != nil {
			errs = append(errs, fmt.Errorf("tensor %q: %w", name, err))
			continue
		}
		object[name] = headerEntry{t.DType, append([]int{}, t.Shape...), [2]int64{at, at + t.Size}}
		at += t.Size
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	if len(text) > maxHeader {
		return nil, fmt.Errorf("the header would have %d bytes; %d is the most", len(text), maxHeader)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), nil
}

// syncFolder makes the rename survive a power cut.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
