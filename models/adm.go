package models

import (
	"fmt"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// ADM is the U-Net of "Diffusion Models Beat GANs on Image Synthesis" (arXiv
// 2105.05233), guided_diffusion/unet.py UNetModel, with the flags of
// guided_diffusion/script_util.py model_and_diffusion_defaults.
type ADM struct {
	UNetFlags            `yaml:",inline"`
	NumHeadChannels      int  `yaml:"num_head_channels" min:"-1" max:"65536" doc:"channels a head, in place of num_heads; -1 = num_heads heads"`
	ResblockUpdown       bool `yaml:"resblock_updown" doc:"residual blocks change the resolution"`
	UseNewAttentionOrder bool `yaml:"use_new_attention_order" doc:"q, k, v are split before the heads"`

	sampling.ScheduleConfig `yaml:",inline"`
	PredictXStart           bool `yaml:"predict_xstart" doc:"the network predicts x_0 instead of ε"`

	TrainingFlags `yaml:",inline"`
	UseFP16       bool `yaml:"use_fp16" doc:"precision: float16, where the block does not say otherwise: input_blocks, middle_block and output_blocks compute in it, all else in float32"`
}

// TrainingFlags stand in published commands and change nothing here.
type TrainingFlags struct {
	UseKL                bool    `yaml:"use_kl" doc:"of training; no effect here"`
	RescaleLearnedSigmas bool    `yaml:"rescale_learned_sigmas" doc:"of training; no effect here"`
	Dropout              float64 `yaml:"dropout" min:"0" max:"1" doc:"of training; no effect here"`
	UseCheckpoint        bool    `yaml:"use_checkpoint" doc:"of training; no effect here"`
}

// IdleFlags are the flags that change no pixel.
func (*TrainingFlags) IdleFlags() []string {
	return []string{"use_kl", "rescale_learned_sigmas", "dropout", "use_checkpoint"}
}

// Notes implements Noter.
func (c *ADM) Notes(string, []string, Options) ([]string, error) {
	return idleNotes(c.TrainingFlags, NewADM().TrainingFlags), nil
}

// idleNotes tell which flags of training are set.
func idleNotes(c, usual TrainingFlags) []string {
	var set []string
	for i, is := range []bool{c.UseKL != usual.UseKL, c.RescaleLearnedSigmas != usual.RescaleLearnedSigmas, c.Dropout != usual.Dropout, c.UseCheckpoint != usual.UseCheckpoint} {
		if is {
			set = append(set, c.IdleFlags()[i])
		}
	}
	if set == nil {
		return nil
	}
	return []string{strings.Join(set, ", ") + idleEnd}
}

// The ends of notes on flags that change nothing.
const (
	idleEnd = ": of training, which published commands hold as well; nothing changes here"
	fp16End = ": true changes nothing: this family's networks compute in float32 here, as the authors' code does on a CPU"
)

// IsFlagNote reports whether one of a network's notes is on flags that change nothing.
// It is no longer true where they are not set any more, of the same images.
func IsFlagNote(note string) bool {
	return strings.HasSuffix(note, idleEnd) || strings.HasSuffix(note, fp16End)
}

// Precision implements WithPrecision.
func (c *ADM) Precision() string { return float16If(c.UseFP16) }

func float16If(set bool) string {
	if set {
		return ort.Float16
	}
	return ""
}

// NewADM is ADM with its authors' defaults (script_util.py).
func NewADM() *ADM {
	return &ADM{
		UNetFlags: UNetFlags{
			ImageSize: 64, NumChannels: 128, NumResBlocks: 2, NumClasses: 1000, AttentionResolutions: "16,8",
			NumHeads: 4, NumHeadsUpsample: -1, UseScaleShiftNorm: true,
		},
		NumHeadChannels: -1,
		ScheduleConfig:  sampling.DefaultSchedule(),
	}
}

// IdleFlags are the flags that change no pixel; use_fp16 counts as the precision.
func (c *ADM) IdleFlags() []string { return append(c.TrainingFlags.IdleFlags(), "use_fp16") }

// admChannelMult is guided_diffusion/script_util.py create_model.
var admChannelMult = map[int]string{512: "0.5,1,1,2,2,4,4", 256: "1,1,2,2,4,4", 128: "1,1,2,3,4", 64: "1,2,3,4"}

// Open implements Family.
func (c *ADM) Open(path string, opt Options) (Model, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: adm: %w", err)
	}
	return u.open(path, opt, processOf(c.ScheduleConfig, c.PredictXStart), u.hint)
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *ADM) Parameters() (map[string][]int, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: adm: %w", err)
	}
	return onnx.Parameters(untapped(u.build))
}

// Size implements WithParameters.
func (c *ADM) Size() (Size, error) {
	u, err := c.network()
	if err != nil {
		return Size{}, fmt.Errorf("models: adm: %w", err)
	}
	return onnx.Measure(untapped(u.build))
}

// network is the U-Net that the flags describe.
func (c *ADM) network() (*unet, error) {
	u, err := c.unet(admChannelMult)
	if err != nil {
		return nil, err
	}
	u.updown, u.heads = c.ResblockUpdown, c.heads
	if c.UseNewAttentionOrder {
		u.order = newOrder
	}
	for _, ch := range u.attending() {
		if c.NumHeadChannels != -1 && !divides(c.NumHeadChannels, ch) {
			return nil, fmt.Errorf("num_head_channels %d does not divide %d channels", c.NumHeadChannels, ch)
		}
		if err := c.checkHeads(ch); c.NumHeadChannels == -1 && err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (c *ADM) heads(ch int, decoder bool) int {
	if c.NumHeadChannels != -1 {
		return ch / c.NumHeadChannels
	}
	return c.UNetFlags.heads(ch, decoder)
}

// Guess implements Guesser. image_size leaves no trace in the shapes; it is that
// whose default channel_mult the levels are, or else the authors' networks with such
// attention layers have.
func (c *ADM) Guess(sd checkpoint.StateDict) (Guess, bool) {
	u, ok := guessUNet(sd)
	if !ok {
		return Guess{}, false
	}
	headChannels := 64 // of the published networks but the one for 128×128
	if u.channelMult() == admChannelMult[128] || !u.updown {
		headChannels = 0
	}
	g := u.guess(sd, admChannelMult, headChannels, "time_embed, input_blocks, middle_block and output_blocks of guided-diffusion's UNetModel")
	schedule, published64 := "linear", u.channelMult() == admChannelMult[64] && u.base == 192
	if published64 {
		schedule = "cosine"
	}
	g.Flags = append(g.Flags, NewFlag("resblock_updown", u.updown), NewFlag("use_new_attention_order", published64, Assumed), NewFlag("noise_schedule", schedule, Assumed))
	return g, true
}

// processOf is the diffusion process of a network over pixels.
func processOf(s sampling.ScheduleConfig, predictXStart bool) Process {
	p := Process{Schedule: s, Predicts: sampling.Epsilon, ClipDenoised: true}
	if predictXStart {
		p.Predicts = sampling.XStart
	}
	return p
}
