package sampling

// A Parametrization is what a network was trained to predict.
type Parametrization string

// The parametrizations; x̂0 and ε follow from any of them.
const (
	Epsilon Parametrization = "epsilon" // the noise
	XStart  Parametrization = "x_start" // the image x_0
	V       Parametrization = "v"       // √ᾱ ε − √(1−ᾱ) x_0 (Salimans and Ho 2022)
)
