package models

import (
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// IDDPM is the U-Net of "Improved Denoising Diffusion Probabilistic Models"
// (arXiv 2102.09672), improved_diffusion/unet.py UNetModel, with the flags of
// improved_diffusion/script_util.py model_and_diffusion_defaults. It is ADM's
// with convolutions between the levels, num_heads heads on every layer and q,
// k, v split after the heads. channel_mult and num_classes, which the official
// script fixes by image size and at 1000, are flags here.
type IDDPM struct {
	UNetFlags               `yaml:",inline"`
	sampling.ScheduleConfig `yaml:",inline"`
	PredictXStart           bool `yaml:"predict_xstart" doc:"the network predicts x_0 instead of ε"`
	TrainingFlags           `yaml:",inline"`
}

// NewIDDPM is IDDPM with its authors' defaults (script_util.py).
func NewIDDPM() *IDDPM {
	c := &IDDPM{
		UNetFlags:      NewADM().UNetFlags,
		ScheduleConfig: sampling.DefaultSchedule(),
		TrainingFlags:  TrainingFlags{RescaleLearnedSigmas: true},
	}
	c.RescaleTimesteps = true
	return c
}

// Notes implements Noter.
func (c *IDDPM) Notes(string, []string, Options) ([]string, error) {
	return idleNotes(c.TrainingFlags, NewIDDPM().TrainingFlags), nil
}

// iddpmChannelMult is improved_diffusion/script_util.py create_model.
var iddpmChannelMult = map[int]string{256: "1,1,2,2,4,4", 64: "1,2,3,4", 32: "1,2,2,2"}

// Open implements Family.
func (c *IDDPM) Open(path string, opt Options) (Model, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: iddpm: %w", err)
	}
	hint := func(sd checkpoint.StateDict) string {
		if g, ok := guessUNet(sd); ok && g.updown {
			return "its residual blocks change the resolution, which improved-diffusion's never do: it is guided-diffusion's (family: adm, resblock_updown: true)"
		}
		return u.hint(sd)
	}
	return u.open(path, opt, processOf(c.ScheduleConfig, c.PredictXStart), hint)
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *IDDPM) Parameters() (map[string][]int, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: iddpm: %w", err)
	}
	return onnx.Parameters(untapped(u.build))
}

// Size implements WithParameters.
func (c *IDDPM) Size() (Size, error) {
	u, err := c.network()
	if err != nil {
		return Size{}, fmt.Errorf("models: iddpm: %w", err)
	}
	return onnx.Measure(untapped(u.build))
}

// network is the U-Net that the flags describe.
func (c *IDDPM) network() (*unet, error) {
	u, err := c.unet(iddpmChannelMult)
	if err != nil {
		return nil, err
	}
	if u.widths[0] != u.base {
		return nil, fmt.Errorf("channel_mult %q: improved-diffusion's first and last layers have num_channels channels, so that the first level's factor has to be 1", c.ChannelMult)
	}
	for _, ch := range u.attending() {
		if err := c.checkHeads(ch); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// Guess implements Guesser. A guided-diffusion network without resblock_updown
// has the same keys; then both families are guessed, and with num_heads given
// both draw the same images.
func (c *IDDPM) Guess(sd checkpoint.StateDict) (Guess, bool) {
	u, ok := guessUNet(sd)
	if !ok || u.updown || u.widths[0] != u.base {
		return Guess{}, false
	}
	g := u.guess(sd, iddpmChannelMult, 0, "time_embed, input_blocks, middle_block and output_blocks with convolutions between the levels, as in improved-diffusion's UNetModel")
	steps, schedule := 4000, "cosine" // of the published networks but those for 256×256
	if u.size == 256 {
		steps, schedule = 1000, "linear"
	}
	g.Flags = append(g.Flags, NewFlag("diffusion_steps", steps, Assumed), NewFlag("noise_schedule", schedule, Assumed))
	return g, true
}
