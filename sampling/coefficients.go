package sampling

import (
	"math"
)

// Coefficients are the numbers of one step as they meet float32 tensors, the
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

	point Point // of a process in continuous time
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

// Split reads the output of a network of the given kind at x: x̂0 goes to xStart,
// ε to eps; all of one length, any. Nothing is clipped. It divides by √ᾱ only for
// networks that predict ε or the score, so the others may be asked at a zero SNR.
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
	case Flow, Score:
		p, q, d := c.stands(kind)
		for j, v := range output {
			xStart[j] = (float32(q*x[j]) - float32(c.sqrtOneMinusAlphaBar*v)) / d
			eps[j] = (float32(c.sqrtAlphaBar*v) - float32(p*x[j])) / d
		}
	default:
		for j, v := range output {
			xStart[j], eps[j] = c.XStart(x[j], v), v
		}
	}
}

// stands is what an output of a kind of continuous time stands for, p x_0 + q ε,
// and the slope of the kind.
func (c *Coefficients) stands(kind Parametrization) (p, q, slope float32) {
	ofXStart, ofEps := c.point.stands(kind)
	length := c.point.Length()
	return float32(ofXStart), float32(ofEps), float32((c.point.Alpha*ofEps - c.point.Sigma*ofXStart) / length)
}

// Output sets dst to the output of a network of the given kind that predicts x̂0
// and ε: what Split reads. All are of one length, any.
func (c *Coefficients) Output(kind Parametrization, xStart, eps, dst []float32) {
	xStart, eps = xStart[:len(dst)], eps[:len(dst)]
	switch kind {
	case XStart:
		copy(dst, xStart)
	case V:
		for j, e := range eps {
			dst[j] = float32(c.sqrtAlphaBar*e) - float32(c.sqrtOneMinusAlphaBar*xStart[j])
		}
	case Velocity:
		for j, e := range eps {
			dst[j] = e - xStart[j]
		}
	case Flow, Score:
		p, q, _ := c.stands(kind)
		for j, e := range eps {
			dst[j] = float32(p*xStart[j]) + float32(q*e)
		}
	default:
		copy(dst, eps)
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
	case Flow, Score:
		return -c.sqrtOneMinusAlphaBar * c.Slope(kind) / c.sqrtAlphaBar
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

// A Parametrization is what a network was trained to predict.
type Parametrization string

// The parametrizations; x̂0 and ε follow from any of them.
const (
	Epsilon Parametrization = "epsilon" // the noise
	XStart  Parametrization = "x_start" // the image x_0
	V       Parametrization = "v"       // √ᾱ ε − √(1−ᾱ) x_0 (Salimans and Ho 2022)

	// Of processes in continuous time alone (Path):
	Flow  Parametrization = "flow"  // the path's velocity, dα/dt x_0 + dσ/dt ε (Ma et al. 2024)
	Score Parametrization = "score" // ∇ log p of the path's state, −ε/σ
)

// Velocity is ε − x_0, the velocity of flow matching on the straight path from
// x_0 to ε (Liu et al. 2023), whose state is x_t/(√ᾱ+√(1−ᾱ)). It is −Flow on SiT's
// linear path; guidances that were made for flow matching work in it, whatever the
// network predicts.
const Velocity Parametrization = "velocity"

// Express sets dst to the output of a network of the given kind at x, in another
// parametrization; all of one length, any.
func (c *Coefficients) Express(output []float32, kind Parametrization, x []float32, as Parametrization, dst []float32) {
	eps := make([]float32, len(dst))
	c.Split(kind, x, output, dst, eps) // dst: x̂0
	c.Output(as, dst, eps, dst)
}

// Slope is how much the parametrization changes beside the others, at a fixed
// x_t: where one changes by d, another changes by d times the ratio of their
// slopes. ε does not change where no signal is left, and has the slope 0 there.
func (c *Coefficients) Slope(kind Parametrization) float32 {
	switch kind {
	case XStart:
		return -c.sqrtOneMinusAlphaBar
	case V:
		return 1
	case Velocity:
		return c.sqrtAlphaBar + c.sqrtOneMinusAlphaBar
	case Flow, Score:
		_, _, slope := c.stands(kind)
		return slope
	}
	return c.sqrtAlphaBar
}
