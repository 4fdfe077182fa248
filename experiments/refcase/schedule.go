package refcase

import (
	"context"
	"fmt"
	"path/filepath"

	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// checkSchedule runs the sampler of a scheduler_config.json on network outputs
// that were recorded: call k gets in.eps[k], whatever the state is.
func checkSchedule(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	config, sampler, err := c.scheduler()
	if err != nil {
		return nil, err
	}
	schedule, err := sampler.Schedule(sampling.ScheduleConfig{Scheduler: config})
	if err != nil {
		return nil, err
	}
	start, err := c.floats("in.x_T", -1, -1, -1, -1)
	if err != nil {
		return nil, err
	}
	outputs, err := c.floats("in.eps", append([]int{-1}, start.Shape...)...)
	if err != nil {
		return nil, err
	}
	noise, err := c.recordedNoise(start)
	if err != nil {
		return nil, err
	}
	network := &recordedNetwork{outputs: outputs}
	var states []tensor.Tensor
	p := &sampling.Predictor{
		Denoiser: network, Schedule: schedule, Predicts: config.Predicts(), ClipDenoised: config.ClipDenoised(),
		Trace: func(name string, _ sampling.Timestep, v tensor.Tensor) {
			if name == "x" {
				states = append(states, v.Clone())
			}
		},
	}
	if _, err := sampler.Sample(ctx, p, start, noise); err != nil {
		return nil, err
	}
	bars := make([]float64, schedule.TrainedSteps())
	for t := range bars {
		bars[t] = schedule.TrainedAlphaBar(t)
	}
	out := map[string]ort.Array{
		"x": ort.Floats(stack(states)), "model_input": ort.Floats(stack(network.states)), "timesteps": doubles(network.times),
		"alphas_cumprod": doubles(bars), "init_noise_sigma": doubles([]float64{schedule.InitNoiseSigma()}),
	}
	if sigmas := schedule.Sigmas(); sigmas != nil {
		out["sigmas"] = doubles(sigmas)
	}
	return out, nil
}

// doubles is an array of one axis.
func doubles(v []float64) ort.Array { return ort.Array{Shape: []int{len(v)}, Data: v} }

// scheduler reads the case's scheduler_config.json and the sampler that it and
// the case's options name.
func (c *referenceCase) scheduler() (*sampling.SchedulerConfig, sampling.Sampler, error) {
	model := struct {
		Family    string `yaml:"family"`
		Scheduler string `yaml:"scheduler"`
	}{}
	if err := c.Model.Decode(&model); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(c.dir, model.Scheduler)
	data, err := readFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %w", err)
	}
	config, err := sampling.ParseSchedulerConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	name := config.Sampler()
	if name == "" {
		return nil, nil, fmt.Errorf("%s: no sampler stands for _class_name %q", path, config.ClassName)
	}
	sampler := sampling.Samplers[name]()
	return config, sampler, c.block.Only("steps", "eta").Decode(sampler)
}

// A recordedNetwork answers call k with row k of its outputs, and keeps what it
// was called with.
type recordedNetwork struct {
	outputs tensor.Tensor // [calls,N,C,H,W]
	states  []tensor.Tensor
	times   []float64
}

// Denoise implements sampling.Denoiser.
func (n *recordedNetwork) Denoise(_ context.Context, x tensor.Tensor, t sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	k := len(n.states)
	if k >= n.outputs.Rows() {
		return sampling.Prediction{}, fmt.Errorf("check: in.eps has %d rows, but the sampler calls the network once more", n.outputs.Rows())
	}
	n.states, n.times = append(n.states, x.Clone()), append(n.times, t.Value)
	return sampling.Prediction{Eps: tensor.Of(n.outputs.Row(k), n.outputs.Shape[1:]...).Clone()}, nil
}
