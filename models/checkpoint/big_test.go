package checkpoint

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A sparseWriter leaves holes in the file where zeros are written, so that
// gigabytes cost nothing.
type sparseWriter struct {
	f *os.File
	n int64
}

var zeros [1 << 20]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	if len(p) == len(zeros) && &p[0] == &zeros[0] {
		w.n += int64(len(p))
		return len(p), nil
	}
	n, err := w.f.WriteAt(p, w.n)
	w.n += int64(n)
	return n, err
}

// bigTorch makes a file of torch.save with a state dict of the given number
// of float32 tensors of mib MiB each, all zero but for the first element of
// the last, which is 1. Each is 1024 wide.
func bigTorch(t testing.TB, tensors, mib int) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "big.pt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	object := pairs{}
	for i := range tensors {
		st := storageID("FloatStorage", fmt.Sprint(i), mib<<18)
		object = append(object, [2]any{fmt.Sprintf("blocks.%d.weight", i), tensorV2(st, 0, ints(mib<<8, 1024), ints(1024, 1))})
	}
	sparse := &sparseWriter{f: f}
	z := zip.NewWriter(sparse)
	entry := func(name string, size int) io.Writer {
		w, err := z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store, CompressedSize64: uint64(size), UncompressedSize64: uint64(size)})
		if err == nil {
			err = z.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	put := func(w io.Writer, b []byte) {
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	pkl := pickled(object)
	put(entry("big/data.pkl", len(pkl)), pkl)
	put(entry("big/byteorder", 6), []byte("little"))
	for i := range tensors {
		w := entry(fmt.Sprintf("big/data/%d", i), mib<<20)
		for m := range mib {
			if i == tensors-1 && m == 0 {
				one := bytes.Clone(zeros[:])
				one[2], one[3] = 0x80, 0x3f
				put(w, one)
				continue
			}
			// Past the zip writer's buffer, which would hide the holes.
			if err := z.Flush(); err != nil {
				t.Fatal(err)
			}
			put(w, zeros[:])
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A checkpoint of 2.2 GB, the size of ADM 256², opens in less than half a
// second, and without reading it.
func TestOpensAtOnce(t *testing.T) {
	path := bigTorch(t, 600, 4)
	if info, err := os.Stat(path); err != nil || info.Size() < 2_200_000_000 {
		t.Fatalf("the test file has %v bytes, %v", info.Size(), err)
	}
	start := time.Now()
	f, err := Open(path)
	took := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if took > 500*time.Millisecond {
		t.Errorf("opening took %v, 500 ms is the limit", took)
	}
	if len(f.Tensors) != 600 {
		t.Errorf("%d tensors, want 600", len(f.Tensors))
	}
	b, err := f.Tensors["blocks.599.weight"].Bytes()
	if err != nil || len(b) != 4<<20 || !bytes.Equal(b[:5], []byte{0, 0, 0x80, 0x3f, 0}) {
		t.Errorf("the last tensor: %d bytes, % x, %v", len(b), b[:min(len(b), 5)], err)
	}
}

// Beyond 4 GiB sizes and offsets are in the zip64 records.
func TestZip64(t *testing.T) {
	path := bigTorch(t, 3, 2100)
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Size < 6<<30 || st.Blocks*512 > 1<<30 {
		t.Fatalf("the test file has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	f := open(t, path)
	last := f.Tensors["blocks.2.weight"]
	if last.Offset < 4<<30 || last.Size != 2100<<20 {
		t.Errorf("the last tensor has %d bytes at %d", last.Size, last.Offset)
	}
	head := last
	head.Shape, head.Size = []int{2}, 8
	checkValues(t, "blocks.2.weight", head, []float64{1, 0})
}

func BenchmarkOpen(b *testing.B) {
	for name, path := range map[string]string{"2.2GB": bigTorch(b, 600, 4), "12Tensors": "testdata/dtypes-p2.pt"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

func BenchmarkFloat32(b *testing.B) {
	for _, d := range []DType{F32, F16, BF16, F64} {
		raw := make([]byte, 1<<20*d.Size())
		tensor := FromBytes(d, raw, 1<<20)
		b.Run(string(d), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := tensor.Float32(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGather(b *testing.B) {
	src := make([]byte, 4<<20)
	dst := make([]byte, 4<<20)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		gather(dst, src, []int64{1024, 1024}, []int64{1, 1024}, 4)
	}
}
