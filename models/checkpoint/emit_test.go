package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// A tiny pickler (protocol 2) for what PyTorch itself would never write.
type (
	pairs  [][2]any                      // dict
	list   []any                         // list
	tuple  []any                         // tuple
	global struct{ module, name string } // a class or function
	reduce struct{ function, args any }  // function(*args)
	build  struct{ object, state any }   // object.__setstate__(state)
	persid struct{ id any }              // persistent id
	code   string                        // opcodes as they are
	filled struct {
		object any
		values pairs
	} // object[k] = v
)

func pickled(v any) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x02")
	emit(&b, v)
	b.WriteByte('.')
	return b.Bytes()
}

func emit(b *bytes.Buffer, v any) {
	all := func(vs ...any) {
		for _, v := range vs {
			emit(b, v)
		}
	}
	switch v := v.(type) {
	case nil:
		b.WriteByte('N')
	case bool:
		b.WriteByte(map[bool]byte{true: 0x88, false: 0x89}[v])
	case int:
		if int(int32(v)) == v {
			b.Write(binary.LittleEndian.AppendUint32([]byte{'J'}, uint32(v)))
		} else {
			b.Write(binary.LittleEndian.AppendUint64([]byte{0x8a, 8}, uint64(v)))
		}
	case float64:
		b.Write(binary.BigEndian.AppendUint64([]byte{'G'}, math.Float64bits(v)))
	case string:
		b.Write(binary.LittleEndian.AppendUint32([]byte{'X'}, uint32(len(v))))
		b.WriteString(v)
	case code:
		b.WriteString(string(v))
	case global:
		fmt.Fprintf(b, "c%s\n%s\n", v.module, v.name)
	case list:
		all(code("]("))
		all(v...)
		all(code("e"))
	case tuple:
		all(code("("))
		all(v...)
		all(code("t"))
	case pairs:
		all(filled{code("}"), v})
	case filled:
		all(v.object, code("("))
		for _, kv := range v.values {
			all(kv[0], kv[1])
		}
		all(code("u"))
	case reduce:
		all(v.function, v.args, code("R"))
	case build:
		all(v.object, v.state, code("b"))
	case persid:
		all(v.id, code("Q"))
	default:
		panic(fmt.Sprintf("emit: %T", v))
	}
}

// orderedDict is an empty collections.OrderedDict.
var orderedDict = reduce{global{"collections", "OrderedDict"}, tuple{}}

// storageID is a persistent id as _save writes it.
func storageID(class, key string, numel int, more ...any) persid {
	return persid{append(tuple{"storage", global{"torch", class}, key, "cpu", numel}, more...)}
}

func ints(vs ...int) tuple {
	t := tuple{}
	for _, v := range vs {
		t = append(t, v)
	}
	return t
}

// tensorV2 is a call of _rebuild_tensor_v2.
func tensorV2(storage any, offset int, shape, stride tuple) reduce {
	return reduce{global{"torch._utils", "_rebuild_tensor_v2"}, tuple{storage, offset, shape, stride, false, orderedDict}}
}

// ramp4 is a float32 vector of 4 elements in storage key.
func ramp4(key string) reduce {
	return tensorV2(storageID("FloatStorage", key, 4), 0, ints(4), ints(1))
}

// rampBytes are n float32: i/4 - 1.
func rampBytes(n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i)/4-1))
	}
	return b
}

// An item is an entry of a zip archive.
type item struct {
	name   string
	data   []byte
	method uint16
}

// zipped is an archive of items.
func zipped(items ...item) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range items {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: e.method})
		if err != nil {
			panic(err)
		}
		if _, err := f.Write(e.data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// torchZipOf is a file of torch.save that holds object, with storage "0": the
// ramp of 24 elements.
func torchZipOf(object any, more ...item) []byte {
	items := []item{{name: "a/data.pkl", data: pickled(object)}, {name: "a/data/0", data: rampBytes(24)}}
	return zipped(append(items, more...)...)
}

// legacyOf is a legacy file of object and the storages in keys, each the ramp
// of 24 float32.
func legacyOf(object any, keys ...any) []byte {
	b := legacyHead(true)
	b = append(b, pickled(object)...)
	b = append(b, pickled(list(keys))...)
	for range keys {
		b = binary.LittleEndian.AppendUint64(b, 24)
		b = append(b, rampBytes(24)...)
	}
	return b
}

func legacyHead(littleEndian bool) []byte {
	b := pickled(code("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
	b = append(b, pickled(1001)...)
	return append(b, pickled(pairs{{"protocol_version", 1001}, {"little_endian", littleEndian}})...)
}

// parseBytes opens a checkpoint that lies in memory.
func parseBytes(data []byte) (*File, error) { return parseSet(data, "") }

// parseSet is parseBytes for a set of weights.
func parseSet(data []byte, set string) (*File, error) {
	return parse(&mapping{path: "memory.pt", data: data}, set, newBudget(int64(len(data))))
}

// write puts data into a file of a fresh folder.
func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a checkpoint that must be good, until the test ends.
func open(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
