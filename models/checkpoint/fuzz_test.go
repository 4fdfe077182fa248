package checkpoint

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
)

// examine checks what holds of every file that opens: each tensor has the
// bytes that its shape says, and they can be read.
func examine(t *testing.T, f *File) {
	t.Helper()
	for name, tensor := range f.Tensors {
		b, err := tensor.Bytes()
		if err != nil || len(b) != tensor.Len()*tensor.DType.Size() || int64(len(b)) != tensor.Size {
			t.Fatalf("%q: %d bytes, %v: %+v", name, len(b), err, tensor)
		}
		if len(b) > 1<<20 {
			continue
		}
		if v, err := tensor.Float32(); err != nil || len(v) != tensor.Len() {
			t.Fatalf("%q: %d values, %v", name, len(v), err)
		}
	}
}

// garbageFactor bounds the bytes that reading allocates for each that it reserved in
// its budget: slices and maps grow by copies, which TotalAlloc counts
// (TestBudgetCoversObjects, TestBudgetCoversTensors).
const garbageFactor = 3

// headerFactor bounds those of each byte of a file that are in no budget: a header of
// safetensors, the directory of an archive.
const headerFactor = 256

// within calls read, which reads size bytes, and holds what it allocates against what
// it reserved in the budget of such a file, which is all that it may have.
func within(t *testing.T, size int, read func(b *budget)) {
	t.Helper()
	fuzzing.Within(t, size, func() int64 {
		b := newBudget(int64(size))
		read(b)
		return garbageFactor * (b.most - b.left)
	})
}

// fuzzBytes opens data. No input may panic: parse would turn that into an
// error, which only a fault of the disk should need.
func fuzzBytes(t *testing.T, data []byte) {
	if len(data) > 1<<20 {
		return
	}
	var f *File
	var err error
	fuzzing.Within(t, len(data), func() int64 {
		b := newBudget(int64(len(data)))
		f, err = parse(&mapping{path: "memory.pt", data: data}, "", b)
		return garbageFactor*(b.most-b.left) + headerFactor*int64(len(data))
	})
	if err != nil {
		if strings.Contains(err.Error(), "the content is broken") {
			t.Fatal(err)
		}
		return
	}
	examine(t, f)
}

// addFiles seeds with the files of testdata that match pattern.
func addFiles(f *testing.F, pattern string) {
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		f.Fatal(pattern, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// FuzzPickle reads a pickle as the object of a file with one storage of 96
// bytes under every key.
func FuzzPickle(f *testing.F) {
	st := storageID("FloatStorage", "0", 24, nil)
	for _, object := range []any{
		pairs{{"w", ramp4("0")}}, pairs{{"w", tensorV2(st, 3, ints(2, 3), ints(3, 2))}},
		pairs{{"ema", filled{orderedDict, pairs{{"module.w", ramp4("0")}}}}, {"model", pairs{}}, {"args", reduce{global{"argparse", "Namespace"}, tuple{}}}},
		reduce{global{"collections", "OrderedDict"}, tuple{list{list{"w", ramp4("0")}}}},
		pairs{{"a", 1 << 40}, {"b", .5}, {"c", true}, {"d", nil}, {"e", code("\x8f(K\x01\x90")}, {"f", code("(K\x01\x91")}, {"g", code("\x8a\x00")}},
		code("\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94]\x94K\x01as"), code("(dp0\nS'a'\nI1\nsVb\nL2L\ns(lp1\nF1.5\naa."),
		pairs{{"w", reduce{global{"torch._tensor", "_rebuild_from_type_v2"}, tuple{global{"torch._utils", "_rebuild_tensor_v2"}, nil, ramp4("0").args, nil}}}},
	} {
		f.Add(pickled(object))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		m := &mapping{path: "memory.pt", data: rampBytes(24)}
		file := &File{}
		var err error
		within(t, len(data), func(b *budget) {
			u := &unpickler{b: b, persistent: func(id pyTuple) (any, error) { return parseStorage(id) }}
			root, n, errLoad := u.load(data)
			if err = errLoad; err != nil {
				return
			}
			if n < 1 || n > len(data) || data[n-1] != '.' {
				t.Fatalf("the pickle is said to have %d of %d bytes", n, len(data))
			}
			err = file.unwrap(root, "", &resolver{everyStorage{}.locate, m, b})
		})
		if err != nil {
			return
		}
		for name, tensor := range file.Tensors {
			tensor.m = m
			file.Tensors[name] = tensor
		}
		examine(t, file)
	})
}

// everyStorage finds 96 bytes under every key.
type everyStorage struct{}

func (everyStorage) locate(*storage) (region, error) { return region{size: 96}, nil }

func FuzzTorch(f *testing.F) {
	addFiles(f, "*.pt")
	object := pairs{{"w", ramp4("0")}, {"v", tensorV2(storageID("FloatStorage", "0", 24), 3, ints(2, 3), ints(3, 2))}}
	f.Add(torchZipOf(object))
	f.Add(legacyOf(object, "0"))
	f.Add(legacyOf(pairs{{"w", tensorV2(storageID("FloatStorage", "0", 24, tuple{"1", 4, 6}), 2, ints(4), ints(1))}}, "0"))
	f.Fuzz(fuzzBytes)
}

// FuzzSafetensors varies the header, whose length is then made right, and the
// number of bytes that follow.
func FuzzSafetensors(f *testing.F) {
	official, err := os.ReadFile("testdata/official.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(official)
	f.Add(official[8:8+n], uint16(len(official)-8-int(n)))
	f.Add([]byte(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}  `), uint16(8))
	f.Add([]byte(`{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":[{}]}}`), uint16(1))
	f.Add([]byte(`{"a":{"dtype":"F16","shape":[0,9223372036854775807],"data_offsets":[0,0]}}`), uint16(0))
	f.Fuzz(func(t *testing.T, header []byte, n uint16) {
		fuzzBytes(t, safetensorsOf(string(header), int(n)))
		fuzzBytes(t, header) // as it is, whatever it is
	})
}
