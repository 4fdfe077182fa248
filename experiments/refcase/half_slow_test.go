//go:build slow

package refcase

import (
	"math"
	"path/filepath"
	"testing"

	"sagbench/models/ort"
)

// TestOpenVINOHalf holds networks in half precision on OpenVINO's plugin against
// float32. How far they may be is what the same roundings do that the CPU emulates
// (onnx.Model.Lowered): twice as far, as OpenVINO rounds within norms and the like as
// well; and a tenth as far at least, or it did not compute in the type.
func TestOpenVINOHalf(t *testing.T) {
	for _, precision := range []string{ort.BFloat16, ort.Float16} {
		openvino := ort.Options{Device: "openvino", Precision: precision}
		if err := openvino.CheckPrecision(precision); err != nil {
			t.Log(err) // make onnxruntime DEVICE=openvino
			continue
		}
		for _, name := range []string{"adm-channel-mult-f16", "adm-head-channels", "adm-new-attention-order", "iddpm-cosine", "dit-tiny", "sd1-unet-tiny", "sdxl-unet-tiny"} {
			t.Run(precision+"/"+name, func(t *testing.T) {
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
				emulated, native := distance(ort.Options{Precision: precision}), distance(openvino)
				t.Logf("emulated %.1e, OpenVINO %.1e", emulated, native)
				if native > 2*emulated || native < emulated/10 {
					t.Errorf("OpenVINO's %s is %.1e from float32, the emulated one %.1e", precision, native, emulated)
				}
			})
		}
	}
}
