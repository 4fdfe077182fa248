package models

import (
	"math"

	"sagbench/models/onnx"
)

// resnet2D is diffusers' models/resnet.py ResnetBlock2D: x [N,C,H,W], emb [N,E]
// (the zero Value where the network knows no time) → [N,out,H,W].
func resnet2D(m *onnx.Module, x, emb onnx.Value, out, groups int, eps float64) onnx.Value {
	h := m.SiLU(m.In("norm1").GroupNormEps(x, groups, eps))
	h = m.In("conv1").Conv2D(h, out, 3, 1, 1)
	if emb.Name != "" {
		e := m.In("time_emb_proj").Linear(m.SiLU(emb), out)
		h = m.Add(h, m.Reshape(e, e.Dim(0), out, 1, 1))
	}
	h = m.SiLU(m.In("norm2").GroupNormEps(h, groups, eps))
	h = m.In("conv2").Conv2D(h, out, 3, 1, 1)
	if x.Dim(1) != out {
		x = m.In("conv_shortcut").Conv2D(x, out, 1, 1, 0)
	}
	return m.Add(x, h)
}

// pixelsToTokens is [N,C,H,W] → [N,H·W,C].
func pixelsToTokens(m *onnx.Module, x onnx.Value) onnx.Value {
	t := m.Reshape(x, x.Dim(0), x.Dim(1), x.Dim(2)*x.Dim(3))
	return m.Transpose(t, 0, 2, 1)
}

// tokensToPixels is [N,H·W,C] → [N,C,H,W].
func tokensToPixels(m *onnx.Module, x onnx.Value, height, width int) onnx.Value {
	return m.Reshape(m.Transpose(x, 0, 2, 1), x.Dim(0), x.Dim(2), height, width)
}

// splitHeads is [N,T,D] → [N,heads,T,D/heads].
func splitHeads(m *onnx.Module, x onnx.Value, heads int) onnx.Value {
	return m.Transpose(m.Reshape(x, x.Dim(0), x.Dim(1), heads, x.Dim(2)/heads), 0, 2, 1, 3)
}

// mergeHeads is [N,heads,T,d] → [N,T,heads·d].
func mergeHeads(m *onnx.Module, x onnx.Value) onnx.Value {
	return m.Reshape(m.Transpose(x, 0, 2, 1, 3), x.Dim(0), x.Dim(2), x.Dim(1)*x.Dim(3))
}

// attentionScores is q·kᵀ/√d, queries before keys: q [N,T,D] and k [N,S,D] →
// [N,heads,T,S].
func attentionScores(m *onnx.Module, q, k onnx.Value, heads int) onnx.Value {
	scale := m.Scalar(float32(1 / math.Sqrt(float64(q.Dim(2)/heads))))
	kt := m.Transpose(m.Reshape(k, k.Dim(0), k.Dim(1), heads, k.Dim(2)/heads), 0, 2, 3, 1)
	return m.Mul(m.MatMul(splitHeads(m, q, heads), kt), scale)
}
