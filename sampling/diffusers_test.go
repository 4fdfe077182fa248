package sampling

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"testing"

	"sagbench/sampling/tensor"
)

// What the schedulers of diffusers 0.42.1 make of recorded network outputs: one
// case a line, of an image of two channels and one pixel; call k is answered
// with row k of eps, whatever the state is.
type diffusersCase struct {
	Name           string          `json:"name"`
	Config         json.RawMessage `json:"config"`
	Steps          int             `json:"steps"`
	Eta            float64         `json:"eta"`
	Eps            []float32       `json:"eps"` // [calls,2]
	Start          []float32       `json:"x_T"`
	Noise          []float32       `json:"noise"`
	Timesteps      []float64       `json:"timesteps"`
	X              []float32       `json:"x"` // [calls,2]
	InitNoiseSigma float64         `json:"init_noise_sigma"`
}

func (c *diffusersCase) sampler(config *SchedulerConfig) Sampler {
	switch config.Sampler() {
	case "ddpm":
		return &DDPM{Steps: c.Steps}
	case "ddim":
		return &DDIM{Steps: c.Steps, Eta: c.Eta}
	case "pndm":
		return &PNDM{Steps: c.Steps}
	case "euler":
		return &Euler{Steps: c.Steps}
	}
	return &DPMSolver2M{Steps: c.Steps}
}

func TestDiffusers(t *testing.T) {
	f, err := os.Open("testdata/diffusers.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, count := bufio.NewScanner(f), 0
	for ; lines.Scan(); count++ {
		var c diffusersCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		t.Run(c.Name, func(t *testing.T) { c.run(t) })
	}
	if count < 250 {
		t.Errorf("%d cases", count)
	}
}

func (c *diffusersCase) run(t *testing.T) {
	config, err := ParseSchedulerConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	sampler := c.sampler(config)
	s := scheduleOf(t, sampler, ScheduleConfig{Scheduler: config})
	if c.InitNoiseSigma == 0 {
		c.InitNoiseSigma = 1
	}
	if math.Abs(s.InitNoiseSigma()/c.InitNoiseSigma-1) > 1e-6 {
		t.Errorf("init_noise_sigma is %g, want %g", s.InitNoiseSigma(), c.InitNoiseSigma)
	}
	var times []float64
	k := 0
	p := &Predictor{
		Schedule: s, Predicts: config.Predicts(), ClipDenoised: config.ClipDenoised(),
		Denoiser: denoise(func(x tensor.Tensor, at Timestep, _ Cond) (Prediction, error) {
			times = append(times, at.Value)
			out := x.Like()
			copy(out.Data, c.Eps[2*(len(times)-1):])
			return Prediction{Eps: out}, nil
		}),
		Trace: func(name string, _ Timestep, x tensor.Tensor) {
			if name != "x" {
				return
			}
			want := c.X[2*k:][:2]
			scale := max(1, math.Abs(float64(want[0])), math.Abs(float64(want[1])))
			for j, w := range want {
				if d := math.Abs(float64(x.Data[j] - w)); !(d <= 2e-5*scale) {
					t.Errorf("call %d: x[%d] is %g, want %g", k, j, x.Data[j], w)
				}
			}
			k++
		},
	}
	x := tensor.Of(c.Start, 1, 2, 1, 1)
	var noise Recorded
	if c.Noise != nil {
		noise.Steps = tensor.Of(c.Noise, len(c.Noise)/2, 1, 2, 1, 1)
	}
	if _, err := sampler.Sample(t.Context(), p, x, noise); err != nil {
		t.Fatal(err)
	}
	if len(times) != len(c.Timesteps) || k != len(times) {
		t.Fatalf("%d calls, want %d", len(times), len(c.Timesteps))
	}
	for i, at := range times {
		if math.Abs(at-c.Timesteps[i]) > 1e-6*c.Timesteps[0] {
			t.Errorf("call %d is at t = %g, want %g", i, at, c.Timesteps[i])
		}
	}
}
