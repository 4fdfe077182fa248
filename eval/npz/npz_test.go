package npz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const cases = "../testdata/stats-npz/"

// The sums of these files are compared with NumPy's in package eval; here the
// batch size must not matter, whatever the order and compression.
func TestBatchesEqualWhole(t *testing.T) {
	files, err := filepath.Glob(cases + "*.npz")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		if strings.Contains(path, "full_size") {
			continue // 8 million values: slow under the race detector
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range f.Names() {
			whole := readWith(t, f, name, math.MaxInt32)
			for _, rows := range []int{1, 3, 17} {
				if got := readWith(t, f, name, rows); !slices.Equal(got, whole) {
					t.Errorf("%s %s: batches of %d rows differ from one of all", path, name, rows)
				}
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func readWith(t *testing.T, f *File, name string, rows int) []float64 {
	t.Helper()
	a, err := f.Array(name)
	if err != nil {
		t.Fatal(err)
	}
	if rows > a.Rows() {
		rows = a.Rows()
	}
	var out []float64
	buf := make([]float64, rows*a.RowLen())
	for {
		n, err := ReadRows(a, buf)
		if err == io.EOF {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:n*a.RowLen()]...)
	}
}

// Each damaged file gives one error that names the file and the fault.
func TestDamagedFiles(t *testing.T) {
	for name, want := range map[string]string{
		"bad_crc":         "arr_0: the data is damaged: zip: checksum error",
		"bad_header":      "does not parse",
		"bad_magic":       `does not begin with "\x93NUMPY"`,
		"duplicate_entry": `two entries are named "arr_0.npy"`,
		"header_length":   "claims 4294967280 bytes",
		"huge_shape":      "larger than any file",
		"long_data":       "longer than its header says: shape (8, 8, 8, 3) of |u1 takes 1536 bytes, the file holds 3072",
		"missing_arr_0":   "missing arr_0; the file holds images",
		"negative_shape":  "negative axis",
		"not_a_zip":       "is not an .npz archive",
		"object_dtype":    "pickle",
		"short_data":      "shorter than its header says",
		"truncated":       "truncated",
	} {
		path := cases + "broken/" + name + ".npz"
		err := readArr0(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want one that names the file and says %q", name, err, want)
		}
	}
}

func readArr0(path string) (err error) {
	f, err := Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := f.Array("arr_0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	_, err = ReadAll[float64](a, 1<<24)
	return err
}

func TestDtypes(t *testing.T) {
	for descr, want := range map[string][]float64{
		"|b1": {1, 0}, "|u1": {1, 0}, "|i1": {-2, 3}, "<i2": {-2, 770}, ">i2": {-2, 770},
		"<u2": {65534, 770}, "<i4": {-2, 66051}, ">u4": {4294967294, 66051},
		"<i8": {-2, 1 << 40}, ">u8": {1 << 63, 1}, "<f2": {-1.5, 65504}, ">f2": {-1.5, 65504},
		"<f4": {-1.5, 0.25}, ">f4": {-1.5, 0.25}, "<f8": {-1.5, 1e300}, "=f8": {-1.5, 1e300},
	} {
		got, err := ReadAll[float64](npyOf(t, descr, want), 2)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", descr, got, err, want)
		}
	}
	for _, descr := range []string{"<c8", "<U4", "|S3", "|V8", "<M8[ns]", "<f16", "<f3", ""} {
		if _, err := newArray("x", npy("{'descr': '"+descr+"', 'fortran_order': False, 'shape': (0,)}", nil), 1<<20, 1<<20); err == nil {
			t.Errorf("dtype %q was read", descr)
		}
	}
}

// npyOf encodes values in a dtype by hand.
func npyOf(t *testing.T, descr string, values []float64) *Array {
	t.Helper()
	d, err := parseDtype(descr)
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for _, v := range values {
		var bits uint64
		switch {
		case d.Kind != 'f' && v < 0:
			bits = uint64(int64(v))
		case d.Kind != 'f':
			bits = uint64(v)
		case d.Size == 8:
			bits = math.Float64bits(v)
		case d.Size == 4:
			bits = uint64(math.Float32bits(float32(v)))
		default:
			bits = map[float64]uint64{-1.5: 0xbe00, 65504: 0x7bff}[v]
		}
		b := make([]byte, d.Size)
		for i := range b {
			at := i
			if d.Big {
				at = d.Size - 1 - i
			}
			b[at] = byte(bits >> (8 * i))
		}
		raw = append(raw, b...)
	}
	text := "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (2L,), }\n"
	stream := npy(text, raw)
	a, err := newArray(descr, stream, int64(10+len(text)+len(raw)), int64(10+len(text)+len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func npy(text string, raw []byte) io.ReadCloser {
	b := append([]byte(magic), 1, 0, byte(len(text)), byte(len(text)>>8))
	return io.NopCloser(bytes.NewReader(append(append(b, text...), raw...)))
}

func TestHeaders(t *testing.T) {
	// What numpy.lib.format.write_array_header_1_0 of NumPy 2.4 writes.
	const start = "\x93NUMPY\x01\x00v\x00"
	pad := func(s string) string { return start + s + strings.Repeat(" ", 128-11-len(s)) + "\n" }
	for _, c := range []struct {
		d     Dtype
		shape []int
		want  string
	}{
		{Uint8, []int{10, 32, 32, 3}, "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 32, 32, 3), }"},
		{Int64, []int{50000}, "{'descr': '<i8', 'fortran_order': False, 'shape': (50000,), }"},
		{Float64, []int{2048, 2048}, "{'descr': '<f8', 'fortran_order': False, 'shape': (2048, 2048), }"},
		{Float32, nil, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"},
	} {
		if got := encodeHeader(c.d, c.shape); string(got) != pad(c.want) {
			t.Errorf("got %q, want %q", got, pad(c.want))
		}
	}
	for _, bad := range []string{
		"", "{", "{}", "{'descr': '<f4', 'fortran_order': False}", "[1]",
		"{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
		"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (" + strings.Repeat("1,", 40) + ")}",
	} {
		if _, err := readHeader(npy(bad, nil)); err == nil {
			t.Errorf("header %q was read", bad)
		}
	}
}

func TestConversionsKeepValues(t *testing.T) {
	if _, err := ReadAll[uint8](npyOf(t, "<f4", []float64{1, 2}), 2); err == nil {
		t.Error("float32 was read as uint8")
	}
	if _, err := ReadAll[int64](npyOf(t, "<f4", []float64{1, 2}), 2); err == nil {
		t.Error("float32 was read as int64")
	}
	if _, err := ReadAll[int64](npyOf(t, "<u8", []float64{1 << 63, 2}), 2); err == nil {
		t.Error("2^63 was read as int64")
	}
	if _, err := ReadAll[float64](npyOf(t, "<f4", []float64{1, 2}), 1); err == nil {
		t.Error("two values were read where at most one was allowed")
	}
}

func TestZeroChecksum(t *testing.T) {
	z := &zeroSum{ReadCloser: io.NopCloser(strings.NewReader("damage"))}
	if _, err := io.ReadAll(z); err == nil || !strings.Contains(err.Error(), "CRC-32") {
		t.Errorf("got %v, want a checksum error", err)
	}
}

func TestBareArray(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.npy")
	data, err := binary.Append(encodeHeader(Float32, []int{2, 2}), binary.LittleEndian, []float32{1, 2, 3, 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := OpenArray(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadAll[float32](a, 4)
	if err := errors.Join(err, a.Close()); err != nil || !slices.Equal(got, []float32{1, 2, 3, 4}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "single .npy array") {
		t.Errorf("Open of an .npy file: %v", err)
	}
	if _, err := OpenArray(filepath.Dir(path)); err == nil {
		t.Error("a folder was opened")
	}
	if err := os.WriteFile(path, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArray(path); err == nil {
		t.Error("a cut file was opened")
	}
}
