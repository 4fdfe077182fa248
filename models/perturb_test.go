package models

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// size is the height and width of an image.
type size struct{ height, width int }

// naiveBlur is SEG-SDXL's gaussian_blur_2d of an image of H×W values, in two
// dimensions at once: the kernel is 6σ wide, odd, and no wider than the image;
// beyond its edges the image goes on as its mirror image.
func naiveBlur(image []float64, s size, sigma float64) []float64 {
	out := make([]float64, len(image))
	if sigma > 9999 {
		mean := 0.0
		for _, v := range image {
			mean += v / float64(len(image))
		}
		for i := range out {
			out[i] = mean
		}
		return out
	}
	half := func(n int) int {
		k := int(math.Ceil(6 * sigma))
		return min(k+1-k%2, n-(n%2-1)) / 2
	}
	mirror := func(i, n int) int {
		for i < 0 || i >= n {
			i = max(-i, min(i, 2*n-2-i))
		}
		return i
	}
	for y := range s.height {
		for x := range s.width {
			sum, total := 0.0, 0.0
			for dy := -half(s.height); dy <= half(s.height); dy++ {
				for dx := -half(s.width); dx <= half(s.width); dx++ {
					w := math.Exp(-float64(dy*dy+dx*dx) / (2 * sigma * sigma))
					sum += w * image[mirror(y+dy, s.height)*s.width+mirror(x+dx, s.width)]
					total += w
				}
			}
			out[y*s.width+x] = sum / total
		}
	}
	return out
}

// naiveAttention is softmax(qkᵀ/√d)v over [T] positions of D channels, position
// p's channel c at p·D+c, under a perturbation.
func naiveAttention(q, k, v []float64, heads int, s size, p sampling.Perturbation) []float64 {
	positions := s.height * s.width
	width := len(q) / positions
	if p.Kind == sampling.IdentityAttention {
		return v
	}
	if p.Kind == sampling.BlurredQueries {
		blurred := make([]float64, len(q))
		for c := range width {
			image := make([]float64, positions)
			for i := range image {
				image[i] = q[i*width+c]
			}
			for i, b := range naiveBlur(image, s, p.Sigma) {
				blurred[i*width+c] = b
			}
		}
		q = blurred
	}
	out, d := make([]float64, len(q)), width/heads
	for h := range heads {
		for i := range positions {
			weights, sum := make([]float64, positions), 0.0
			for j := range weights {
				score := 0.0
				for c := h * d; c < (h+1)*d; c++ {
					score += q[i*width+c] * k[j*width+c] / math.Sqrt(float64(d))
				}
				weights[j] = math.Exp(score)
				sum += weights[j]
			}
			for j, w := range weights {
				for c := h * d; c < (h+1)*d; c++ {
					out[i*width+c] += w / sum * v[j*width+c]
				}
			}
		}
	}
	return out
}

func float64s(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, f := range v {
		out[i] = float64(f)
	}
	return out
}

// perturbedLayer are all perturbations of one layer; image i is under the i-th of
// them, image 0 under none.
func perturbedLayer(name string) []sampling.Perturbation {
	var all []sampling.Perturbation
	for _, sigma := range []float64{0.4, 1.3, 40, 1e7} {
		all = append(all, sampling.Perturb(sampling.BlurredQueries, sigma, []string{name}))
	}
	return append(all, sampling.Perturb(sampling.IdentityAttention, 0, []string{name}), sampling.Perturb(sampling.SkippedBlock, 0, []string{name}))
}

// runGraph runs a graph of the given weights.
func runGraph(t *testing.T, sd checkpoint.StateDict, in map[string]ort.Array, build func(*onnx.Module)) map[string]ort.Array {
	t.Helper()
	m, err := onnx.Build(sd, build)
	if err != nil {
		t.Fatal(err)
	}
	session, err := ort.Open(m, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.Run(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantNear(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*max(1, math.Abs(w))) {
			t.Fatalf("%s: value %d is %g, want %g", what, i, got[i], w)
		}
	}
}

// The attention of DiT and Stable Diffusion under every perturbation, against
// plain loops in float64.
func TestPerturbedAttention(t *testing.T) {
	for _, s := range []size{{4, 4}, {5, 3}, {1, 6}, {7, 7}} {
		const heads, width = 2, 6
		perturbations := perturbedLayer("layer")[:5]
		n, positions := 1+len(perturbations), s.height*s.width
		in := map[string]ort.Array{}
		var qkv [3]tensor.Tensor
		for i, name := range []string{"q", "k", "v"} {
			qkv[i] = noise(t, 3*n, positions, width).Slice(i*n, (i+1)*n)
			in[name] = ort.Floats(qkv[i])
		}
		asked := append([]sampling.Perturbation{{}}, perturbations...)
		if err := SwitchPerturbations(in, perturbations, asked, n); err != nil {
			t.Fatal(err)
		}
		out := runGraph(t, nil, in, func(m *onnx.Module) {
			taps := NewTaps(Options{Perturbations: perturbations})
			input := func(name string) onnx.Value { return m.Input(name, checkpoint.F32, onnx.Batch, positions, width) }
			m.Output("out", taps.Attention(m.In("layer"), input("q"), input("k"), input("v"), heads, s.height, s.width))
			if err := taps.Output(m); err != nil {
				t.Fatal(err)
			}
		})["out"].Tensor()
		for i, p := range asked {
			want := naiveAttention(float64s(qkv[0].Row(i)), float64s(qkv[1].Row(i)), float64s(qkv[2].Row(i)), heads, s, p)
			wantNear(t, string(p.Kind), out.Row(i), want, 3e-6)
		}
	}
}

// ADM's attention block under every perturbation, for both orders of q, k and v,
// against plain loops in float64.
func TestPerturbedAttentionBlock(t *testing.T) {
	const heads, width = 2, groups // a group of one channel each
	s := size{3, 5}
	positions := s.height * s.width
	weights := noise(t, 5*width+4, width).Data // of all parameters
	take := func(rows int) []float32 {
		part := slices.Clone(weights[:rows*width])
		weights = weights[rows*width:]
		for i := range part {
			part[i] *= 0.3
		}
		return part
	}
	gain, shift, qkvWeight, outWeight, outBias := take(1), take(1), take(3*width), take(width), take(1)
	qkvBias := make([]float32, 3*width)
	sd := checkpoint.StateDict{
		"a.norm.weight": checkpoint.FromFloat32(gain, width), "a.norm.bias": checkpoint.FromFloat32(shift, width),
		"a.qkv.weight": checkpoint.FromFloat32(qkvWeight, 3*width, width, 1), "a.qkv.bias": checkpoint.FromFloat32(qkvBias, 3*width),
		"a.proj_out.weight": checkpoint.FromFloat32(outWeight, width, width, 1), "a.proj_out.bias": checkpoint.FromFloat32(outBias, width),
	}
	perturbations := perturbedLayer("a")
	asked := append([]sampling.Perturbation{{}}, perturbations...)
	x := noise(t, len(asked), width, s.height, s.width)
	for _, order := range []qkvOrder{legacyOrder, newOrder} {
		in := map[string]ort.Array{"x": ort.Floats(x)}
		if err := SwitchPerturbations(in, perturbations, asked, len(asked)); err != nil {
			t.Fatal(err)
		}
		got := runGraph(t, sd, in, func(m *onnx.Module) {
			taps := NewTaps(Options{Perturbations: perturbations})
			m.Output("out", attentionBlock(m.In("a"), m.Input("x", checkpoint.F32, onnx.Batch, width, s.height, s.width), heads, order, taps))
			if err := taps.Output(m); err != nil {
				t.Fatal(err)
			}
		})["out"].Tensor()
		for i, p := range asked {
			in := float64s(x.Row(i))
			want := slices.Clone(in)
			if p.Kind != sampling.SkippedBlock {
				// channel c of q is row …, of k and v those after it
				row := func(part, c int) int {
					if order == newOrder {
						return part*width + c
					}
					d := width / heads
					return c/d*3*d + part*d + c%d
				}
				var qkv [3][]float64 // [T, D]
				normed := normalised(in, gain, shift, positions)
				for part := range qkv {
					qkv[part] = make([]float64, positions*width)
					for at := range positions {
						for c := range width {
							for from := range width {
								qkv[part][at*width+c] += float64(qkvWeight[row(part, c)*width+from]) * normed[from*positions+at]
							}
						}
					}
				}
				a := naiveAttention(qkv[0], qkv[1], qkv[2], heads, s, p)
				for c := range width {
					for at := range positions {
						want[c*positions+at] += float64(outBias[c])
						for from := range width {
							want[c*positions+at] += float64(outWeight[c*width+from]) * a[at*width+from]
						}
					}
				}
			}
			wantNear(t, string(p.Kind), got.Row(i), want, 1e-5)
		}
	}
}

// normalised is GroupNorm with a group for each channel of x [C,T].
func normalised(x []float64, gain, shift []float32, positions int) []float64 {
	out := make([]float64, len(x))
	for c := range gain {
		channel, mean, square := x[c*positions:(c+1)*positions], 0.0, 0.0
		for _, v := range channel {
			mean += v / float64(positions)
		}
		for _, v := range channel {
			square += (v - mean) * (v - mean) / float64(positions)
		}
		for i, v := range channel {
			out[c*positions+i] = (v-mean)/math.Sqrt(square+1e-5)*float64(gain[c]) + float64(shift[c])
		}
	}
	return out
}

// A DiT whose block is skipped predicts what one does whose gates of that block
// are zero.
func TestSkippedBlockGates(t *testing.T) {
	f, err := checkpoint.Open(fashionDiTCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sd := checkpoint.StateDict{}
	for key, v := range f.Tensors {
		data, err := v.Float32()
		if err != nil {
			t.Fatal(err)
		}
		data = slices.Clone(data)
		if key == "blocks.2.adaLN_modulation.1.weight" || key == "blocks.2.adaLN_modulation.1.bias" {
			chunk := len(data) / 6
			clear(data[2*chunk : 3*chunk])
			clear(data[5*chunk:])
		}
		sd[key] = checkpoint.FromFloat32(data, v.Shape...)
	}
	path := filepath.Join(t.TempDir(), "gated.safetensors")
	if err := checkpoint.WriteSafetensors(path, sd, nil); err != nil {
		t.Fatal(err)
	}
	gated, err := fashionDiT().Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gated.Close()
	p := sampling.Perturb(sampling.SkippedBlock, 0, []string{"blocks.2"})
	skipped := openDiT(t, Options{Perturbations: []sampling.Perturbation{p}})
	x := noise(t, 2, 4, 16, 16)
	c := sampling.Cond{Labels: []int64{0, 1}}
	want, err := gated.(Generator).Denoise(context.Background(), x, sampling.Timestep{Value: 300}, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := skipped.Denoise(context.Background(), x, sampling.Timestep{Value: 300}, c.Under(p, 2))
	if err != nil {
		t.Fatal(err)
	}
	wantNear(t, "ε", got.Eps.Data, float64s(want.Eps.Data), 1e-6)
}

// The layers that the official code of PAG perturbs are there in ADM 256×256.
func TestOfficialPAGLayers(t *testing.T) {
	c := NewADM()
	c.ImageSize, c.NumChannels, c.NumHeadChannels, c.NumResBlocks, c.AttentionResolutions = 256, 256, 64, 2, "32,16,8"
	c.LearnSigma, c.ResblockUpdown = true, true
	u, err := c.network()
	if err != nil {
		t.Fatal(err)
	}
	p := sampling.Perturb(sampling.IdentityAttention, 0, []string{"input_blocks.14.1", "input_blocks.16.1", "input_blocks.17.1", "middle_block.1"})
	var missing error
	if _, err := onnx.Parameters(func(m *onnx.Module) {
		missing = u.build(m, NewTaps(Options{Perturbations: []sampling.Perturbation{p}}))
	}); err != nil || missing != nil {
		t.Error(err, missing)
	}
}
