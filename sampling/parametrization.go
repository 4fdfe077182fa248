package sampling

// A Parametrization is what a network was trained to predict.
type Parametrization string

// The parametrizations; x̂0 and ε follow from any of them.
const (
	Epsilon Parametrization = "epsilon" // the noise
	XStart  Parametrization = "x_start" // the image x_0
	V       Parametrization = "v"       // √ᾱ ε − √(1−ᾱ) x_0 (Salimans and Ho 2022)
)

// Velocity is ε − x_0, the velocity of flow matching on the straight path from
// x_0 to ε (Liu et al. 2023), whose state is x_t/(√ᾱ+√(1−ᾱ)). No network here
// predicts it; guidances that were made for flow matching work in it.
const Velocity Parametrization = "velocity"

// Express sets dst to what a network's output at x says in another
// parametrization; all of any equal length.
func (c *Coefficients) Express(output []float32, kind Parametrization, x []float32, as Parametrization, dst []float32) {
	eps := make([]float32, len(dst))
	c.Split(kind, x, output, dst, eps) // dst: x̂0
	switch as {
	case XStart:
	case V:
		for j, e := range eps {
			dst[j] = float32(c.sqrtAlphaBar*e) - float32(c.sqrtOneMinusAlphaBar*dst[j])
		}
	case Velocity:
		for j, e := range eps {
			dst[j] = e - dst[j]
		}
	default:
		copy(dst, eps)
	}
}

// Slope is how far the parametrization moves, at a fixed x_t, beside the others:
// where one moves by d, another one moves by d times the ratio of their slopes.
// ε stands still where no signal is left, and has the slope 0 there.
func (c *Coefficients) Slope(kind Parametrization) float32 {
	switch kind {
	case XStart:
		return -c.sqrtOneMinusAlphaBar
	case V:
		return 1
	case Velocity:
		return c.sqrtAlphaBar + c.sqrtOneMinusAlphaBar
	}
	return c.sqrtAlphaBar
}
