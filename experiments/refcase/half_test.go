package refcase

import (
	"bytes"
	"path/filepath"
	"testing"

	"sagbench/models/ort"
)

// Networks in half precision, each family that has it, are within eight of the type's
// roundings of float32: the emulation makes no other errors. (Sines of the sizes in
// float16 were 19 roundings.)
func TestHalfPrecision(t *testing.T) {
	for _, name := range []string{"adm-channel-mult-f16", "adm-head-channels", "iddpm-cosine", "classifier-tiny", "dit-tiny", "sd1-unet-tiny", "sdxl-unet-tiny"} {
		for precision, rounding := range map[string]float64{ort.BFloat16: 1. / 256, ort.Float16: 1. / 2048} {
			within(t, name, precision, 8*rounding, true)
		}
	}
	within(t, "dit-tiny", ort.Float16, 1./2048/10, false) // it is not float32
}

func within(t *testing.T, name, precision string, tolerance float64, want bool) {
	t.Helper()
	var out bytes.Buffer
	o := Options{Tolerance: tolerance, Runtime: ort.Options{Precision: precision}}
	if ok, err := checkCase(t.Context(), &out, filepath.Join("testdata/cases", name), o); ok != want || err != nil {
		t.Errorf("%s in %s, within %.2g: %v, want %v; %v\n%s", name, precision, tolerance, ok, want, err, &out)
	}
}
