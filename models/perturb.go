package models

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// perturbationInput is the graph's input that says which perturbation an image
// is under, [N]: 0 for none, else its place in Options.Perturbations from 1.
const perturbationInput = "perturbation"

// perturbed is called by a layer of the scope m that can be perturbed in a way:
// it is v, but other in the images that are under such a perturbation of this
// layer. Both have the same shape, the batch first.
func (t *taps) perturbed(m *onnx.Module, k sampling.Kind, v onnx.Value, other func(sampling.Perturbation) onnx.Value) onnx.Value {
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

// skippable is a residual block's output, but its input where it is skipped.
func (t *taps) skippable(m *onnx.Module, in, out onnx.Value) onnx.Value {
	return t.perturbed(m, sampling.SkippedBlock, out, func(sampling.Perturbation) onnx.Value { return in })
}

// attention is m.Attention over the tokens of an image, [N,H·W,D], as perturbed.
func (t *taps) attention(m *onnx.Module, q, k, v onnx.Value, heads int, s size) onnx.Value {
	q = t.perturbed(m, sampling.BlurredQueries, q, func(p sampling.Perturbation) onnx.Value {
		return blurredTokens(m, q, s, p.Sigma)
	})
	a := m.Attention(q, k, v, heads)
	return t.perturbed(m, sampling.IdentityAttention, a, func(sampling.Perturbation) onnx.Value { return v })
}

// under is where images are under perturbation i, [N,1,…] of the given rank.
func (t *taps) under(m *onnx.Module, i, rank int) onnx.Value {
	if t.which.Name == "" {
		t.which = m.Input(perturbationInput, checkpoint.I64, onnx.Batch)
	}
	shape := slices.Repeat([]int{1}, rank)
	shape[0] = onnx.Batch
	return m.Reshape(m.Equal(t.which, m.Ints(i+1)), shape...)
}

// missingLayers tells of the layers that cannot be perturbed as they should.
func (t *taps) missingLayers() {
	what := map[sampling.Kind]string{sampling.SkippedBlock: "block of this network that can be skipped"}
	for _, p := range t.perturbations {
		for _, path := range p.Paths() {
			if known := t.perturbable[p.Kind]; !slices.Contains(known, path) {
				layer := what[p.Kind]
				if layer == "" {
					layer = "self-attention layer of this network"
				}
				t.problem("layer %q is no %s; it has %s", path, layer, strings.Join(known, ", "))
			}
		}
	}
}

// perturbation adds the switch to a network's inputs, which was built with some
// perturbations.
func perturbation(in map[string]ort.Array, built []sampling.Perturbation, asked []sampling.Perturbation, images int) error {
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
func blurredImage(m *onnx.Module, x onnx.Value, s size, sigma float64) onnx.Value {
	planes := x.Shape[:len(x.Shape)-1]
	image := m.Reshape(x, slices.Concat(planes, []int{s.height, s.width})...)
	image = m.MatMul(blurMatrix(m, s.height, sigma), image)
	image = m.MatMul(image, m.Transpose(blurMatrix(m, s.width, sigma), 1, 0))
	return m.Reshape(image, x.Shape...)
}

// blurredTokens is blurredImage of tokens, x [N,H·W,D], without moving them: few
// products of wide matrices.
func blurredTokens(m *onnx.Module, x onnx.Value, s size, sigma float64) onnx.Value {
	n, d := x.Dim(0), x.Dim(2)
	image := m.MatMul(blurMatrix(m, s.height, sigma), m.Reshape(x, n, s.height, s.width*d))
	image = m.MatMul(blurMatrix(m, s.width, sigma), m.Reshape(image, n, s.height, s.width, d))
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
