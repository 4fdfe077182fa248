package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// safetensorsOf is a header with its length, and n bytes of data.
func safetensorsOf(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func TestOfficialMetadata(t *testing.T) {
	f := open(t, "testdata/official.safetensors")
	if want := map[string]string{"format": "pt", "note": "é"}; !maps.Equal(f.Metadata, want) {
		t.Errorf("metadata %v, want %v", f.Metadata, want)
	}
}

func TestSafetensorsHeaders(t *testing.T) {
	const a = `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for name, c := range map[string]struct {
		header string
		n      int
	}{
		"one tensor":              {`{` + a + `}`, 8},
		"blanks after the header": {`{` + a + `}      `, 8},
		"no tensors":              {`{}`, 0},
		"metadata only":           {`{"__metadata__":{"k":"v"}}`, 0},
		"unordered":               {`{"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},` + a + `}`, 9},
		"empty tensors":           {`{"e":{"dtype":"F64","shape":[0,5],"data_offsets":[8,8]},` + a + `,"d":{"shape":[3,0],"data_offsets":[0,0],"dtype":"I8"}}`, 8},
		"scalar":                  {`{"s":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}`, 2},
		"unknown field":           {`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":{"x":[1]}}}`, 8},
	} {
		if _, err := parseBytes(safetensorsOf(c.header, c.n)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		header string
		n      int
		want   []string
	}{
		"not JSON":         {`{"a":`, 8, []string{"broken JSON"}},
		"cut JSON":         {`{` + a, 8, []string{"broken JSON: unexpected EOF"}},
		"trailing comma":   {`{` + a + `,}`, 8, []string{"broken JSON"}},
		"two objects":      {`{` + a + `}{}`, 8, []string{"follows after the JSON object"}},
		"invalid UTF-8":    {"{\"\xff\":1}", 0, []string{"UTF-8"}},
		"key twice":        {`{` + a + `,` + a + `}`, 8, []string{`key "a" is there twice`}},
		"field twice":      {`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8, []string{`tensor "a"`, `key "dtype" is there twice`}},
		"no dtype":         {`{"a":{"shape":[2],"data_offsets":[0,8]}}`, 8, []string{`tensor "a"`, "are needed"}},
		"no shape":         {`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8, []string{"are needed"}},
		"one offset":       {`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}`, 8, []string{"are needed"}},
		"three offsets":    {`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}`, 8, []string{"longer than 2"}},
		"dtype a number":   {`{"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}}`, 8, []string{"dtype is 4"}},
		"negative shape":   {`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8, []string{`tensor "a": -2 is not an integer`}},
		"fractional shape": {`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`, 8, []string{"2.0 is not an integer"}},
		"shape of strings": {`{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}`, 8, []string{"2 is not an integer"}},
		"shape a number":   {`{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}`, 8, []string{"2 where [ is expected"}},
		"rank 65":          {`{"a":{"dtype":"F32","shape":[` + strings.Repeat("1,", 64) + `2],"data_offsets":[0,8]}}`, 8, []string{"longer than 64"}},
		"overflow":         {`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}`, 8, []string{`tensor "a"`, "do not fit shape"}},
		"size differs":     {`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8, []string{"[0, 8] do not fit shape [3] of F32"}},
		"backwards":        {`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, 8, []string{"do not fit"}},
		"hole before":      {`{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12, []string{`tensor "a"`, "begin at 4 where the tensor before ends at 0"}},
		"hole between":     {`{` + a + `,"b":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}}`, 10, []string{`tensor "b"`, "leave gaps"}},
		"overlap":          {`{` + a + `,"b":{"dtype":"U8","shape":[1],"data_offsets":[7,8]}}`, 8, []string{`tensor "b"`, "begin at 7 where the tensor before ends at 8"}},
		"bytes behind":     {`{` + a + `}`, 10, []string{"2 bytes follow after the last tensor"}},
		"truncated":        {`{` + a + `}`, 7, []string{"truncated: the tensors need 8 bytes after the header, 7 are there"}},
		"fp8":              {`{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"v":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[2,4]}}`, 4, []string{`tensor "w": dtype F8_E4M3 is not supported`, `tensor "v": dtype F8_E5M2`}},
		"metadata numbers": {`{"__metadata__":{"step":3}}`, 0, []string{`__metadata__: "step" is 3`}},
		"metadata a list":  {`{"__metadata__":["x"]}`, 0, []string{"[ where { is expected"}},
		"tensor a list":    {`{"a":[1]}`, 0, []string{`tensor "a": [ where { is expected`}},
	} {
		refused(t, name, safetensorsOf(c.header, c.n), c.want...)
	}
	long := safetensorsOf(`{`+a+`}`, 8)
	binary.LittleEndian.PutUint64(long, maxHeader+1)
	refused(t, "header of 100 MB", long, "100000001 bytes is claimed")
	binary.LittleEndian.PutUint64(long, 1000)
	refused(t, "header past the end", long, "truncated: the safetensors header has 1000 bytes")
	binary.LittleEndian.PutUint64(long, 1<<63)
	refused(t, "negative header", long, "is claimed")
}

func TestWriteSafetensors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.safetensors")
	tensors := StateDict{
		"z": FromFloat32([]float32{1, 2, 3, 4, 5, 6}, 2, 3), "b": FromInt64([]int64{-1, 1 << 60}, 2), "s": FromFloat64([]float64{.5}),
		"half": FromBytes(F16, []byte{0, 0x3c, 0, 0xc0}, 2), "none": FromFloat32(nil, 0, 4), "é\"\n": FromBytes(Bool, []byte{1}, 1),
	}
	if err := WriteSafetensors(path, tensors, map[string]string{"k": "v <&>"}); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	if f.Metadata["k"] != "v <&>" || !slices.Equal(f.Tensors.Names(), tensors.Names()) {
		t.Errorf("metadata %v, names %q", f.Metadata, f.Tensors.Names())
	}
	at := int64(0)
	for _, name := range tensors.Names() {
		got, want := f.Tensors[name], tensors[name]
		g, err := got.Bytes()
		if err != nil || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(g, want.Raw) {
			t.Errorf("%q: %+v, %v; want %+v", name, got, err, want)
		}
		if got.Offset < at {
			t.Errorf("%q lies at %d, before the end %d of the name before", name, got.Offset, at)
		}
		at = got.Offset + got.Size
	}
	// What was read is written again, over the very file that is mapped.
	before, _ := os.ReadFile(path)
	if err := WriteSafetensors(path, f.Tensors, f.Metadata); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("writing what was read changes the file")
	}
	if n := binary.LittleEndian.Uint64(before); n%8 != 0 {
		t.Errorf("the data begin at %d, no multiple of 8", 8+n)
	}
}

// A file that cannot be written whole is not there, and the one that was there
// stays.
func TestWriteIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.safetensors")
	if err := WriteSafetensors(path, StateDict{"a": FromFloat32([]float32{1}, 1)}, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	closed, err := Open("testdata/views.pt")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, c := range map[string]struct {
		tensors StateDict
		want    []string
	}{
		"closed source":   {StateDict{"a": FromFloat32([]float32{1}, 1), "b": closed.Tensors["base"]}, []string{`tensor "b"`, "closed"}},
		"missing source":  {StateDict{"b": {DType: F32, Shape: []int{1}, Size: 4, File: "nowhere.bin"}}, []string{`tensor "b"`, "no such file"}},
		"shapes":          {StateDict{"a": FromFloat32([]float32{1}, 2), "b": FromFloat32([]float32{1}, -1)}, []string{`tensor "a": 4 bytes where shape [2] of F32 has 8`, `tensor "b": shape [-1] is not possible`}},
		"unknown dtype":   {StateDict{"a": FromBytes("F8_E4M3", []byte{1}, 1)}, []string{`dtype "F8_E4M3" is not supported`}},
		"forbidden name":  {StateDict{"__metadata__": FromFloat32([]float32{1}, 1)}, []string{"cannot be named __metadata__"}},
		"raw of two size": {StateDict{"a": {DType: U8, Shape: []int{1}, Size: 1, Raw: []byte{1, 2}}}, []string{"2 bytes in memory where Size says 1"}},
	} {
		err := WriteSafetensors(path, c.tensors, nil)
		for _, w := range append(c.want, path) {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %v, want one with %q", name, err, w)
			}
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the file has changed", name)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("files left behind: %v", files)
	}
	err = WriteSafetensors(filepath.Join(dir, "no", "where"), StateDict{}, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
