package ort

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

func TestProducts(t *testing.T) {
	p, err := NewProducts(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {64, 33, 129}, {2, 3, 0}, {0, 3, 2}} {
		m, n, k := s[0], s[1], s[2]
		a, b := make([]float64, m*k), make([]float64, n*k)
		for i := range a {
			a[i] = r.NormFloat64()
		}
		for i := range b {
			b[i] = r.NormFloat64()
		}
		got, got32 := make([]float64, m*n), make([]float32, m*n)
		if err := errors.Join(p.Mul64(got, a, b, m, n, k), p.Mul32(got32, to32(a), to32(b), m, n, k)); err != nil {
			t.Fatal(err)
		}
		for i := range m {
			for j := range n {
				want, size := 0.0, 0.0
				for l := range k {
					want += a[i*k+l] * b[j*k+l]
					size += math.Abs(a[i*k+l] * b[j*k+l])
				}
				if d := math.Abs(got[i*n+j] - want); d > 1e-14*size*float64(k+1) {
					t.Fatalf("float64 %v: element %d,%d is off by %g", s, i, j, d)
				}
				if d := math.Abs(float64(got32[i*n+j]) - want); d > 1.2e-7*size*float64(k+1) {
					t.Fatalf("float32 %v: element %d,%d is off by %g", s, i, j, d)
				}
			}
		}
	}
	if err := p.Mul32(make([]float32, 3), make([]float32, 4), make([]float32, 4), 2, 2, 2); err == nil {
		t.Error("a destination that is too short was accepted")
	}
}

// Products end with the context of who made them.
func TestProductsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := NewProducts(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cancel()
	if err := p.Mul32(make([]float32, 1), []float32{1}, []float32{1}, 1, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := NewProducts(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("made after the end: %v", err)
	}
}

// TestMul8 holds products of bytes against integers, and against the promise of
// Bytes that the extremes neither overflow nor saturate.
func TestMul8(t *testing.T) {
	p, err := NewProducts(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.Bytes() {
		if err := p.Mul8(make([]int32, 1), []uint8{1}, []int8{1}, 1, 1, 1); err == nil {
			t.Error("products of bytes that are not exact")
		}
		t.Skip("no exact products of bytes on this processor")
	}
	r := rand.New(rand.NewPCG(3, 3))
	for _, s := range [][3]int{{1, 1, 1}, {7, 5, 3}, {64, 130, 257}, {3, 200, 2048}} {
		m, n, k := s[0], s[1], s[2]
		a, b, got := make([]uint8, m*k), make([]int8, n*k), make([]int32, m*n)
		for i := range a {
			a[i] = []uint8{0, 1, 128, 255, uint8(r.IntN(256))}[r.IntN(5)]
		}
		for i := range b {
			b[i] = []int8{-127, 0, 127, int8(r.IntN(255) - 127)}[r.IntN(4)]
		}
		if err := p.Mul8(got, a, b, m, n, k); err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			want := int32(0)
			for l := range k {
				want += (int32(a[i/n*k+l]) - 128) * int32(b[l*n+i%n])
			}
			if v != want {
				t.Fatalf("%v: element %d is %d, expected %d", s, i, v, want)
			}
		}
	}
}

func to32(a []float64) []float32 {
	r := make([]float32, len(a))
	for i, x := range a {
		r[i] = float32(x)
	}
	return r
}

// doubling is a graph without weights: y = x + x, x [N,2].
func doubling(t testing.TB, opt Options) *Session {
	t.Helper()
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, onnx.Batch, 2)
		m.Output("y", m.Add(x, x))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestRunChecksInputs(t *testing.T) {
	s := doubling(t, Options{})
	ctx := context.Background()
	x := Floats(tensor.Of([]float32{1, 2, 3, 4}, 2, 2))
	out, err := s.Run(ctx, map[string]Array{"x": x})
	if err != nil || out["y"].Tensor().Data[3] != 8 || out["y"].Shape[0] != 2 {
		t.Fatalf("%v %v", out, err)
	}
	for _, c := range []struct {
		in   map[string]Array
		want string
	}{
		{nil, "ort: input x [-1 2] is missing"},
		{map[string]Array{"x": {Shape: []int{1, 2}, Data: []int64{1, 2}}}, "ort: input x holds []int64, the graph wants F32"},
		{map[string]Array{"x": {Shape: []int{1, 3}, Data: []float32{1, 2, 3}}}, "ort: input x has shape [1 3], the graph wants [1 2]"},
		{map[string]Array{"x": {Shape: []int{2}, Data: []float32{1, 2}}}, "ort: input x has shape [2], the graph wants [0 2]"},
		{map[string]Array{"x": {Shape: []int{2, 2}, Data: []float32{1, 2}}}, "ort: x: 2 values for shape [2 2]"},
	} {
		if _, err := s.Run(ctx, c.in); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestPreparedOnce opens a graph whose weights cannot be read: the first call
// says so, and every other says the same.
func TestPreparedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weights.safetensors")
	weights := checkpoint.StateDict{"weight": {File: path, DType: checkpoint.F32, Shape: []int{64, 64}, Size: 64 * 64 * 4}}
	m, err := onnx.Build(weights, func(m *onnx.Module) {
		m.Output("y", m.MatMul(m.Input("x", checkpoint.F32, onnx.Batch, 64), m.Param("weight", 64, 64)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(m, Options{})
	if err != nil {
		t.Fatalf("opening reads the weights: %v", err)
	}
	in := map[string]Array{"x": Floats(tensor.New(1, 64))}
	_, first := s.Run(context.Background(), in)
	if first == nil || !strings.Contains(first.Error(), "the graph cannot be prepared on cpu") || !strings.Contains(first.Error(), filepath.Base(path)) {
		t.Errorf("got %v", first)
	}
	if err := os.WriteFile(path, make([]byte, 64*64*4), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, again := s.Run(context.Background(), in); !errors.Is(again, first) {
		t.Errorf("then %v", again)
	}
	s.Close()
	s.Close()
	if _, err := s.Run(context.Background(), in); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("of a closed session: %v", err)
	}
}

func TestRunConcurrently(t *testing.T) {
	s := doubling(t, Options{Threads: 1})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 50 {
				out, err := s.Run(context.Background(), map[string]Array{"x": Floats(tensor.Of([]float32{float32(g), 1}, 1, 2))})
				if err != nil || out["y"].Tensor().Data[0] != float32(2*g) {
					t.Errorf("goroutine %d: %v %v", g, out, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCancel stops a product of a second or more inside the graph.
func TestCancel(t *testing.T) {
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, onnx.Batch, onnx.Batch)
		y := x
		for range 50 {
			y = m.MatMulTransposed(y, x)
		}
		m.Output("y", y)
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = s.Run(ctx, map[string]Array{"x": Floats(tensor.New(1500, 1500))})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run returned %v", err)
	}
	if _, err := s.Run(ctx, map[string]Array{"x": Floats(tensor.New(2, 2))}); !errors.Is(err, context.Canceled) {
		t.Errorf("a run under a cancelled context returned %v", err)
	}
}

// inCache is a convolution whose optimized graph is kept, in a cache folder of the
// test's own, and the pattern of the files that are kept there.
func inCache(t *testing.T) (m *onnx.Model, kept string) {
	t.Helper()
	t.Setenv(EnvLibrary, mustLibrary(t))
	folder := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", folder)
	r := rand.New(rand.NewPCG(5, 5))
	weights := make([]float32, 16*3*9)
	for i := range weights {
		weights[i] = float32(r.NormFloat64())
	}
	sd := checkpoint.StateDict{"weight": checkpoint.FromFloat32(weights, 16, 3, 3, 3), "bias": checkpoint.FromFloat32(weights[:16], 16)}
	m, err := onnx.Build(sd, func(m *onnx.Module) {
		m.Output("y", m.Conv2D(m.Input("x", checkpoint.F32, onnx.Batch, 3, 8, 8), 16, 3, 1, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, filepath.Join(folder, "sagbench", "graphs", "*.onnx")
}

// convolved opens the model and runs it on ones.
func convolved(t *testing.T, m *onnx.Model, opt Options) []float32 {
	t.Helper()
	s, err := Open(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x := tensor.New(1, 3, 8, 8)
	for i := range x.Data {
		x.Data[i] = 1
	}
	out, err := s.Run(t.Context(), map[string]Array{"x": Floats(x)})
	if err != nil {
		t.Fatal(err)
	}
	return out["y"].Tensor().Data
}

func of(content string) Options {
	return Options{Content: func() (string, error) { return content, nil }, Threads: 1}
}

// A byte that was flipped in a kept graph is never another number: the graph is
// made anew, which is said.
func TestFlippedBytes(t *testing.T) {
	m, pattern := inCache(t)
	opt, notes := of("a"), 0
	opt.Note = func(string) { notes++ }
	want := convolved(t, m, opt)
	paths, _ := filepath.Glob(pattern)
	if len(paths) != 1 {
		t.Fatalf("kept: %v", paths)
	}
	whole, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(13, 1))
	for i := range 200 {
		damaged := slices.Clone(whole)
		at := r.IntN(len(damaged))
		damaged[at] ^= byte(1 + r.IntN(255))
		if err := os.WriteFile(paths[0], damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := convolved(t, m, opt); !slices.Equal(got, want) {
			t.Fatalf("byte %d was flipped: other numbers", at)
		}
		if now, err := os.ReadFile(paths[0]); notes != i+1 || err != nil || !slices.Equal(now, whole) {
			t.Fatalf("byte %d was flipped: %d notes for %d damages, or the file was not made anew (%v)", at, notes, i+1, err)
		}
	}
	for what, damaged := range map[string][]byte{"empty": nil, "cut off": whole[:len(whole)/2], "zeroes": make([]byte, len(whole))} {
		if err := os.WriteFile(paths[0], damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := convolved(t, m, opt); !slices.Equal(got, want) {
			t.Errorf("%s: other numbers", what)
		}
	}
}

// TestCache opens a network again, from the kept graph, and where nothing can be
// kept.
func TestCache(t *testing.T) {
	m, pattern := inCache(t)
	count := func() int {
		paths, _ := filepath.Glob(pattern)
		return len(paths)
	}
	want := convolved(t, m, of("a"))
	before, _ := filepath.Glob(pattern)
	again := convolved(t, m, of("a"))
	if after, _ := filepath.Glob(pattern); !slices.Equal(again, want) || len(before) != 1 || !slices.Equal(after, before) {
		t.Errorf("the second time: other numbers, or %v became %v", before, after)
	}
	if convolved(t, m, of("b")); count() != 2 {
		t.Errorf("another checkpoint: %d files are kept, expected 2", count())
	}
	folder := filepath.Dir(pattern)
	if left, _ := filepath.Glob(filepath.Join(folder, "new-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	os.RemoveAll(folder)
	if err := os.WriteFile(folder, nil, 0o644); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	if got := convolved(t, m, of("a")); !slices.Equal(got, want) {
		t.Error("where nothing can be kept: other numbers")
	}
}

// A byte that was flipped in the installed runtime stops the program.
func TestFlippedBytesOfRuntime(t *testing.T) {
	installed := mustLibrary(t)
	name := filepath.Base(filepath.Dir(installed))
	if os.Getenv(EnvLibrary) != "" || !strings.HasPrefix(name, "onnxruntime-"+Version) {
		t.Skip("the runtime is not the one that make installs")
	}
	if err := verifyLibrary(installed); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(installed)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), name)
	path := filepath.Join(folder, filepath.Base(installed))
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(13, 2))
	for range 200 {
		at := r.IntN(len(data))
		f.WriteAt([]byte{data[at] ^ byte(1+r.IntN(255))}, int64(at))
		if err := verifyLibrary(path); err == nil || !strings.Contains(err.Error(), path+" is damaged") || !strings.Contains(err.Error(), "make onnxruntime") {
			t.Fatalf("byte %d was flipped: %v", at, err)
		}
		f.WriteAt(data[at:at+1], int64(at))
	}
}

// Weights behind symbolic links, and in several folders, are found: a snapshot of
// Hugging Face's cache holds links to files elsewhere.
func TestLinkedWeights(t *testing.T) {
	root := t.TempDir()
	sd := checkpoint.StateDict{}
	for i, name := range []string{"a", "b"} {
		blob, link := filepath.Join(root, "blobs", name, "blob"), filepath.Join(root, "snapshot", name+".pt")
		values := make([]byte, 64*64*4)
		for k := range 64 { // (i+1) times the identity
			binary.LittleEndian.PutUint32(values[4*65*k:], math.Float32bits(float32(i+1)))
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(blob), 0o755), os.MkdirAll(filepath.Dir(link), 0o755), os.WriteFile(blob, values, 0o644),
			os.Symlink(filepath.Join("..", "blobs", name, "blob"), link)); err != nil {
			t.Fatal(err)
		}
		sd[name] = checkpoint.Tensor{File: link, DType: checkpoint.F32, Shape: []int{64, 64}, Size: int64(len(values))}
	}
	x := tensor.New(1, 64)
	x.Data[7] = 3
	for _, names := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
		used := checkpoint.StateDict{}
		for _, n := range names {
			used[n] = sd[n]
		}
		m, err := onnx.Build(used, func(m *onnx.Module) {
			y := m.Input("x", checkpoint.F32, onnx.Batch, 64)
			for _, n := range names {
				y = m.MatMul(y, m.Param(n, 64, 64))
			}
			m.Output("y", y)
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(m, Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), map[string]Array{"x": Floats(x)})
		s.Close()
		want := float32(3)
		if slices.Contains(names, "b") {
			want = 6
		}
		if err != nil || out["y"].Tensor().Data[7] != want {
			t.Errorf("%v: %v, %v", names, out, err)
		}
	}
}

func mustLibrary(t *testing.T) string {
	t.Helper()
	p, err := LibraryPath()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMissingRuntime runs in a process of its own, as the library is loaded once.
func TestMissingRuntime(t *testing.T) {
	if os.Getenv("SAGBENCH_TEST_MISSING") != "" {
		_, err := RuntimeVersion()
		if err == nil {
			t.Fatal("a library that is not there was loaded")
		}
		t.Log(err)
		return
	}
	for env, want := range map[string]string{
		EnvLibrary + "=/nowhere/lib.so": EnvLibrary + " names a file that cannot be opened",
		EnvLibrary + "=/dev/null":       "/dev/null is no regular file",
		"XDG_CACHE_HOME=" + t.TempDir(): "is not installed; run `make onnxruntime`",
	} {
		c := exec.Command(os.Args[0], "-test.run=TestMissingRuntime", "-test.v")
		c.Env = append(os.Environ(), EnvLibrary+"=", "SAGBENCH_TEST_MISSING=1", env)
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %q in\n%s", env, err, want, out)
		}
	}
}
