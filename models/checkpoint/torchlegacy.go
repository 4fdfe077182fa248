package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// What a legacy file begins with (torch/serialization.py): the magic number
// 0x1950a86a20f9469cfc6c in decimal, and the version of the layout.
const (
	legacyMagic   = "119547037146038801333356"
	legacyVersion = 1001
)

// A torchLegacy is what torch.save wrote before 1.6: the pickles of magic
// number, version, system information, the object and the list of storage
// keys; then every storage in that order as an int64 number of elements and
// the elements.
type torchLegacy struct {
	roots   map[string]*storage // by key, as the object names them first: the size of that dtype's elements counts
	regions map[string]region
	opaque  []string // classes and functions that were met and not obeyed
}

func newTorchLegacy() *torchLegacy {
	return &torchLegacy{roots: map[string]*storage{}, regions: map[string]region{}}
}

func parseTorchLegacy(m *mapping, set string, b *budget) (*File, error) {
	l := newTorchLegacy()
	root, err := l.read(m.data, 0, b)
	if err != nil {
		return nil, err
	}
	f := &File{Format: TorchLegacy, Opaque: l.opaque}
	return f, f.unwrap(root, set, &resolver{l.locate, m, b})
}

// read is the object in data, which begins at offset at of the mapped file.
func (l *torchLegacy) read(data []byte, at int64, b *budget) (root any, err error) {
	u := &unpickler{b: b, persistent: l.persistent}
	rest := data
	next := func() (any, error) {
		v, n, err := u.load(rest)
		rest = rest[n:]
		return v, err
	}
	if err := readHead(next); err != nil {
		return nil, err
	}
	if root, err = next(); err != nil {
		return nil, err
	}
	keys, err := next()
	if err != nil {
		return nil, fmt.Errorf("list of storages: %w", err)
	}
	l.opaque = u.opaqueNames()
	return root, l.readStorages(keys, rest, at+int64(len(data)-len(rest)))
}

// readHead reads magic number, version and system information; next reads a
// pickle.
func readHead(next func() (any, error)) error {
	magic, err := next()
	if err != nil {
		return err
	}
	if i, ok := magic.(*big.Int); !ok || i.String() != legacyMagic {
		return fmt.Errorf("is a pickle (of a %s), but not one of torch.save: the magic number is missing; save the weights with torch.save(model.state_dict(), path)", describe(magic))
	}
	version, err := next()
	if err != nil {
		return err
	}
	if version != legacyVersion {
		return fmt.Errorf("legacy protocol version is %s, %d is expected", describe(version), legacyVersion)
	}
	info, err := next()
	es, _ := entries(info)
	for _, e := range es {
		if e.key == "little_endian" && e.value == false {
			return errors.New("byte order is big-endian; only little-endian files are supported: load and save it on a little-endian machine")
		}
	}
	return err
}

// persistent answers the persistent ids of the object.
func (l *torchLegacy) persistent(id pyTuple) (any, error) {
	s, err := parseStorage(id)
	if err != nil {
		return nil, err
	}
	if l.roots[s.key] == nil {
		l.roots[s.key] = s
	}
	return s, nil
}

// readStorages walks over the storages in rest, which begins at offset at of
// the file.
func (l *torchLegacy) readStorages(keys any, rest []byte, at int64) error {
	list, ok := keys.(*pyList)
	if !ok {
		return fmt.Errorf("list of storages: it is a %s", describe(keys))
	}
	for i, k := range list.items {
		key, ok := k.(string)
		s := l.roots[key]
		if !ok || s == nil {
			return fmt.Errorf("list of storages: entry %d, %s, is no storage that the object names", i, describe(k))
		}
		if _, twice := l.regions[key]; twice {
			return fmt.Errorf("list of storages: %q is there twice", shorten(key))
		}
		if len(rest) < 8 {
			return fmt.Errorf("the file is truncated before storage %q (%d of %d)", shorten(key), i+1, len(list.items))
		}
		numel := binary.LittleEndian.Uint64(rest)
		rest, at = rest[8:], at+8
		item := uint64(s.element.size)
		if numel > uint64(len(rest))/item {
			return fmt.Errorf("the file is truncated in storage %q (%d of %d): %d elements of %d bytes are claimed, %d bytes are left",
				shorten(key), i+1, len(list.items), int64(numel), item, len(rest))
		}
		size := int64(numel * item)
		l.regions[key] = region{off: at, size: size}
		rest, at = rest[size:], at+size
	}
	return nil
}

// locate finds a storage that readStorages has found in the file.
func (l *torchLegacy) locate(s *storage) (region, error) {
	r, ok := l.regions[s.key]
	if !ok {
		return region{}, fmt.Errorf("storage %q is missing: the file's list of storages does not name it", shorten(s.key))
	}
	return r, nil
}
