package sampling

import (
	"fmt"
	"math"
)

// A dopri5 solves dy/dt = f(t, y) by the method of Dormand and Prince of fifth order,
// with steps that keep the estimated error of each, by its root mean square over the
// values, within atol + rtol |y|. Source: torchdiffeq 0.2.5, _impl/rk_common.py
// RKAdaptiveStepsizeODESolver, dopri5.py, interp.py and misc.py; Hairer, Nørsett and
// Wanner, Solving Ordinary Differential Equations I, II.4 and II.5.
type dopri5 struct {
	flow       func(t float64, y, f []float64) error
	atol, rtol float64

	y      []float64    // at t
	k      [7][]float64 // derivatives within the last step; k[0] is that at t
	from   float64      // of the last step
	t, h   float64      // where the last step ended; the next step
	curve  [5][]float64 // coefficients of the polynomial over the last step
	trials int
}

// dopriStages are the rows of the tableau: time, and weights of the derivatives so far.
var dopriStages = [6]struct {
	time    float64
	weights []float64
}{
	{1. / 5, []float64{1. / 5}},
	{3. / 10, []float64{3. / 40, 9. / 40}},
	{4. / 5, []float64{44. / 45, -56. / 15, 32. / 9}},
	{8. / 9, []float64{19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729}},
	{1, []float64{9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656}},
	{1, []float64{35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84}}, // the solution
}

// dopriError are the weights of the error, dopriMiddle those of the state half-way.
var (
	dopriError = []float64{
		35./384 - 1951./21600, 0, 500./1113 - 22642./50085, 125./192 - 451./720, -2187./6784 + 12231./42400, 11./84 - 649./6300, -1. / 60,
	}
	dopriMiddle = []float64{
		6025192743. / 30085553152 / 2, 0, 51252292925. / 65400821598 / 2, -2691868925. / 45128329728 / 2,
		187940372067. / 1594534317056 / 2, -1776094331. / 19743644256 / 2, 11237099. / 235043384 / 2,
	}
)

// maxTrials bounds the steps against tolerances that no step can meet.
const maxTrials = 100_000

// begin finds the derivative at the start, and the first step.
func (d *dopri5) begin(t float64) error {
	d.from, d.t = t, t
	for i := range d.k {
		d.k[i] = make([]float64, len(d.y))
	}
	for i := range d.curve {
		d.curve[i] = make([]float64, len(d.y))
	}
	if err := d.flow(t, d.y, d.k[0]); err != nil {
		return err
	}
	d0, d1 := d.norm(d.y, d.y, d.y), d.norm(d.k[0], d.y, d.y)
	h := 1e-6
	if d0 >= 1e-5 && d1 >= 1e-5 {
		h = 0.01 * d0 / d1
	}
	trial := d.stage(h, []float64{1})
	if err := d.flow(t+h, trial, d.k[1]); err != nil {
		return err
	}
	for i, v := range d.k[0] {
		d.k[1][i] -= v
	}
	d2 := d.norm(d.k[1], d.y, d.y) / h
	d.h = max(1e-6, h*1e-3)
	if d1 > 1e-15 || d2 > 1e-15 {
		d.h = math.Pow(0.01/max(d1, d2), 1./5)
	}
	d.h = min(100*h, d.h)
	return nil
}

// norm is the root mean square of v over atol + rtol max(|a|, |b|).
func (d *dopri5) norm(v, a, b []float64) float64 {
	sum := 0.0
	for i, e := range v {
		e /= d.atol + d.rtol*max(math.Abs(a[i]), math.Abs(b[i]))
		sum += float64(e * e)
	}
	return math.Sqrt(sum / float64(len(v)))
}

// stage is y + h Σ weights k.
func (d *dopri5) stage(h float64, weights []float64) []float64 {
	out := make([]float64, len(d.y))
	for i, y := range d.y {
		sum := 0.0
		for j, w := range weights {
			sum += float64(w * d.k[j][i])
		}
		out[i] = y + float64(h*sum)
	}
	return out
}

// advance takes steps until one ends at t or after it, and sets x to the state at t.
func (d *dopri5) advance(t float64, x []float32) error {
	for t > d.t {
		if err := d.step(); err != nil {
			return err
		}
	}
	at := (t - d.from) / (d.t - d.from)
	for i := range x {
		y := 0.0
		for j := len(d.curve) - 1; j >= 0; j-- {
			y = d.curve[j][i] + float64(at*y)
		}
		x[i] = float32(y)
	}
	return nil
}

// step tries one step, and takes it where its error is small enough.
func (d *dopri5) step() error {
	if d.trials++; d.trials > maxTrials || !(d.t+d.h > d.t) {
		return fmt.Errorf("sampling: dopri5 does not get on at time %g, with a step of %g after %d; a larger atol or rtol asks less of it", d.t, d.h, d.trials-1)
	}
	start, end := d.k[0], d.t+d.h
	var y []float64
	for i, s := range dopriStages {
		t := d.t + float64(s.time*d.h)
		if s.time == 1 { // the solver stays below the end, in float32
			t = float64(math.Nextafter32(float32(end), -1))
		}
		y = d.stage(d.h, s.weights)
		if err := d.flow(t, y, d.k[i+1]); err != nil {
			return err
		}
	}
	off := d.stage(d.h, dopriError)
	for i, v := range d.y {
		off[i] -= v
	}
	ratio, h := d.norm(off, d.y, y), d.h
	switch {
	case ratio == 0:
		d.h *= 10
	case ratio < 1:
		d.h *= min(10, max(0.9/math.Pow(ratio, 1./5), 1))
	default:
		d.h *= min(10, max(0.9/math.Pow(ratio, 1./5), 0.2))
	}
	if !(ratio <= 1) {
		return nil
	}
	d.fit(h, y)
	d.from, d.t, d.y = d.t, end, y
	d.k[0], d.k[6] = d.k[6], start
	return nil
}

// fit is the polynomial that has the states and derivatives at both ends of the step,
// and the state half-way: interp.py _interp_fit.
func (d *dopri5) fit(h float64, y1 []float64) {
	middle := d.stage(h, dopriMiddle)
	for i, y0 := range d.y {
		f0, f1, y1, mid := d.k[0][i], d.k[6][i], y1[i], middle[i]
		d.curve[0][i], d.curve[1][i] = y0, h*f0
		d.curve[2][i] = h*(f1-4*f0) - 11*y0 - 5*y1 + 16*mid
		d.curve[3][i] = h*(5*f0-3*f1) + 18*y0 + 14*y1 - 32*mid
		d.curve[4][i] = 2*h*(f1-f0) - 8*(y1+y0) + 16*mid
	}
}
