package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/nlpodyssey/gopickle/types"
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
	roots   map[string]*storage // as first named by the object: that dtype's size counts
	regions map[string]region
}

func parseTorchLegacy(m *mapping, b *budget) (*File, error) {
	l := &torchLegacy{roots: map[string]*storage{}, regions: map[string]region{}}
	u := &unpickler{b: b, persistent: l.persistent}
	rest, err := l.readHead(u, m.data)
	if err != nil {
		return nil, err
	}
	root, n, err := u.load(rest)
	if err != nil {
		return nil, err
	}
	rest = rest[n:]
	keys, n, err := u.load(rest)
	if err != nil {
		return nil, fmt.Errorf("list of storages: %w", err)
	}
	rest = rest[n:]
	if err := l.readStorages(keys, rest, int64(len(m.data)-len(rest))); err != nil {
		return nil, err
	}
	f := &File{Format: TorchLegacy, Opaque: u.opaqueNames()}
	return f, f.unwrap(root, &resolver{src: l, m: m, b: b})
}

// readHead reads magic number, version and system information, and returns
// what follows.
func (l *torchLegacy) readHead(u *unpickler, data []byte) ([]byte, error) {
	magic, n, err := u.load(data)
	if err != nil {
		return nil, err
	}
	if i, ok := magic.(*big.Int); !ok || i.String() != legacyMagic {
		return nil, fmt.Errorf("is a pickle (of a %s), but not one of torch.save: the magic number is missing; save the weights with torch.save(model.state_dict(), path)", describe(magic))
	}
	data = data[n:]
	version, n, err := u.load(data)
	if err != nil {
		return nil, err
	}
	if version != legacyVersion {
		return nil, fmt.Errorf("legacy protocol version is %s, %d is expected", describe(version), legacyVersion)
	}
	data = data[n:]
	info, n, err := u.load(data)
	if err != nil {
		return nil, err
	}
	es, _ := entries(info)
	for _, e := range es {
		if e.Key == "little_endian" && e.Value == false {
			return nil, errors.New("byte order is big-endian; only little-endian files are supported: load and save it on a little-endian machine")
		}
	}
	return data[n:], nil
}

// persistent answers the persistent ids of the object.
func (l *torchLegacy) persistent(id types.Tuple) (any, error) {
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
	list, ok := keys.(*types.List)
	if !ok {
		return fmt.Errorf("list of storages: it is a %s", describe(keys))
	}
	for i, k := range *list {
		key, ok := k.(string)
		s := l.roots[key]
		if !ok || s == nil {
			return fmt.Errorf("list of storages: entry %d, %s, is no storage that the object names", i, describe(k))
		}
		if _, twice := l.regions[key]; twice {
			return fmt.Errorf("list of storages: %q is there twice", shorten(key))
		}
		if len(rest) < 8 {
			return fmt.Errorf("the file is truncated before storage %q (%d of %d)", shorten(key), i+1, len(*list))
		}
		numel := binary.LittleEndian.Uint64(rest)
		rest, at = rest[8:], at+8
		item := uint64(s.element.size)
		if numel > uint64(len(rest))/item {
			return fmt.Errorf("the file is truncated in storage %q (%d of %d): %d elements of %d bytes are claimed, %d bytes are left",
				shorten(key), i+1, len(*list), int64(numel), item, len(rest))
		}
		size := int64(numel * item)
		l.regions[key] = region{off: at, size: size}
		rest, at = rest[size:], at+size
	}
	return nil
}

// locate finds a storage that readStorages passed.
func (l *torchLegacy) locate(s *storage) (region, error) {
	r, ok := l.regions[s.key]
	if !ok {
		return region{}, fmt.Errorf("storage %q is missing: the file's list of storages does not name it", shorten(s.key))
	}
	return r, nil
}
