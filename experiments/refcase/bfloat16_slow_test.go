//go:build slow

package refcase

import (
	"math"
	"path/filepath"
	"testing"

	"sagbench/models/ort"
)

// TestOpenVINOBFloat16 holds networks in bfloat16 on OpenVINO's plugin against
// float32. How far they may be is what the same roundings do that the CPU emulates
// (onnx.Model.Lowered): twice as far, as OpenVINO rounds in other places as well, such
// as within norms; and a tenth as far at least, or it did not compute in bfloat16.
func TestOpenVINOBFloat16(t *testing.T) {
	openvino := ort.Options{Device: "openvino", Precision: ort.BFloat16}
	if err := openvino.CheckPrecision(ort.BFloat16); err != nil {
		t.Skip(err) // make onnxruntime DEVICE=openvino
	}
	for _, name := range []string{"adm-channel-mult-f16", "adm-head-channels", "adm-new-attention-order", "iddpm-cosine", "dit-tiny", "sd1-unet-tiny"} {
		t.Run(name, func(t *testing.T) {
			c, f, err := openCase(filepath.Join("testdata/cases", name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			distance := func(opt ort.Options) float64 {
				c.options = opt
				out, err := checkForward(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				want, err := c.tensors["out.model"].Float64()
				if err != nil {
					t.Fatal(err)
				}
				worst, top := 0.0, 0.0
				for i, v := range values(out["model"]) {
					worst, top = max(worst, math.Abs(v-want[i])), max(top, math.Abs(want[i]))
				}
				return worst / top
			}
			emulated, native := distance(ort.Options{Precision: ort.BFloat16}), distance(openvino)
			t.Logf("emulated %.1e, OpenVINO %.1e", emulated, native)
			if native > 2*emulated || native < emulated/10 {
				t.Errorf("OpenVINO's bfloat16 is %.1e from float32, the emulated one %.1e", native, emulated)
			}
		})
	}
}
