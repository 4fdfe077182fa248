package models

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// Taps is where a network that is built is tapped and perturbed: it collects the
// attention maps that were asked for, puts in the perturbations, and knows the
// names of the layers that could have been asked for.
type Taps struct {
	want   []sampling.Tap
	maps   []onnx.Value
	layers []Layer
	errs   []error

	perturbations []sampling.Perturbation
	perturbable   map[sampling.Kind][]string // layers
	which         onnx.Value                 // the switch; the zero Value until it is needed
}

// NewTaps are the taps and perturbations of a network that is prepared so.
func NewTaps(opt Options) *Taps {
	return &Taps{want: opt.Taps, maps: make([]onnx.Value, len(opt.Taps)), perturbations: opt.Perturbations, perturbable: map[sampling.Kind][]string{}}
}

// Layers are the attention layers that were visited.
func (t *Taps) Layers() []Layer { return t.layers }

// Visit is called by an attention layer with the scope it lives in, its heads and
// the size of its image.
func (t *Taps) Visit(m *onnx.Module, heads, height, width int, attention func(sampling.Tap) onnx.Value) {
	t.layers = append(t.layers, Layer{m.Name(), heads, height, width})
	for i, w := range t.want {
		if w.Layer == m.Name() {
			t.maps[i] = attention(w)
		}
	}
}

// Problem keeps what is wrong with a tap, for the error of Output.
func (t *Taps) Problem(format string, args ...any) {
	t.errs = append(t.errs, fmt.Errorf(format, args...))
}

// Output makes the maps outputs: "attention" for the first tap, "attention_1"
// and so on for the others.
func (t *Taps) Output(m *onnx.Module) error {
	for i, v := range t.maps {
		if v.Name == "" {
			var names []string
			for _, l := range t.layers {
				names = append(names, l.Name)
			}
			t.Problem("layer %q is no attention layer of this network; it has %s", t.want[i].Layer, strings.Join(names, ", "))
			continue
		}
		m.Output(TapName(i), v)
	}
	t.missingLayers()
	return errors.Join(t.errs...)
}

// TapName is the output that the map of tap i is.
func TapName(i int) string {
	if i == 0 {
		return "attention"
	}
	return fmt.Sprintf("attention_%d", i)
}

// CheckTaps checks what does not depend on the network.
func CheckTaps(ts []sampling.Tap) error {
	for _, t := range ts {
		if !slices.Contains([]string{"", "legacy"}, t.Order) {
			return fmt.Errorf("attention_order %q: expected \"legacy\" or nothing", t.Order)
		}
		if t.Heads < 0 {
			return fmt.Errorf("heads %d: expected 0 (the layer's own) or a positive number", t.Heads)
		}
	}
	return nil
}

// perturbationInput is the graph's input that says which perturbation an image
// is under, [N]: 0 for none, else its place in Options.Perturbations from 1.
const perturbationInput = "perturbation"

// perturbed is called by a layer of the scope m that can be perturbed in a way:
// it is v, but other in the images that are under such a perturbation of this
// layer. Both have the same shape, the batch first.
func (t *Taps) perturbed(m *onnx.Module, k sampling.Kind, v onnx.Value, other func(sampling.Perturbation) onnx.Value) onnx.Value {
	if t == nil {
		return v
	}
	t.perturbable[k] = append(t.perturbable[k], m.Name())
	out := v
	for i, p := range t.perturbations {
		if p.Kind == k && slices.Contains(p.Paths(), m.Name()) {
			out = m.Where(t.under(m, i, len(v.Shape)), other(p), out)
		}
	}
	return out
}

// Skippable is a residual block's output, but its input where it is skipped.
func (t *Taps) Skippable(m *onnx.Module, in, out onnx.Value) onnx.Value {
	return t.perturbed(m, sampling.SkippedBlock, out, func(sampling.Perturbation) onnx.Value { return in })
}

// Attention is m.Attention over the tokens of an image of height×width, [N,H·W,D],
// as perturbed.
func (t *Taps) Attention(m *onnx.Module, q, k, v onnx.Value, heads, height, width int) onnx.Value {
	q = t.perturbed(m, sampling.BlurredQueries, q, func(p sampling.Perturbation) onnx.Value {
		return blurredTokens(m, q, height, width, p.Sigma)
	})
	a := m.Attention(q, k, v, heads)
	return t.perturbed(m, sampling.IdentityAttention, a, func(sampling.Perturbation) onnx.Value { return v })
}

// under is where images are under perturbation i, [N,1,…] of the given rank.
func (t *Taps) under(m *onnx.Module, i, rank int) onnx.Value {
	if t.which.Name == "" {
		t.which = m.Input(perturbationInput, checkpoint.I64, onnx.Batch)
	}
	shape := slices.Repeat([]int{1}, rank)
	shape[0] = onnx.Batch
	return m.Reshape(m.Equal(t.which, m.Ints(i+1)), shape...)
}

// missingLayers tells of the layers that cannot be perturbed as they should.
func (t *Taps) missingLayers() {
	for _, p := range t.perturbations {
		layer, known := "self-attention layer of this network", t.perturbable[p.Kind]
		if p.Kind == sampling.SkippedBlock {
			layer = "block of this network that can be skipped"
		}
		for _, path := range p.Paths() {
			if !slices.Contains(known, path) {
				t.Problem("layer %q is no %s; it has %s", path, layer, strings.Join(known, ", "))
			}
		}
	}
}

// SwitchPerturbations says in a network's inputs which perturbation each image is
// under: asked, one an image, or nil for none. The network was built with others
// to choose from; one that it was built without is an error.
func SwitchPerturbations(in map[string]ort.Array, built, asked []sampling.Perturbation, images int) error {
	if asked != nil && len(asked) != images {
		return fmt.Errorf("models: %d perturbations for %d images", len(asked), images)
	}
	which := make([]int64, images)
	for n, p := range asked {
		i := slices.Index(built, p)
		if i < 0 && p != (sampling.Perturbation{}) {
			return fmt.Errorf("models: the network was built without %s of %s (Options.Perturbations)", p.Kind, p.Layers)
		}
		which[n] = int64(i + 1)
	}
	if len(built) > 0 {
		in[perturbationInput] = ort.Array{Shape: []int{images}, Data: which}
	}
	return nil
}

// blurredImage is x [N,…,H·W] blurred over the positions: SEG-SDXL's
// gaussian_blur_2d, as a product with a matrix for each axis.
func blurredImage(m *onnx.Module, x onnx.Value, height, width int, sigma float64) onnx.Value {
	planes := x.Shape[:len(x.Shape)-1]
	image := m.Reshape(x, slices.Concat(planes, []int{height, width})...)
	image = m.MatMul(blurMatrix(m, height, sigma), image)
	image = m.MatMul(image, m.Transpose(blurMatrix(m, width, sigma), 1, 0))
	return m.Reshape(image, x.Shape...)
}

// blurredTokens is blurredImage of tokens, x [N,H·W,D], without moving them: few
// products of wide matrices.
func blurredTokens(m *onnx.Module, x onnx.Value, height, width int, sigma float64) onnx.Value {
	n, d := x.Dim(0), x.Dim(2)
	image := m.MatMul(blurMatrix(m, height, sigma), m.Reshape(x, n, height, width*d))
	image = m.MatMul(blurMatrix(m, width, sigma), m.Reshape(image, n, height, width, d))
	return m.Reshape(image, x.Shape...)
}

// blurMatrix is the blur of an axis of n positions, [n,n]: a Gaussian kernel,
// reflected at the image's ends; above MaxQuerySigma the mean.
func blurMatrix(m *onnx.Module, n int, sigma float64) onnx.Value {
	rows := make([]float32, n*n)
	if sigma > sampling.MaxQuerySigma {
		for i := range rows {
			rows[i] = 1 / float32(n)
		}
		return m.Const(rows, n, n)
	}
	kernel := queryKernel(n, sigma)
	for i := range n {
		row := make([]float64, n)
		for k, weight := range kernel {
			row[reflected(i+k-len(kernel)/2, n)] += weight
		}
		for j, weight := range row {
			rows[i*n+j] = float32(weight)
		}
	}
	return m.Const(rows, n, n)
}

// queryKernel is the kernel for an axis of n positions: as wide as the odd number
// at or above 6σ, or as the image where that is less. The official code takes the
// width's limit for both axes, of images that it supposes to be square.
func queryKernel(n int, sigma float64) []float64 {
	width := int(math.Ceil(min(6*sigma, float64(n+1))))
	width = min(width+1-width%2, n+1-n%2)
	kernel, sum := make([]float64, width), 0.0
	for i := range kernel {
		d := float64(i-width/2) / sigma
		kernel[i] = math.Exp(-d * d / 2)
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	return kernel
}

// reflected is position i of an axis of n that goes on as its mirror image about
// the first and the last position; at most once, as kernels are.
func reflected(i, n int) int {
	if n == 1 {
		return 0
	}
	if i < 0 {
		i = -i
	}
	if i >= n {
		i = 2*(n-1) - i
	}
	return i
}
