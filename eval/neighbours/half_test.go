package neighbours

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/x448/float16"
)

// roundHalf against an independent implementation, on every float16 and on
// what lies between.
func TestRoundHalf(t *testing.T) {
	check := func(x float32) {
		want := float16.Fromfloat32(x).Float32()
		got, got32 := float32(roundHalf(float64(x))), roundHalf32(x)
		if math.IsNaN(float64(want)) {
			if got == got || got32 == got32 {
				t.Errorf("%v: got %v and %v, want NaN", x, got, got32)
			}
			return
		}
		if got != want || got32 != want {
			t.Errorf("%v: got %v and %v, want %v", x, got, got32, want)
		}
	}
	for i := range 1 << 16 {
		x := float16.Frombits(uint16(i)).Float32()
		check(x)
		next := float16.Frombits(uint16(i) + 1).Float32()
		check(x/2 + next/2) // a tie
		check(math.Nextafter32(x/2+next/2, x))
		check(math.Nextafter32(x/2+next/2, next))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		check(math.Float32frombits(r.Uint32()))
	}
}

// One rounding where two would go wrong: 1 + 2⁻¹¹ is a tie, a little more is
// not, but float32 would make it one.
func TestRoundHalfOnce(t *testing.T) {
	tie := 1 + 0x1p-11
	if got := roundHalf(tie); got != 1 {
		t.Errorf("tie: got %v, want 1", got)
	}
	if got, want := roundHalf(tie+0x1p-40), 1+0x1p-10; got != want {
		t.Errorf("above the tie: got %v, want %v", got, want)
	}
}

func TestNormHalfOverflows(t *testing.T) {
	row := make([]float32, 40)
	for i := range row {
		row[i] = 50
	}
	for _, norm := range []func([]float32) float64{normHalf, normHalfEigen} {
		if got := norm(row); !math.IsInf(got, 1) {
			t.Errorf("|u|² = 100000: got %v, want +Inf", got)
		}
	}
	// The order of additions shows: 2048 + 1 + 1 stays 2048 in one lane.
	long := make([]float32, 33)
	long[0], long[32] = 45.25, 1 // 45.25² = 2047.56…, in float16 2048
	if got := normHalf(long); got != 2048 {
		t.Errorf("exact sum: got %v, want 2048 (2049 is a tie)", got)
	}
}
