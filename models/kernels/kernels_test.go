package kernels_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/kernels"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// each runs a test with every implementation that this processor has.
func each(t *testing.T, f func(t *testing.T)) {
	for _, name := range []string{"avx512", "avx2"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SAGBENCH_KERNELS", name)
			if kernels.Name() != name {
				t.Skip("not on this processor")
			}
			f(t)
		})
	}
}

// A name that is no implementation's is an error, not "none".
func TestUnknownKernels(t *testing.T) {
	t.Setenv("SAGBENCH_KERNELS", "avx521")
	if err := kernels.Check(); err == nil || !strings.Contains(err.Error(), `"avx521", expected avx512, avx2 or none`) {
		t.Errorf("error %v", err)
	}
}

// A convolution from images whose channels are in parts, in blocks or planar.
type convolution struct {
	parts     []int // channels
	onnx.Conv       // the geometry
	n, h, w   int
	weights   checkpoint.StateDict
	images    [][]float32 // of the parts, [n,c,h,w]
}

func newConvolution(parts []int, c onnx.Conv, n, h, w int) *convolution {
	r := rand.New(rand.NewPCG(uint64(c.Kernel[0]*10+c.Kernel[1]), uint64(h*100+w)))
	in := 0
	k := &convolution{parts: parts, Conv: c, n: n, h: h, w: w}
	for _, p := range parts {
		in += p
		k.images = append(k.images, uniform(r, n*p*h*w, -0.3, 0.7))
	}
	taps := in * c.Kernel[0] * c.Kernel[1]
	k.weights = checkpoint.StateDict{
		"conv.weight":     checkpoint.FromFloat32(uniform(r, c.Out*taps, -1/float32(taps), 1/float32(taps)), c.Out, in, c.Kernel[0], c.Kernel[1]),
		"bn.weight":       checkpoint.FromFloat32(uniform(r, c.Out, 0.5, 2), c.Out),
		"bn.bias":         checkpoint.FromFloat32(uniform(r, c.Out, -0.1, 0.1), c.Out),
		"bn.running_mean": checkpoint.FromFloat32(uniform(r, c.Out, -0.1, 0.1), c.Out),
		"bn.running_var":  checkpoint.FromFloat32(uniform(r, c.Out, 0.2, 2), c.Out),
	}
	return k
}

func uniform(r *rand.Rand, n int, lo, hi float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = lo + (hi-lo)*r.Float32()
	}
	return x
}

const eps = 1e-3

// want is the definition in float64: [n,out,h',w'].
func (k *convolution) want(t *testing.T) []float64 {
	get := func(key string) []float32 {
		x, err := k.weights[key].Float32()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	weight, gamma, beta, mean, variance := get("conv.weight"), get("bn.weight"), get("bn.bias"), get("bn.running_mean"), get("bn.running_var")
	oh, ow := (k.h+2*k.Pad[0]-k.Kernel[0])/k.Stride+1, (k.w+2*k.Pad[1]-k.Kernel[1])/k.Stride+1
	var out []float64
	for n := range k.n {
		for o := range k.Out {
			for i := range oh {
				for j := range ow {
					out = append(out, max(0, (k.sum(weight, n, o, i, j)-float64(mean[o]))*float64(gamma[o])/math.Sqrt(float64(variance[o])+eps)+float64(beta[o])))
				}
			}
		}
	}
	return out
}

func (k *convolution) sum(weight []float32, n, o, i, j int) float64 {
	in := 0
	for _, p := range k.parts {
		in += p
	}
	sum, at := 0.0, o*in*k.Kernel[0]*k.Kernel[1]
	for p, channels := range k.parts {
		for c := range channels {
			for a := range k.Kernel[0] {
				for b := range k.Kernel[1] {
					y, x := i*k.Stride+a-k.Pad[0], j*k.Stride+b-k.Pad[1]
					if y >= 0 && y < k.h && x >= 0 && x < k.w {
						sum += float64(weight[at]) * float64(k.images[p][((n*channels+c)*k.h+y)*k.w+x])
					}
					at++
				}
			}
		}
	}
	return sum
}

// run computes it for images from…to on the given number of threads.
func (k *convolution) run(t *testing.T, from, to, threads int) ([]float32, error) {
	blocked := k.parts[0] != 3
	m, err := onnx.Build(k.weights, func(m *onnx.Module) {
		var xs []onnx.Value
		for p, c := range k.parts {
			x := m.Input(fmt.Sprint("x", p), checkpoint.F32, onnx.Batch, c, k.h, k.w)
			if blocked {
				x = m.Transpose(m.Reshape(x, onnx.Batch, c/16, 16, k.h, k.w), 0, 1, 3, 4, 2)
			}
			xs = append(xs, x)
		}
		m.Output("y", m.FirstChannels(m.BlockedConvBatchNormReLU(xs, k.Conv, eps), k.Out))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(m, ort.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := map[string]ort.Array{}
	for p, c := range k.parts {
		size := c * k.h * k.w
		in[fmt.Sprint("x", p)] = ort.Floats(tensor.Of(k.images[p][from*size:to*size], to-from, c, k.h, k.w))
	}
	out, err := s.Run(context.Background(), in)
	if err != nil {
		return nil, err
	}
	return out["y"].Data.([]float32), nil
}

// geometries are those of the FID Inception in small, and odd ones.
func geometries() []*convolution {
	c := func(out, a, b, stride, padA, padB int) onnx.Conv {
		return onnx.Conv{Out: out, Kernel: [2]int{a, b}, Stride: stride, Pad: [2]int{padA, padB}}
	}
	return []*convolution{
		newConvolution([]int{3}, c(32, 3, 3, 2, 0, 0), 3, 33, 31),
		newConvolution([]int{32}, c(64, 3, 3, 1, 1, 1), 3, 37, 15),
		newConvolution([]int{80}, c(48, 3, 3, 1, 0, 0), 2, 9, 22),
		newConvolution([]int{16, 32, 48}, c(80, 1, 1, 1, 0, 0), 3, 9, 7),
		newConvolution([]int{48}, c(64, 5, 5, 1, 2, 2), 2, 13, 6),
		newConvolution([]int{16, 16}, c(48, 1, 7, 1, 0, 3), 5, 17, 17),
		newConvolution([]int{32}, c(48, 7, 1, 1, 3, 0), 5, 17, 17),
		newConvolution([]int{32}, c(16, 1, 3, 1, 0, 1), 2, 8, 8),
		newConvolution([]int{32}, c(16, 3, 1, 1, 1, 0), 2, 8, 8),
		newConvolution([]int{32, 16}, c(96, 3, 3, 2, 0, 0), 3, 35, 19),
		newConvolution([]int{16}, c(16, 7, 1, 1, 6, 0), 2, 1, 1),
		newConvolution([]int{16}, c(16, 2, 3, 2, 0, 0), 2, 4, 5),
	}
}

func (k *convolution) String() string {
	return fmt.Sprintf("%v→%d,%d×%d,stride%d,pad%v,%d×%d", k.parts, k.Out, k.Kernel[0], k.Kernel[1], k.Stride, k.Pad, k.h, k.w)
}

func TestConvolutions(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, k := range geometries() {
			got, err := k.run(t, 0, k.n, 0)
			if err != nil {
				t.Errorf("%s: %v", k, err)
				continue
			}
			want := k.want(t)
			if len(got) != len(want) {
				t.Errorf("%s: %d outputs, want %d", k, len(got), len(want))
				continue
			}
			// Winograd's transforms for seven taps lose up to 4 bits.
			worst, largest := 0.0, slices.Max(want)
			for i := range want {
				worst = max(worst, math.Abs(float64(got[i])-want[i]))
			}
			if !(worst <= 5e-6*largest) {
				t.Errorf("%s: off by %.2g of %.2g", k, worst, largest)
			}
		}
	})
}

func TestImagesAreTheSameInAnyBatch(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, k := range geometries() {
			all, err := k.run(t, 0, k.n, 2)
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			one, err := k.run(t, k.n-1, k.n, 1)
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			if last := all[len(all)-len(one):]; !slices.Equal(one, last) {
				t.Errorf("%s: an image alone on one thread differs from the same in a batch on two", k)
			}
		}
	})
}

func TestPools(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		const n, c, h, w = 2, 32, 17, 12
		x := ort.Floats(tensor.Of(uniform(r, n*c*h*w, -1, 1), n, c, h, w))
		for _, p := range []onnx.Pool{{Kernel: 3, Stride: 2}, {Kernel: 3, Stride: 1, Pad: 1}, {Kernel: 2, Stride: 2, Pad: 1}, {Kernel: 1, Stride: 3}} {
			m, err := onnx.Build(nil, func(m *onnx.Module) {
				x := m.Input("x", checkpoint.F32, onnx.Batch, c, h, w)
				b := m.Transpose(m.Reshape(x, onnx.Batch, c/16, 16, h, w), 0, 1, 3, 4, 2)
				m.Output("max", m.FirstChannels(m.MaxPool(b, p), c))
				m.Output("max.want", m.MaxPool(x, p))
				m.Output("average", m.FirstChannels(m.AveragePool(b, p), c))
				m.Output("average.want", m.AveragePool(x, p))
				m.Output("mean", m.ImageMean(b))
				m.Output("mean.want", m.ImageMean(x))
			})
			if err != nil {
				t.Fatal(err)
			}
			s, err := ort.Open(m, ort.Options{})
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.Run(context.Background(), map[string]ort.Array{"x": x})
			s.Close()
			if err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			for name, tolerance := range map[string]float64{"max": 0, "average": 3e-7, "mean": 3e-7} {
				got, want := out[name].Data.([]float32), out[name+".want"].Data.([]float32)
				if !slices.Equal(out[name].Shape, out[name+".want"].Shape) {
					t.Fatalf("%+v: %s has shape %v, want %v", p, name, out[name].Shape, out[name+".want"].Shape)
				}
				for i := range want {
					if !(math.Abs(float64(got[i]-want[i])) <= tolerance) {
						t.Fatalf("%+v: %s[%d] = %g, want %g", p, name, i, got[i], want[i])
					}
				}
			}
		}
	})
}

// What is not there is an error when the session is prepared, not a wrong number.
func TestUnknownGeometries(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, k := range []*convolution{
			newConvolution([]int{16}, onnx.Conv{Out: 16, Kernel: [2]int{7, 7}, Stride: 1}, 1, 9, 9),
			newConvolution([]int{16}, onnx.Conv{Out: 16, Kernel: [2]int{3, 3}, Stride: 2, Pad: [2]int{1, 1}}, 1, 9, 9),
			newConvolution([]int{16}, onnx.Conv{Out: 16, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{3, 0}}, 1, 9, 9),
			newConvolution([]int{3}, onnx.Conv{Out: 16, Kernel: [2]int{3, 3}, Stride: 1}, 1, 9, 9),
		} {
			if _, err := k.run(t, 0, 1, 0); err == nil || !strings.Contains(err.Error(), "is not one of those") {
				t.Errorf("%s: error %v", k, err)
			}
		}
	})
}

// Networks' own convolutions are replaced where package kernels has them.
func TestPlanes(t *testing.T) {
	each(t, func(t *testing.T) {
		name := kernels.Name()
		r := rand.New(rand.NewPCG(1, 2))
		for _, c := range []struct {
			in, h, w int
			onnx.Conv
		}{
			{32, 16, 16, onnx.Conv{Out: 48, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{1, 1}}},
			{16, 64, 20, onnx.Conv{Out: 16, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{0, 2}}},
			{48, 33, 70, onnx.Conv{Out: 32, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{1, 1}}},
			{16, 5, 157, onnx.Conv{Out: 80, Kernel: [2]int{3, 3}, Stride: 1, Pad: [2]int{1, 0}, NoBias: true}},
		} {
			const n = 3
			x := ort.Floats(tensor.Of(uniform(r, n*c.in*c.h*c.w, -0.3, 0.7), n, c.in, c.h, c.w))
			weights := checkpoint.StateDict{"weight": checkpoint.FromFloat32(uniform(r, c.Out*c.in*9, -0.1, 0.1), c.Out, c.in, 3, 3)}
			if !c.NoBias {
				weights["bias"] = checkpoint.FromFloat32(uniform(r, c.Out, -1, 1), c.Out)
			}
			m, err := onnx.Build(weights, func(m *onnx.Module) {
				m.Output("y", m.Conv(m.Input("x", checkpoint.F32, onnx.Batch, c.in, c.h, c.w), c.Conv))
			})
			if err != nil {
				t.Fatal(err)
			}
			if replaced, err := m.WithKernels(); err != nil || !replaced.Kernels {
				t.Fatalf("%+v is not replaced: %v", c, err)
			}
			run := func(kernels string, x ort.Array, threads int) ort.Array {
				t.Setenv("SAGBENCH_KERNELS", kernels)
				s, err := ort.Open(m, ort.Options{Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				out, err := s.Run(context.Background(), map[string]ort.Array{"x": x})
				if err != nil {
					t.Fatalf("%+v: %v", c, err)
				}
				return out["y"]
			}
			want, got := run("none", x, 0), run(name, x, 0)
			if !slices.Equal(got.Shape, want.Shape) {
				t.Fatalf("%+v: shape %v, want %v", c, got.Shape, want.Shape)
			}
			all := got.Data.([]float32)
			worst, largest := 0.0, 0.0
			for i, v := range want.Data.([]float32) {
				worst, largest = max(worst, math.Abs(float64(all[i]-v))), max(largest, math.Abs(float64(v)))
			}
			if !(worst <= 3e-6*largest) || largest == 0 {
				t.Errorf("%+v: off by %.2g of %.2g", c, worst, largest)
			}
			one := run(name, ort.Floats(x.Tensor().Slice(n-1, n)), 1).Data.([]float32)
			if !slices.Equal(one, all[len(all)-len(one):]) {
				t.Errorf("%+v: an image alone on one thread differs from the same in a batch", c)
			}
		}
	})
}

// Group norms give the bytes that the runtime's own operators give, whose sums are
// in another order where a group is no multiple of their vectors.
func TestGroupNorm(t *testing.T) {
	each(t, func(t *testing.T) {
		name := kernels.Name()
		r := rand.New(rand.NewPCG(1, 4))
		for _, c := range []struct{ channels, groups, h, w int }{
			{64, 32, 8, 8}, {96, 32, 5, 7}, {64, 32, 32, 32}, {6, 3, 1, 1}, {12, 3, 1, 1}, {32, 32, 1, 3}, {32, 32, 1, 9}, {10, 5, 3, 11}, {128, 32, 1, 5}, {4, 1, 13, 17},
		} {
			const n = 3
			x := ort.Floats(tensor.Of(uniform(r, n*c.channels*c.h*c.w, -0.3, 0.9), n, c.channels, c.h, c.w))
			scale, shift := ort.Floats(tensor.Of(uniform(r, n*c.channels, -2, 2), n, c.channels)), ort.Floats(tensor.Of(uniform(r, n*c.channels, -2, 2), n, c.channels))
			weights := checkpoint.StateDict{
				"weight": checkpoint.FromFloat32(uniform(r, c.channels, -1, 1), c.channels),
				"bias":   checkpoint.FromFloat32(uniform(r, c.channels, -1, 1), c.channels),
			}
			m, err := onnx.Build(weights, func(m *onnx.Module) {
				x := m.Input("x", checkpoint.F32, onnx.Batch, c.channels, c.h, c.w)
				scale, shift := m.Input("scale", checkpoint.F32, onnx.Batch, c.channels), m.Input("shift", checkpoint.F32, onnx.Batch, c.channels)
				m.Output("norm", m.GroupNorm(x, c.groups))
				m.Output("scaled", m.GroupNormScaleShift(x, c.groups, scale, shift))
			})
			if err != nil {
				t.Fatal(err)
			}
			if replaced, err := m.WithKernels(); err != nil || !replaced.Kernels {
				t.Fatalf("%+v is not replaced: %v", c, err)
			}
			run := func(kernels string, from, threads int) map[string]ort.Array {
				t.Setenv("SAGBENCH_KERNELS", kernels)
				s, err := ort.Open(m, ort.Options{Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				in := map[string]ort.Array{}
				for name, a := range map[string]ort.Array{"x": x, "scale": scale, "shift": shift} {
					in[name] = ort.Floats(a.Tensor().Slice(from, n))
				}
				out, err := s.Run(context.Background(), in)
				if err != nil {
					t.Fatalf("%+v: %v", c, err)
				}
				return out
			}
			want, got, one := run("none", 0, 0), run(name, 0, 0), run(name, n-1, 1)
			for output := range want {
				w, g, o := want[output].Data.([]float32), got[output].Data.([]float32), one[output].Data.([]float32)
				if !slices.Equal(w, g) {
					t.Errorf("%+v: %s differs from the runtime's", c, output)
				}
				if !slices.Equal(o, g[len(g)-len(o):]) {
					t.Errorf("%+v: %s of an image alone on one thread differs from the same in a batch", c, output)
				}
			}
		}
	})
}

func TestNone(t *testing.T) {
	t.Setenv("SAGBENCH_KERNELS", "none")
	if name := kernels.Name(); name != "" {
		t.Errorf("Name is %q", name)
	}
	if (ort.Options{}).HasKernels() {
		t.Error("HasKernels without kernels")
	}
}
