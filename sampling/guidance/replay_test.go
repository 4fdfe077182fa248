package guidance

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"

	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// reference reads the float32 tensors of a reference case.
func reference(t *testing.T, file string) map[string]tensor.Tensor {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	header := map[string]struct {
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}{}
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string]tensor.Tensor{}
	for name, h := range header {
		v := tensor.New(h.Shape...)
		for i := range v.Data {
			v.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[int(8+n)+h.Offsets[0]+4*i:]))
		}
		out[name] = v
	}
	return out
}

func row(v tensor.Tensor, k int) tensor.Tensor { return tensor.Of(v.Row(k), v.Shape[1:]...) }

// recording answers the first call of each step with the ε at which diffusers'
// SAG pipeline arrived, and a tapped map.
type recording struct {
	eps, attention tensor.Tensor // [calls,N,…]
	calls          int
}

func (r *recording) Denoise(context.Context, tensor.Tensor, sampling.Timestep, sampling.Cond) (sampling.Prediction, error) {
	k := r.calls
	r.calls++
	return sampling.Prediction{Eps: row(r.eps, k).Clone(), Attn: row(r.attention, k)}, nil
}

// The PNDM loop of diffusers' SAG pipeline, given its guided ε; and in each call
// the latents that it degraded differ from the state in the places of our mask,
// and there alone.
func TestStableDiffusionReplay(t *testing.T) {
	r := reference(t, "sample-sd-sag-pndm.safetensors")
	config := latents("epsilon")
	config.Scheduler.TimestepSpacing, config.Scheduler.StepsOffset, config.Scheduler.SetAlphaToOne = new("leading"), new(1), new(false)
	sampler := &sampling.PNDM{Steps: 6}
	s, err := sampler.Schedule(config)
	if err != nil {
		t.Fatal(err)
	}
	masks, err := newMasker(64, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	state, k := r["in.x_T"], 0
	p := &sampling.Predictor{Denoiser: &recording{eps: r["out.eps"], attention: r["out.attention"]}, Schedule: s,
		Trace: func(name string, _ sampling.Timestep, v tensor.Tensor) {
			if name != "x" {
				return
			}
			if err := near(v.Data, r["out.x"].Row(k), 2e-6); err != nil {
				t.Errorf("state after call %d: %v", k, err)
			}
			degraded, mask := row(r["out.degraded"], k), make([]bool, 16*16)
			for n := range 2 {
				masks.mask(mask, row(r["out.attention"], k).Row(n), 1)
				for j, masked := range mask {
					change := 0.0
					for c := range 4 {
						change = max(change, math.Abs(float64(degraded.Row(n)[c*256+j]-state.Row(n)[c*256+j])))
					}
					if masked != (change > 1e-5) {
						t.Errorf("call %d, image %d, position %d: masked %v, changed by %.2g", k, n, j, masked, change)
					}
				}
			}
			state, k = row(r["out.x"], k), k+1
		}}
	if _, err := sampler.Sample(t.Context(), p, r["in.x_T"], nil); err != nil {
		t.Fatal(err)
	}
	if k != 7 {
		t.Errorf("%d calls, want 7", k)
	}
}

// twice answers the first call with one output and the second with another.
type twice struct {
	first, second, attention tensor.Tensor
	calls                    int
}

func (d *twice) Denoise(context.Context, tensor.Tensor, sampling.Timestep, sampling.Cond) (sampling.Prediction, error) {
	d.calls++
	if d.calls == 1 {
		return sampling.Prediction{Eps: d.first, Attn: d.attention}, nil
	}
	return sampling.Prediction{Eps: d.second.Clone()}, nil
}

// What diffusers 0.42.1 StableDiffusionSAGPipeline's pred_x0, pred_epsilon and
// sag_masking make of latents of 9×13, a map of 3×4 and recorded outputs, at
// t = 501: networks that predict ε, v and x_0.
func TestDiffusersReading(t *testing.T) {
	r := reference(t, "diffusers-sag.safetensors")
	for prediction, predicts := range map[string]sampling.Parametrization{"epsilon": "", "v_prediction": sampling.V, "sample": sampling.XStart} {
		config := latents(prediction)
		config.Scheduler.TimestepSpacing, config.Scheduler.StepsOffset = new("leading"), new(1)
		s, err := (&sampling.DDIM{Steps: 10}).Schedule(config)
		if err != nil {
			t.Fatal(err)
		}
		g := sagPresets["diffusers"]()
		get := func(name string) tensor.Tensor { return r[prediction+"."+name] }
		p := &sampling.Predictor{
			Denoiser: &twice{first: get("output"), second: get("degraded_output"), attention: get("attention")},
			Schedule: s, Predicts: predicts, ClipDenoised: true, // which the preset overrules
			Trace: func(name string, _ sampling.Timestep, v tensor.Tensor) {
				if want, ok := r[prediction+"."+name]; !ok || near(v.Data, want.Data, 3e-6) != nil {
					t.Errorf("%s: %s: %v", prediction, name, near(v.Data, want.Data, 3e-6))
				}
			},
		}
		delta, err := g.Delta(t.Context(), p.Step(get("x"), s.Timestep(5)))
		if err != nil {
			t.Fatal(err)
		}
		if err := near(delta.Eps.Data, get("delta").Data, 1e-6); err != nil {
			t.Errorf("%s: Δ: %v", prediction, err)
		}
	}
}
