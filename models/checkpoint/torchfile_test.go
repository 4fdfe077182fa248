package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// refused opens data, which must fail with all of want in one message.
func refused(t *testing.T, name string, data []byte, want ...string) {
	t.Helper()
	_, err := parseBytes(data)
	if err == nil {
		t.Errorf("%s: opens; want an error with %q", name, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: error %q, want one with %q", name, err, w)
		}
	}
}

// patched returns data with the bytes at off from the last (or the first)
// occurrence of mark replaced.
func patched(data []byte, mark string, last bool, off int, repl ...byte) []byte {
	at := bytes.Index(data, []byte(mark))
	if last {
		at = bytes.LastIndex(data, []byte(mark))
	}
	out := bytes.Clone(data)
	copy(out[at+off:], repl)
	return out
}

func TestBrokenArchives(t *testing.T) {
	good := torchZipOf(pairs{{"w", ramp4("0")}})
	if _, err := parseBytes(good); err != nil {
		t.Fatal(err)
	}
	const local, central = "PK\x03\x04", "PK\x01\x02"
	object := pickled(pairs{{"w", ramp4("0")}})
	pkl := item{name: "a/data.pkl", data: object}
	refused(t, "cut", good[:len(good)-30], "truncated", "download it again")
	refused(t, "no data.pkl", zipped(item{name: "arr_0.npy"}), "not of torch.save", `"arr_0.npy"`)
	refused(t, "empty archive", zipped(), "it holds nothing")
	refused(t, "two data.pkl", zipped(pkl, item{name: "b/data.pkl", data: object}), "2 entries named data.pkl")
	refused(t, "same entry twice", zipped(pkl, item{name: "a/data/0"}, item{name: "a/data/0"}), `two entries named "a/data/0"`)
	refused(t, "missing storage", zipped(pkl), `tensor "w"`, `storage "0" is missing`)
	refused(t, "short storage", zipped(pkl, item{name: "a/data/0", data: rampBytes(3)}), `tensor "w"`, `storage "0" is too short`, "12 bytes", "4 elements of float32")
	refused(t, "big-endian", torchZipOf(pairs{{"w", ramp4("0")}}, item{name: "a/byteorder", data: []byte("big")}), `byte order is "big"`)
	// Central directory record: method at 10, sizes at 20 and 24, flags at 8, header offset at 42; name "a/data/0" at 46.
	refused(t, "encrypted", patched(good, central, true, 8, 1), "encrypted")
	refused(t, "lzma", patched(good, central, true, 10, 14), "method 14 is not supported")
	refused(t, "sizes differ", patched(good, central, true, 24, 1), "sizes differ")
	refused(t, "too large", patched(good, central, true, 20, 0xf0, 0xff, 0xff, 0x7f, 0xf0, 0xff, 0xff, 0x7f), `"a/data/0"`, "outside the file")
	refused(t, "local header outside", patched(good, central, true, 42, 0xff, 0xff, 0xff, 0x7f), "local header is broken")
	refused(t, "no local header", patched(good, local, true, 0, 'X'), "local header is broken")
}

func TestDeflatedEntries(t *testing.T) {
	object := pickled(pairs{{"w", ramp4("0")}})
	deflated := zipped(item{"a/data.pkl", object, zip.Deflate}, item{"a/data/0", rampBytes(24), zip.Deflate})
	f, err := parseBytes(deflated)
	if err != nil {
		t.Fatal(err)
	}
	checkValues(t, "w", f.Tensors["w"], []float64{-1, -.75, -.5, -.25})
	size := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	const central = "PK\x01\x02"
	refused(t, "wrong CRC", patched(deflated, central, true, 16, 1, 2, 3, 4), "checksum error")
	refused(t, "claims less", patched(deflated, central, true, 24, size(50)...), "more than the 50 bytes")
	refused(t, "claims more", patched(deflated, central, true, 24, size(100)...), "fewer than the 100 bytes")
	refused(t, "claims the impossible", patched(deflated, central, true, 24, size(1<<30)...), "cannot hold the 1073741824")

	// A real bomb: 1 MB of zeros in 1 kB, more than this budget allows.
	bomb := zipped(item{"a/data.pkl", object, zip.Store}, item{"a/data/0", make([]byte, 1<<20), zip.Deflate})
	_, err = parseTorchZip(&mapping{data: bomb}, "", &budget{size: int64(len(bomb)), left: 200_000})
	if err == nil || !strings.Contains(err.Error(), "the decompressed entry needs 1048576 bytes of memory") {
		t.Errorf("bomb: error %v", err)
	}
}

func TestBrokenTensors(t *testing.T) {
	st := storageID("FloatStorage", "0", 24)
	rebuild := func(name string, args ...any) reduce {
		return reduce{global{"torch._utils", name}, tuple(args)}
	}
	for name, c := range map[string]struct {
		tensor any
		want   string
	}{
		"past the end":       {tensorV2(st, 21, ints(4), ints(1)), "needs elements [21, 21+4) of storage \"0\", which has 24"},
		"strided past":       {tensorV2(st, 0, ints(3, 3), ints(11, 1)), "needs elements [0, 0+25)"},
		"negative offset":    {tensorV2(st, -1, ints(4), ints(1)), "offset ≥ 0"},
		"negative shape":     {tensorV2(st, 0, ints(-4), ints(1)), "shape: element 0 is -4"},
		"negative stride":    {tensorV2(st, 3, ints(4), ints(-1)), "stride: element 0 is -1"},
		"too many elements":  {tensorV2(st, 0, ints(1<<40, 1<<40), ints(0, 0)), "too many elements"},
		"overflowing stride": {tensorV2(st, 0, ints(3, 3), ints(1<<62, 1)), "reaches too far"},
		"huge offset":        {tensorV2(st, 1<<62, ints(1), ints(1)), "needs elements"},
		"ranks differ":       {tensorV2(st, 0, ints(4), ints(1, 1)), "1 dimensions but 2 strides"},
		"rank 65":            {tensorV2(st, 0, ints(make([]int, 65)...), ints(make([]int, 65)...)), "at most 64"},
		"expanded bomb":      {tensorV2(st, 0, ints(1<<34), ints(0)), "a strided tensor needs 68719476736 bytes"},
		"shape of strings":   {tensorV2(st, 0, tuple{"4"}, ints(1)), `element 0 is string "4"`},
		"no storage":         {tensorV2("0", 0, ints(4), ints(1)), "wants a storage"},
		"few arguments":      {rebuild("_rebuild_tensor_v2", st), "1 arguments where 4 are needed"},
		"quantized":          {rebuild("_rebuild_qtensor", st), "quantized"},
		"nested":             {rebuild("_rebuild_nested_tensor", st), "is made by torch._utils._rebuild_nested_tensor"},
		"v3 without a dtype": {rebuild("_rebuild_tensor_v3", st, 0, ints(4), ints(1), false, nil, 3), "wants a dtype"},
	} {
		// Two of them: both are named.
		object := pairs{{"good", ramp4("0")}, {"x.1", c.tensor}, {"x.2", c.tensor}}
		refused(t, name, torchZipOf(object), `tensor "x.1": `, `tensor "x.2": `, c.want)
		refused(t, name+", legacy", legacyOf(object, "0"), `tensor "x.1": `, `tensor "x.2": `, c.want)
		// Beside the state dict it does no harm.
		f, err := parseBytes(torchZipOf(pairs{{"model", pairs{{"good", ramp4("0")}}}, {"opt", pairs{{"x", c.tensor}}}}))
		if err != nil || !slices.Equal(f.Tensors.Names(), []string{"good"}) {
			t.Errorf("%s beside the state dict: %v", name, err)
		}
	}
	for name, id := range map[string]persid{
		"unknown class":     storageID("StringStorage", "0", 4),
		"negative numel":    storageID("FloatStorage", "0", -1),
		"key is no string":  {tuple{"storage", global{"torch", "FloatStorage"}, 0, "cpu", 4}},
		"class is a string": {tuple{"storage", "FloatStorage", "0", "cpu", 4}},
	} {
		refused(t, name, torchZipOf(pairs{{"w", tensorV2(id, 0, ints(4), ints(1))}}), "storage")
	}
}

func TestManyFaultsAreCut(t *testing.T) {
	var object pairs
	for i := range 1000 {
		object = append(object, [2]any{fmt.Sprintf("w%03d", i), ramp4("missing")})
	}
	_, err := parseBytes(torchZipOf(object))
	if err == nil || strings.Count(err.Error(), "\n") != maxFaults || !strings.HasSuffix(err.Error(), "perhaps more") {
		t.Errorf("error %v", err)
	}
}

func TestBrokenLegacy(t *testing.T) {
	object := pairs{{"w", ramp4("0")}}
	good := legacyOf(object, "0")
	f, err := parseBytes(good)
	if err != nil {
		t.Fatal(err)
	}
	checkValues(t, "w", f.Tensors["w"], []float64{-1, -.75, -.5, -.25})
	refused(t, "cut in a storage", good[:len(good)-1], `truncated in storage "0" (1 of 1)`, "95 bytes are left")
	refused(t, "cut before a storage", good[:len(good)-97], `truncated before storage "0"`)
	refused(t, "missing storage", legacyOf(object), `tensor "w"`, `storage "0" is missing`)
	refused(t, "unnamed storage", legacyOf(object, "0", "1"), `string "1", is no storage that the object names`)
	refused(t, "storage twice", legacyOf(object, "0", "0"), `"0" is there twice`)
	refused(t, "key is a number", legacyOf(object, 0), "entry 0, 0, is no storage")
	refused(t, "big-endian", append(legacyHead(false), pickled(object)...), "big-endian")
	refused(t, "plain pickle", pickled(pairs{{"a", 1}}), "is a pickle (of a dict of 1), but not one of torch.save")
	magic := pickled(code("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
	refused(t, "other version", append(magic, pickled(1002)...), "protocol version is 1002, 1001 is expected")
	list := append(append(legacyHead(true), pickled(object)...), pickled("0")...)
	refused(t, "no list", list, `it is a string "0"`)
	negative := bytes.Clone(good)
	copy(negative[len(negative)-104:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	refused(t, "negative size", negative, "-1 elements of 4 bytes are claimed")
	short := bytes.Clone(good[:len(good)-84])
	copy(short[len(short)-20:], "\x03\x00\x00\x00\x00\x00\x00\x00")
	refused(t, "short storage", short, `storage "0" is too short: 12 bytes`)
}

// Views of storages, which PyTorch before 0.4 wrote: (key, offset, size).
func TestLegacyViews(t *testing.T) {
	st := func(more ...any) persid { return storageID("FloatStorage", "0", 24, more...) }
	f, err := parseBytes(legacyOf(pairs{
		{"whole", tensorV2(st(nil), 0, ints(24), ints(1))},
		{"view", tensorV2(st(tuple{"1", 4, 6}), 2, ints(4), ints(1))},
	}, "0"))
	if err != nil {
		t.Fatal(err)
	}
	checkValues(t, "view", f.Tensors["view"], []float64{.5, .75, 1, 1.25})
	if whole, view := f.Tensors["whole"], f.Tensors["view"]; view.Offset != whole.Offset+4*6 || view.Raw != nil {
		t.Errorf("view at %d of the file, the storage at %d", view.Offset, whole.Offset)
	}
	refused(t, "past the view", legacyOf(pairs{{"w", tensorV2(st(tuple{"1", 4, 6}), 3, ints(4), ints(1))}}, "0"), "which has 6")
	refused(t, "view past the storage", legacyOf(pairs{{"w", tensorV2(st(tuple{"1", 20, 6}), 0, ints(4), ints(1))}}, "0"), "lies outside its 24 elements")
	refused(t, "broken view", legacyOf(pairs{{"w", tensorV2(st(tuple{"1"}), 0, ints(4), ints(1))}}, "0"), "view metadata")
}
