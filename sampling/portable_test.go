package sampling

import (
	"math"
	"testing"
)

func TestLogUniform(t *testing.T) {
	for _, r := range corners() {
		want := math.Log((float64(r) + 0.5) / (1 << 32))
		if got := logUniform(r); math.Abs(got-want) > 1e-13*max(1, math.Abs(want)) || got >= 0 {
			t.Errorf("logUniform(%#x) = %.17g, want %.17g", r, got, want)
		}
	}
}

func TestTurn(t *testing.T) {
	for _, r := range corners() {
		sin, cos := math.Sincos(float64(r) * (2 * math.Pi / (1 << 32)))
		c, s := turn(r)
		if math.Abs(c-cos) > 1e-11 || math.Abs(s-sin) > 1e-11 {
			t.Errorf("turn(%#x) = %.15g, %.15g, want %.15g, %.15g", r, c, s, cos, sin)
		}
	}
}

// corners is the ends of every cell of the tables, and a walk over all words.
func corners() []uint32 {
	out := []uint32{0, 1, 2, math.MaxUint32, math.MaxUint32 - 1, 1 << 31}
	for cell := range uint32(512) {
		out = append(out, cell<<23, cell<<23-1)
	}
	for r := uint32(12345); len(out) < 50000; r += 0x9E3779B1 {
		out = append(out, r, r>>(r&31))
	}
	return out
}

func TestExp32(t *testing.T) {
	for x := float32(-105); x < 90; x += 0.00317 {
		want := math.Exp(float64(x))
		got := float64(exp32(x))
		// half a unit in the last place, also of subnormal numbers
		unit := math.Ldexp(1, max(-149, math.Ilogb(max(want, 1e-300))-23))
		if want < math.MaxFloat32 && math.Abs(got-want) > 0.5001*unit {
			t.Fatalf("exp32(%g) = %g, want %g", x, got, want)
		}
	}
	inf := float32(math.Inf(1))
	if exp32(-inf) != 0 || exp32(-110) != 0 || exp32(0) != 1 || exp32(100) != inf || exp32(inf) != inf || exp32(88.8) != inf {
		t.Error("exp32 at its ends is wrong")
	}
	if v := exp32(float32(math.NaN())); v == v {
		t.Errorf("exp32(NaN) = %g", v)
	}
}
