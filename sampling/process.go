package sampling

import (
	"math"

	"sagbench/models/tensor"
)

// Coefficients are the numbers of one step as they meet float32 tensors: the
// float64 tables rounded once. Source: gaussian_diffusion.py
// _extract_into_tensor. Products are rounded before they are summed, on every
// machine (Go may fuse them otherwise).
type Coefficients struct {
	AlphaBar     float32 // ᾱ_i
	AlphaBarPrev float32 // of the state to which the step goes: ᾱ_{i-1}; 1 at step 0 as a rule

	sqrtAlphaBar         float32 // √ᾱ
	sqrtOneMinusAlphaBar float32 // √(1−ᾱ)
	sqrtRecipAlphaBar    float32 // √(1/ᾱ)
	sqrtRecipM1AlphaBar  float32 // √(1/ᾱ − 1)
	posteriorMean1       float32 // √ᾱ_{i-1} β / (1−ᾱ)
	posteriorMean2       float32 // √α (1−ᾱ_{i-1}) / (1−ᾱ)
	minLog, maxLog       float32 // the learned range: log of the posterior's variance (clipped) and of β
	fixed, fixedLog      float32 // σ² and its logarithm where none is learned
}

// At is the coefficients of step i.
func (s *Schedule) At(i int) Coefficients {
	bar := s.alphaBar[i]
	fixed, fixedLog := s.FixedVariance(i)
	return Coefficients{
		AlphaBar:             float32(bar),
		AlphaBarPrev:         float32(s.alphaBarPrev[i]),
		sqrtAlphaBar:         float32(math.Sqrt(bar)),
		sqrtOneMinusAlphaBar: float32(math.Sqrt(1 - bar)),
		sqrtRecipAlphaBar:    float32(math.Sqrt(1 / bar)),
		sqrtRecipM1AlphaBar:  float32(math.Sqrt(1/bar - 1)),
		posteriorMean1:       float32(s.posteriorMean1[i]),
		posteriorMean2:       float32(s.posteriorMean2[i]),
		minLog:               float32(s.posteriorLogVariance[i]),
		maxLog:               float32(math.Log(s.beta[i])),
		fixed:                float32(fixed),
		fixedLog:             float32(fixedLog),
	}
}

// XStart is x̂0 = √(1/ᾱ) x_t − √(1/ᾱ−1) ε.
func (c *Coefficients) XStart(x, eps float32) float32 {
	return float32(c.sqrtRecipAlphaBar*x) - float32(c.sqrtRecipM1AlphaBar*eps)
}

// Eps is ε = (√(1/ᾱ) x_t − x_0) / √(1/ᾱ−1).
func (c *Coefficients) Eps(x, xStart float32) float32 {
	return (float32(c.sqrtRecipAlphaBar*x) - xStart) / c.sqrtRecipM1AlphaBar
}

// Noised is x_t = √ᾱ x_0 + √(1−ᾱ) ε, a sample of q(x_t | x_0).
func (c *Coefficients) Noised(xStart, eps float32) float32 {
	return float32(c.sqrtAlphaBar*xStart) + float32(c.sqrtOneMinusAlphaBar*eps)
}

// EpsFromV is ε = √ᾱ v + √(1−ᾱ) x_t (Salimans and Ho 2022, v = √ᾱ ε − √(1−ᾱ) x_0).
func (c *Coefficients) EpsFromV(x, v float32) float32 {
	return float32(c.sqrtAlphaBar*v) + float32(c.sqrtOneMinusAlphaBar*x)
}

// XStartFromV is x̂0 = √ᾱ x_t − √(1−ᾱ) v.
func (c *Coefficients) XStartFromV(x, v float32) float32 {
	return float32(c.sqrtAlphaBar*x) - float32(c.sqrtOneMinusAlphaBar*v)
}

// Split reads the output of a network of the given kind at x, both of any equal
// length: x̂0 goes to xStart, ε to eps. Nothing is clipped. It divides by √ᾱ only
// for networks that predict ε, so the others may be asked at a zero SNR.
func (c *Coefficients) Split(kind Parametrization, x, output, xStart, eps []float32) {
	output, xStart, eps = output[:len(x)], xStart[:len(x)], eps[:len(x)]
	switch kind {
	case V:
		for j, v := range output {
			xStart[j], eps[j] = c.XStartFromV(x[j], v), c.EpsFromV(x[j], v)
		}
	case XStart:
		for j, v := range output {
			xStart[j], eps[j] = v, (x[j]-float32(c.sqrtAlphaBar*v))/c.sqrtOneMinusAlphaBar
		}
	default:
		for j, v := range output {
			xStart[j], eps[j] = c.XStart(x[j], v), v
		}
	}
}

// Shift is what a score adds to the output of a network of the given kind: the
// factor f of output += f·Score that makes ε −= √(1−ᾱ)·Score (Dhariwal and
// Nichol 2021, algorithm 2).
func (c *Coefficients) Shift(kind Parametrization) float32 {
	switch kind {
	case V:
		return -c.sqrtOneMinusAlphaBar / c.sqrtAlphaBar
	case XStart:
		return c.sqrtOneMinusAlphaBar * c.sqrtOneMinusAlphaBar / c.sqrtAlphaBar
	}
	return -c.sqrtOneMinusAlphaBar
}

// PosteriorMean is the mean of q(x_{t-1} | x_t, x_0).
func (c *Coefficients) PosteriorMean(xStart, x float32) float32 {
	return float32(c.posteriorMean1*xStart) + float32(c.posteriorMean2*x)
}

// LearnedLogVariance is log σ² for the network's v in [-1,1], which
// interpolates between the posterior's variance and β (Nichol and Dhariwal
// 2021, equation 15).
func (c *Coefficients) LearnedLogVariance(v float32) float32 {
	frac := (v + 1) / 2
	return float32(frac*c.maxLog) + float32((1-frac)*c.minLog)
}

// Clip is v limited to [-1,1]; NaN stays NaN.
func Clip(v float32) float32 { return max(-1, min(v, 1)) }

// PredictXStart is x̂0 at step i from x_t and ε, both [N,…]; not clipped.
func (s *Schedule) PredictXStart(i int, x, eps tensor.Tensor) tensor.Tensor {
	c := s.At(i)
	return combine(x, eps, c.XStart)
}

// PredictEps is ε at step i from x_t and x_0, both [N,…].
func (s *Schedule) PredictEps(i int, x, xStart tensor.Tensor) tensor.Tensor {
	c := s.At(i)
	return combine(x, xStart, c.Eps)
}

// QSample is x_t at step i from x_0 and the noise ε, both [N,…].
func (s *Schedule) QSample(i int, xStart, eps tensor.Tensor) tensor.Tensor {
	c := s.At(i)
	return combine(xStart, eps, c.Noised)
}

// PosteriorMean is the mean of q(x_{i-1} | x_i, x_0) from x_0 and x_i, both [N,…].
func (s *Schedule) PosteriorMean(i int, xStart, x tensor.Tensor) tensor.Tensor {
	c := s.At(i)
	return combine(xStart, x, c.PosteriorMean)
}

// combine is f(a, b) element by element; both have the same shape, [N,…].
func combine(a, b tensor.Tensor, f func(a, b float32) float32) tensor.Tensor {
	out := a.Like()
	EachImage(a.Rows(), func(i int) {
		dst, a, b := out.Row(i), a.Row(i), b.Row(i)
		for j := range dst {
			dst[j] = f(a[j], b[j])
		}
	})
	return out
}
