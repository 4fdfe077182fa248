package models

import (
	"fmt"
	"math"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// An edm2UNet is UNet of NVlabs/edm2 training/networks_edm2.py: all flags are set.
// Equations are those of Karras et al. 2024 (arXiv:2312.02696).
type edm2UNet struct {
	*EDM2
	widths           []int
	noise, embedding int // channels of the noise's embedding, and of the whole
	labels           int
}

// build is Precond's networks: x [N,C,S,S] scaled, t [N] the noise label and, if
// conditional, y [N] → model [N,C,S,S] and logvar [N], which only training uses. A
// label of the number of classes is a row of zeros.
func (u *edm2UNet) build(m *onnx.Module, t *Taps) error {
	x := m.Input("x", checkpoint.F32, onnx.Batch, u.ImgChannels, u.ImgResolution, u.ImgResolution)
	steps := m.Input("t", checkpoint.F32, onnx.Batch)
	net := m.In("unet")
	emb := mpLinear(net.In("emb_noise"), mpFourier(net.In("emb_fourier"), steps, u.noise), u.embedding, nil)
	if u.labels > 0 {
		label := m.OneHot(m.Input("y", checkpoint.I64, onnx.Batch), u.labels)
		label = m.Mul(label, m.Scalar(float32(math.Sqrt(float64(u.labels)))))
		emb = mpSum(net, emb, mpLinear(net.In("emb_label"), label, u.embedding, nil), *u.LabelBalance)
	}
	emb = mpSiLU(net, emb)
	h, skips := u.encode(net.In("enc"), net.PadBack(x, 1, 1, 1), emb, t)
	h = u.decode(net.In("dec"), h, skips, emb, t)
	m.Output("model", mpConv(net.In("out_conv"), h, u.ImgChannels, 3, gain(net, "out_gain")))
	logvar := mpLinear(m.In("logvar_linear"), mpFourier(m.In("logvar_fourier"), steps, u.LogvarChannels), 1, nil)
	m.Output("logvar", m.Reshape(logvar, logvar.Dim(0)))
	return t.Output(m)
}

// encode is enc: x [N,C+1,S,S], its last channel ones → the last block's output and
// those of all.
func (u *edm2UNet) encode(m *onnx.Module, x, emb onnx.Value, t *Taps) (h onnx.Value, skips []onnx.Value) {
	h = x
	for level, width := range u.widths {
		size := u.ImgResolution >> level
		at := levelOf(m, size)
		if level == 0 {
			h = mpConv(at("conv"), h, width, 3, nil)
		} else {
			h = u.block(at("down"), h, emb, h.Dim(1), true, down, false, t)
		}
		skips = append(skips, h)
		for i := range u.NumBlocks {
			h = u.block(at(fmt.Sprint("block", i)), h, emb, width, true, same, slices.Contains(u.AttnResolutions, size), t)
			skips = append(skips, h)
		}
	}
	return h, skips
}

// decode is dec: each block0, block1, … takes the last skip that is left.
func (u *edm2UNet) decode(m *onnx.Module, h onnx.Value, skips []onnx.Value, emb onnx.Value, t *Taps) onnx.Value {
	for level, width := range slices.Backward(u.widths) {
		size := u.ImgResolution >> level
		at := levelOf(m, size)
		if level == len(u.widths)-1 {
			h = u.block(at("in0"), h, emb, h.Dim(1), false, same, true, t)
			h = u.block(at("in1"), h, emb, h.Dim(1), false, same, false, t)
		} else {
			h = u.block(at("up"), h, emb, h.Dim(1), false, up, false, t)
		}
		for i := range u.NumBlocks + 1 {
			h = mpCat(m, h, skips[len(skips)-1], *u.ConcatBalance)
			skips = skips[:len(skips)-1]
			h = u.block(at(fmt.Sprint("block", i)), h, emb, width, false, same, slices.Contains(u.AttnResolutions, size), t)
		}
	}
	return h
}

// block is Block (figure 21): x [N,C,H,W], emb [N,E] → [N,width,H',W'].
func (u *edm2UNet) block(m *onnx.Module, x, emb onnx.Value, width int, encoder bool, r resample, attends bool, t *Taps) onnx.Value {
	x = u.resample(m, x, r)
	if encoder {
		if x.Dim(1) != width {
			x = mpConv(m.In("conv_skip"), x, width, 1, nil)
		}
		x = pixelNorm(m, x)
	}
	y := mpConv(m.In("conv_res0"), mpSiLU(m, x), width, 3, nil)
	c := m.Add(mpLinear(m.In("emb_linear"), emb, width, gain(m, "emb_gain")), m.Scalar(1))
	y = mpSiLU(m, m.Mul(y, m.Reshape(c, c.Dim(0), width, 1, 1)))
	y = mpConv(m.In("conv_res1"), y, width, 3, nil)
	if !encoder && x.Dim(1) != width {
		x = mpConv(m.In("conv_skip"), x, width, 1, nil)
	}
	x = mpSum(m, x, y, *u.ResBalance)
	if heads := u.heads(width); attends && heads > 0 {
		qkv := mpConv(m.In("attn_qkv"), x, 3*width, 1, nil)
		y = selfAttention(m, qkv, heads, normalizedOrder, t, func(a onnx.Value) onnx.Value { return mpConv(m.In("attn_proj"), a, width, 1, nil) })
		x = t.Skippable(m, x, mpSum(m, x, y, *u.AttnBalance))
	}
	if limit := float32(*u.ClipAct); limit > 0 {
		x = m.Clip(x, -limit, limit)
	}
	return x
}

// heads is how many heads an attention layer of so many channels has; 0: none.
func (u *edm2UNet) heads(width int) int { return width / u.ChannelsPerHead }

func (u *edm2UNet) resample(m *onnx.Module, x onnx.Value, r resample) onnx.Value {
	return (&edmUNet{filter: u.ResampleFilter}).resample(m, x, r)
}

// A mpGain is a learned factor of an MPConv, of the scope and name.
type mpGain struct {
	m    *onnx.Module
	name string
}

// gain is a parameter without axes.
func gain(m *onnx.Module, name string) *mpGain { return &mpGain{m, name} }

// mpWeight is MPConv's weight of the given shape, [out,in,…], as it is used: of unit
// magnitude for each output, times gain/√fan-in (equations 47 and 66). The graph
// computes it of constants alone, which the runtime folds once, at load.
//
// A gain that a file holds in float16 is divided by √fan-in in float16, as
// generate_images.py leaves it.
func mpWeight(m *onnx.Module, g *mpGain, shape ...int) onnx.Value {
	w := m.Param("weight", shape...)
	fanIn := 1
	for _, d := range shape[1:] {
		fanIn *= d
	}
	root := math.Sqrt(float64(fanIn))
	rows := m.Reshape(w, shape[0], fanIn)
	norm := m.Sqrt(m.Sum(m.Mul(rows, rows), 1))
	norm = m.Add(m.Mul(norm, m.Scalar(float32(1/root))), m.Scalar(1e-4))
	w = m.Reshape(m.Div(rows, m.Reshape(norm, shape[0], 1)), shape...)
	if g == nil {
		return m.Mul(w, m.Scalar(float32(1/root)))
	}
	factor := m.Div(g.m.Param(g.name), m.Scalar(float32(root)))
	if g.m.Stored(g.name) == checkpoint.F16 {
		factor = m.Cast(m.Cast(factor, checkpoint.F16), checkpoint.F32)
	}
	return m.Mul(w, factor)
}

// mpConv is MPConv of an image with a square kernel: x [N,C,H,W] → [N,out,H,W].
func mpConv(m *onnx.Module, x onnx.Value, out, kernel int, g *mpGain) onnx.Value {
	return m.ConvBy(x, mpWeight(m, g, out, x.Dim(1), kernel, kernel), kernel/2)
}

// mpLinear is MPConv without a kernel: x [N,C] → [N,out].
func mpLinear(m *onnx.Module, x onnx.Value, out int, g *mpGain) onnx.Value {
	return m.MatMulTransposed(x, mpWeight(m, g, out, x.Dim(1)))
}

// mpFourier is MPFourier (equation 75): t [N] → [N,channels].
func mpFourier(m *onnx.Module, t onnx.Value, channels int) onnx.Value {
	arg := m.Mul(m.Reshape(t, t.Dim(0), 1), m.Reshape(m.Param("freqs", channels), 1, channels))
	arg = m.Add(arg, m.Param("phases", channels))
	return m.Mul(m.Cos(arg), m.Scalar(math.Sqrt2))
}

// mpSiLU is SiLU with the magnitude of its input (equation 81).
func mpSiLU(m *onnx.Module, x onnx.Value) onnx.Value {
	return m.Mul(m.SiLU(x), m.Scalar(1/0.596))
}

// mpSum is a + t (b − a) with the magnitude of its inputs (equation 88).
func mpSum(m *onnx.Module, a, b onnx.Value, t float64) onnx.Value {
	norm := math.Sqrt((1-t)*(1-t) + t*t)
	return m.Add(m.Mul(a, m.Scalar(float32((1-t)/norm))), m.Mul(b, m.Scalar(float32(t/norm))))
}

// mpCat is the channels of a and b with equal parts in magnitude (equation 103).
func mpCat(m *onnx.Module, a, b onnx.Value, t float64) onnx.Value {
	na, nb := float64(a.Dim(1)), float64(b.Dim(1))
	c := math.Sqrt((na + nb) / ((1-t)*(1-t) + t*t))
	return m.Concat(1, m.Mul(a, m.Scalar(float32(c/math.Sqrt(na)*(1-t)))), m.Mul(b, m.Scalar(float32(c/math.Sqrt(nb)*t))))
}

// pixelNorm is x [N,C,H,W] with unit magnitude at each position.
func pixelNorm(m *onnx.Module, x onnx.Value) onnx.Value {
	n, c := x.Dim(0), x.Dim(1)
	flat := m.Reshape(x, n, c, x.Dim(2)*x.Dim(3))
	return m.Reshape(channelNorm(m, flat), x.Shape...)
}

// channelNorm is x […,C,T] with unit magnitude along C. The sum of squares is a product
// with a constant row, for the reason that AttentionMass gives.
func channelNorm(m *onnx.Module, x onnx.Value) onnx.Value {
	c := x.Dim(-2)
	row := slices.Repeat([]float32{1}, c)
	norm := m.Sqrt(m.MatMul(m.Const(row, 1, c), m.Mul(x, x))) // […,1,T]
	norm = m.Add(m.Mul(norm, m.Scalar(float32(1/math.Sqrt(float64(c))))), m.Scalar(1e-4))
	return m.Div(x, norm)
}
