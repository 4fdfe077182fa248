package models

import (
	"math"

	"sagbench/models/onnx"
	"sagbench/sampling"
)

// maxWidth is the largest number of channels or pixels that flags may ask for, so
// that a mistyped number is an error and no endless graph.
const maxWidth = 1 << 16

// groups is the number of groups of every GroupNorm of ADM and IDDPM:
// guided_diffusion/nn.py normalization.
const groups = 32

// A resample says how a residual block or layer changes the resolution.
type resample int

const (
	same resample = iota
	down
	up
)

// resBlock is guided_diffusion/unet.py ResBlock: x [N,C,H,W], emb [N,E] → [N,out,H',W'].
// In half precision emb_layers, which are linear, stay float32, as there.
func resBlock(m *onnx.Module, x, emb onnx.Value, out int, scaleShift bool, r resample) onnx.Value {
	h := m.SiLU(m.In("in_layers.0").GroupNorm(x, groups))
	h, x = resampled(m, h, r), resampled(m, x, r)
	h = m.In("in_layers.2").Conv2D(h, out, 3, 1, 1)

	width := out
	if scaleShift {
		width = 2 * out
	}
	f := m.Full()
	e := f.In("emb_layers.1").Linear(f.SiLU(emb), width) // [N, width]
	if scaleShift {
		s := m.Split(e, 1, 2)
		h = m.In("out_layers.0").GroupNormScaleShift(h, groups, s[0], s[1])
	} else {
		h = m.Add(h, m.Reshape(e, e.Dim(0), out, 1, 1))
		h = m.In("out_layers.0").GroupNorm(h, groups)
	}
	h = m.In("out_layers.3").Conv2D(m.SiLU(h), out, 3, 1, 1)

	if x.Dim(1) != out {
		x = m.In("skip_connection").Conv2D(x, out, 1, 1, 0)
	}
	return m.Add(x, h)
}

// PixelsToTokens is [N,C,H,W] → [N,H·W,C].
func PixelsToTokens(m *onnx.Module, x onnx.Value) onnx.Value {
	t := m.Reshape(x, x.Dim(0), x.Dim(1), x.Dim(2)*x.Dim(3))
	return m.Transpose(t, 0, 2, 1)
}

// resampled halves by averaging 2×2 pixels or doubles by repetition, without parameters.
func resampled(m *onnx.Module, x onnx.Value, r resample) onnx.Value {
	switch r {
	case down:
		return m.AveragePool(x, onnx.Pool{Kernel: 2, Stride: 2})
	case up:
		return m.UpsampleNearest(x)
	}
	return x
}

// qkvOrder says how the 3·C channels of a qkv projection are laid out.
type qkvOrder int

const (
	legacyOrder      qkvOrder = iota // heads first, then q, k, v: QKVAttentionLegacy
	newOrder                         // q, k, v first, then heads: QKVAttention
	interleavedOrder                 // heads first, then the channels of a head, then q, k, v of each: EDM
	normalizedOrder                  // so as well, and q, k and v have unit magnitude at each position: EDM2
)

// splitQKV cuts qkv [N,3C,T] into q, k, v of [N,heads,C/heads,T] each.
func splitQKV(m *onnx.Module, qkv onnx.Value, heads int, order qkvOrder) (q, k, v onnx.Value) {
	n, t, ch := qkv.Dim(0), qkv.Dim(2), qkv.Dim(1)/3/heads
	if order == legacyOrder {
		p := m.Split(m.Reshape(qkv, n, heads, 3*ch, t), 2, 3)
		return p[0], p[1], p[2]
	}
	if order == interleavedOrder || order == normalizedOrder {
		p := m.Split(m.Reshape(qkv, n, heads, ch, 3, t), 3, 3)
		for i := range p {
			p[i] = m.Reshape(p[i], n, heads, ch, t)
			if order == normalizedOrder {
				p[i] = channelNorm(m, p[i])
			}
		}
		return p[0], p[1], p[2]
	}
	p := m.Split(m.Reshape(qkv, n, 3*heads, ch, t), 1, 3)
	return p[0], p[1], p[2]
}

// attentionWeights is softmax(qᵀk/√c) [N,heads,T,T], queries before keys. In half
// precision q and k are divided each, as in QKVAttention: the product might overflow.
func attentionWeights(m *onnx.Module, q, k onnx.Value) onnx.Value {
	root := math.Sqrt(float64(q.Dim(2)))
	if m.IsHalf() {
		s := m.Scalar(float32(1 / math.Sqrt(root)))
		return m.Softmax(m.MatMul(m.Transpose(m.Mul(q, s), 0, 1, 3, 2), m.Mul(k, s)))
	}
	scale := m.Scalar(float32(1 / root))
	return m.Softmax(m.Mul(m.MatMul(m.Transpose(q, 0, 1, 3, 2), k), scale))
}

// AttentionMass is the mass that each key position receives: softmax weights
// [N,heads,T,T], mean over heads, sum over queries → [N,T]; its mean is 1. It is
// one product with a constant row, because the runtime's reductions add in
// another order for a batch of one, and an image's mask may not depend on its
// batch.
func AttentionMass(m *onnx.Module, w onnx.Value) onnx.Value {
	n, heads, queries, t := w.Dim(0), w.Dim(1), w.Dim(2), w.Dim(3)
	row := make([]float32, heads*queries)
	for i := range row {
		row[i] = 1 / float32(heads)
	}
	mass := m.MatMul(m.Const(row, 1, len(row)), m.Reshape(w, n, len(row), t)) // [N, 1, T]
	return m.Reshape(mass, n, t)
}

// attentionBlock is guided_diffusion/unet.py AttentionBlock: x [N,C,H,W] → the
// same shape. For each tap of this layer its map is made an output.
func attentionBlock(m *onnx.Module, x onnx.Value, heads int, order qkvOrder, t *Taps) onnx.Value {
	c := x.Dim(1)
	h := m.In("norm").GroupNorm(x, groups)
	h = m.In("qkv").Conv(h, onnx.Conv{Out: 3 * c, Kernel: [2]int{1, 1}, Stride: 1, StoredKernel1D: true})
	h = selfAttention(m, h, heads, order, t, func(a onnx.Value) onnx.Value {
		return m.In("proj_out").Conv(a, onnx.Conv{Out: c, Kernel: [2]int{1, 1}, Stride: 1, StoredKernel1D: true})
	})
	return t.Skippable(m, x, m.Add(x, h))
}

// selfAttention is the projection of softmax(qᵀk/√c) v, [N,C,H,W], over all positions
// of an image, qkv [N,3C,H,W], as perturbed. For each tap of the scope m its map is
// made an output.
func selfAttention(m *onnx.Module, qkv onnx.Value, heads int, order qkvOrder, t *Taps, project func(onnx.Value) onnx.Value) onnx.Value {
	n, c, height, width := qkv.Dim(0), qkv.Dim(1)/3, qkv.Dim(2), qkv.Dim(3)
	qkv = m.Reshape(qkv, n, 3*c, height*width)
	q, k, v := splitQKV(m, qkv, heads, order)
	q = t.perturbed(m, sampling.BlurredQueries, q, func(p sampling.Perturbation) onnx.Value {
		return blurredImage(m, q, height, width, p.Sigma)
	})
	w := attentionWeights(m, q, k)
	a := m.MatMul(v, m.Transpose(w, 0, 1, 3, 2)) // [N, heads, c, T]
	a = t.perturbed(m, sampling.IdentityAttention, a, func(sampling.Perturbation) onnx.Value { return v })
	h := project(m.Reshape(a, n, c, height, width))
	t.mass(m, heads, height, width, order, w, func() onnx.Value { return qkv })
	return h
}

// mass makes the map of an attention layer over an image of height×width an output, for every tap of it: own
// are its weights where the graph has them, else the zero Value, and qkvOf gives
// its queries, keys and values [N,3C,T] in the given order. It is computed in float32,
// also of a layer in half precision: SAG's unet.py attention_from_qkv.
func (t *Taps) mass(m *onnx.Module, heads, height, width int, order qkvOrder, own onnx.Value, qkvOf func() onnx.Value) {
	hasMap := own.Name != "" && !m.IsHalf()
	m = m.Full()
	t.Visit(m, heads, height, width, func(tap sampling.Tap) onnx.Value {
		qkv := qkvOf()
		theirs, mapOrder, c := tap.Heads, order, qkv.Dim(1)/3
		if theirs == 0 {
			theirs = heads
		}
		if tap.Order == "legacy" {
			mapOrder = legacyOrder
		}
		if c%theirs != 0 {
			t.Problem("layer %s has %d channels, which %d heads do not divide", tap.Layer, c, theirs)
			theirs = heads
		}
		if hasMap && theirs == heads && mapOrder == order {
			return AttentionMass(m, own)
		}
		q, k, _ := splitQKV(m, qkv, theirs, mapOrder)
		return AttentionMass(m, attentionWeights(m, q, k))
	})
}
