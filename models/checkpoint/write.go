package checkpoint

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteSafetensors writes tensors, sorted by name, and metadata (nil: none) as
// a safetensors file. The file appears at path whole or not at all: it is
// written beside it, synced and renamed. Tensors of an open File may be
// written; they are copied piece by piece.
func WriteSafetensors(path string, tensors StateDict, metadata map[string]string) error {
	if err := writeSafetensors(path, tensors, metadata); err != nil {
		return fmt.Errorf("checkpoint: writing %s: %w", path, cause(err))
	}
	return nil
}

func writeSafetensors(path string, tensors StateDict, metadata map[string]string) error {
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
		if err := writeTensor(w, tensors[name]); err != nil {
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

// writeTensor copies the bytes of t while its map is held.
func writeTensor(w io.Writer, t Tensor) (err error) {
	defer guard(&err)()
	b, err := t.bytes()
	if err != nil {
		return err
	}
	if t.Raw == nil && t.m != nil {
		t.m.mu.RLock()
		defer t.m.mu.RUnlock()
		if t.m.closed {
			return errClosed
		}
	}
	_, err = w.Write(b)
	return err
}

// syncFolder makes the rename survive a power cut.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
