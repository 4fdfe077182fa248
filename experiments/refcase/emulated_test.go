package refcase

import (
	"bytes"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models/ort"
)

// A device in half precision is held against what the CPU's emulation is off by: the
// CPU itself is off by that much, neither more nor less.
func TestEmulatedTolerance(t *testing.T) {
	for times, want := range map[float64]bool{1: true, 0.99: false} {
		var out bytes.Buffer
		o := Options{Emulated: times, Runtime: ort.Options{Precision: ort.BFloat16}}
		err := Check(t.Context(), &out, []string{filepath.Join("testdata/cases", "dit-tiny")}, o)
		if (err == nil) != want {
			t.Errorf("%v of its own error: %v\n%s", times, err, &out)
		}
	}
	for precision, want := range map[string]string{"": "found float32", ort.Float32: "found float32", ort.TF32: "1 of 1 cases failed"} {
		var out bytes.Buffer
		err := Check(t.Context(), &out, []string{filepath.Join("testdata/cases", "dit-tiny")}, Options{Emulated: 2, Runtime: ort.Options{Precision: precision}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", precision, err)
		}
	}
	if err := Check(t.Context(), io.Discard, nil, Options{Emulated: math.NaN()}); err == nil || !strings.Contains(err.Error(), "found NaN") {
		t.Error(err)
	}
}
