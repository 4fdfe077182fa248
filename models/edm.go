package models

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
)

// EDM are the networks of "Elucidating the Design Space of Diffusion-Based
// Generative Models" (arXiv 2206.00364), NVlabs/edm training/networks.py: a
// preconditioning over SongUNet (DDPM++, NCSN++) or DhariwalUNet (ADM), with the
// arguments of their constructors. The published .pkl hold these arguments, so that
// a block need not; where it does, they have to agree.
type EDM struct {
	Precond       string   `yaml:"precond" doc:"EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond; this and what follows, where it is absent: as the .pkl says, or else the authors' default"`
	ImgResolution int      `yaml:"img_resolution" min:"0" max:"4096" doc:"height and width in pixels"`
	ImgChannels   int      `yaml:"img_channels" min:"0" max:"1024" doc:"channels of the images"`
	LabelDim      *int     `yaml:"label_dim" min:"0" max:"1000000" doc:"number of labels; 0 for an unconditional network"`
	UseFP16       *bool    `yaml:"use_fp16" doc:"of the official code on GPUs; here all arithmetic is float32"`
	SigmaMin      *float64 `yaml:"sigma_min" min:"0" max:"1000000" doc:"of EDMPrecond and VEPrecond: the lowest noise level that the network supports"`
	SigmaMax      *float64 `yaml:"sigma_max" min:"0" max:"1000000" doc:"the highest one"`
	SigmaData     float64  `yaml:"sigma_data" min:"0" max:"1000" doc:"of EDMPrecond: standard deviation of the training data"`
	BetaD         float64  `yaml:"beta_d" min:"0" max:"1000" doc:"of VPPrecond: β_d of the noise schedule"`
	BetaMin       float64  `yaml:"beta_min" min:"0" max:"1000" doc:"of VPPrecond: β_min"`
	EpsilonT      float64  `yaml:"epsilon_t" min:"0" max:"1" doc:"of VPPrecond: the least time in training, whose noise level is the lowest"`
	M             int      `yaml:"M" min:"0" max:"100000" doc:"of VPPrecond and iDDPMPrecond: timesteps of the original process"`
	C1            float64  `yaml:"C_1" min:"0" max:"1" doc:"of iDDPMPrecond: the least ratio of two ᾱ"`
	C2            float64  `yaml:"C_2" min:"0" max:"1" doc:"of iDDPMPrecond: offset of the cosine"`

	ModelType        string   `yaml:"model_type" doc:"SongUNet or DhariwalUNet"`
	ModelChannels    int      `yaml:"model_channels" min:"0" max:"8192" doc:"base width of the U-Net"`
	ChannelMult      []int    `yaml:"channel_mult" min:"1" max:"1024" doc:"width of each level over model_channels"`
	ChannelMultEmb   int      `yaml:"channel_mult_emb" min:"0" max:"1024" doc:"width of the embedding over model_channels"`
	NumBlocks        int      `yaml:"num_blocks" min:"0" max:"64" doc:"residual blocks a level"`
	AttnResolutions  []int    `yaml:"attn_resolutions" min:"1" max:"4096" doc:"resolutions in pixels that have attention"`
	EmbeddingType    string   `yaml:"embedding_type" doc:"of SongUNet: positional (DDPM++) or fourier (NCSN++)"`
	ChannelMultNoise int      `yaml:"channel_mult_noise" min:"0" max:"1024" doc:"of SongUNet: width of the timestep's embedding over model_channels"`
	EncoderType      string   `yaml:"encoder_type" doc:"of SongUNet: standard (DDPM++), residual (NCSN++) or skip"`
	DecoderType      string   `yaml:"decoder_type" doc:"of SongUNet: standard or skip"`
	ResampleFilter   []int    `yaml:"resample_filter" min:"1" max:"1000" doc:"of SongUNet: filter that halves and doubles, such as [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++)"`
	AugmentDim       int      `yaml:"augment_dim" min:"0" max:"65536" doc:"labels of the augmentation in training; no effect here"`
	Dropout          *float64 `yaml:"dropout" min:"0" max:"1" doc:"of training; no effect here"`
	LabelDropout     *float64 `yaml:"label_dropout" min:"0" max:"1" doc:"of training; above 0 a row of zeros is a null class, which cfg needs"`

	low, high float64   // noise levels that the checkpoint says that the network supports; 0 where it says none
	levels    []float32 // of iDDPMPrecond, as the checkpoint holds them: its buffer u
}

// NewEDM is EDM of which nothing is said yet.
func NewEDM() *EDM { return &EDM{} }

// IdleFlags are the flags that change no pixel.
func (*EDM) IdleFlags() []string { return []string{"use_fp16", "dropout", "augment_dim"} }

// Notes implements Noter.
func (c *EDM) Notes(string, []string, Options) ([]string, error) {
	return fp16Notes("use_fp16", c.UseFP16 != nil && *c.UseFP16), nil
}

// fp16Notes tell that a flag of the official code for half precision is set, for
// families without scopes that compute in it.
func fp16Notes(flag string, set bool) []string {
	if !set {
		return nil
	}
	return []string{flag + fp16End}
}

// edmPreconds are the networks of training/networks.py by their preconditioning: the
// default of model_type.
var edmPreconds = map[string]string{"EDMPrecond": "DhariwalUNet", "VPPrecond": "SongUNet", "VEPrecond": "SongUNet", "iDDPMPrecond": "DhariwalUNet"}

// ReadFlags implements SelfDescribing.
func (c *EDM) ReadFlags(f *checkpoint.File) error {
	if err := c.read(f); err != nil {
		return fmt.Errorf("models: %s: %w", f.Path, err)
	}
	*c = *c.complete()
	return nil
}

// read sets the flags that a checkpoint tells.
func (c *EDM) read(f *checkpoint.File) error {
	class, told, err := toldBy(f, "img_resolution", "img_channels", "label_dim", "use_fp16")
	if err != nil || told == nil {
		return err
	}
	if _, known := edmPreconds[class]; !known {
		return fmt.Errorf("its network is a %s, expected one of %s%s", class, sorted(edmPreconds), otherClass(class))
	}
	o := f.Objects[f.Wrapper]
	told["precond"] = class
	if max, ok := told["sigma_max"].(float64); ok && math.IsInf(max, 1) {
		delete(told, "sigma_max") // as where there is none
	}
	if err := settle(c, told); err != nil {
		return err
	}
	c.low, _ = checkpoint.Number(o.Attributes["sigma_min"])
	c.high, _ = checkpoint.Number(o.Attributes["sigma_max"])
	if u, has := f.Tensors["u"]; has && class == "iDDPMPrecond" {
		c.levels, err = u.Float32()
	}
	return err
}

// otherClass says which family a class of networks is of.
func otherClass(class string) string {
	if class == "Precond" {
		return "; it is one of EDM2 (family: edm2)"
	}
	return ""
}

// or is what p points to, or the default.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// fill sets a flag that is not set.
func fill[T any](to *T, unset bool, def T) {
	if unset {
		*to = def
	}
}

// complete is c with the authors' defaults of its classes.
func (c *EDM) complete() *EDM {
	d := *c
	d.Precond = cmp.Or(d.Precond, "EDMPrecond")
	d.ModelType = cmp.Or(d.ModelType, edmPreconds[d.Precond])
	d.ChannelMultEmb = cmp.Or(d.ChannelMultEmb, 4)
	base, mult, blocks, attention := 192, []int{1, 2, 3, 4}, 3, []int{32, 16, 8}
	if d.ModelType == "SongUNet" {
		base, mult, blocks, attention = 128, []int{1, 2, 2, 2}, 4, []int{16}
		d.ChannelMultNoise, d.EmbeddingType = cmp.Or(d.ChannelMultNoise, 1), cmp.Or(d.EmbeddingType, "positional")
		d.EncoderType, d.DecoderType = cmp.Or(d.EncoderType, "standard"), cmp.Or(d.DecoderType, "standard")
		fill(&d.ResampleFilter, len(d.ResampleFilter) == 0, []int{1, 1})
	}
	d.ModelChannels, d.NumBlocks = cmp.Or(d.ModelChannels, base), cmp.Or(d.NumBlocks, blocks)
	fill(&d.ChannelMult, len(d.ChannelMult) == 0, mult)
	fill(&d.AttnResolutions, d.AttnResolutions == nil, attention)
	switch d.Precond {
	case "EDMPrecond":
		d.SigmaData = cmp.Or(d.SigmaData, 0.5)
	case "VPPrecond":
		d.BetaD, d.BetaMin, d.EpsilonT, d.M = cmp.Or(d.BetaD, 19.9), cmp.Or(d.BetaMin, 0.1), cmp.Or(d.EpsilonT, 1e-5), cmp.Or(d.M, 1000)
	case "iDDPMPrecond":
		d.M, d.C1, d.C2 = cmp.Or(d.M, 1000), cmp.Or(d.C1, 0.001), cmp.Or(d.C2, 0.008)
	}
	return &d
}

// Validate tells what is wrong with the flags, as far as it can be told without the
// checkpoint.
func (c *EDM) Validate() error {
	var errs []error
	oneOf := func(flag, v string, values ...string) {
		if v != "" && !slices.Contains(values, v) {
			errs = append(errs, fmt.Errorf("%s is %q, expected one of %v", flag, v, values))
		}
	}
	oneOf("precond", c.Precond, sorted(edmPreconds)...)
	oneOf("model_type", c.ModelType, "SongUNet", "DhariwalUNet")
	oneOf("embedding_type", c.EmbeddingType, "positional", "fourier")
	oneOf("encoder_type", c.EncoderType, "standard", "skip", "residual")
	oneOf("decoder_type", c.DecoderType, "standard", "skip")
	if n := len(c.ResampleFilter); n == 1 || n > 64 || n%2 == 1 {
		errs = append(errs, fmt.Errorf("resample_filter has %d numbers, expected an even number, such as [1, 3, 3, 1]", n))
	}
	if c.ModelType == "DhariwalUNet" {
		for flag, set := range map[string]bool{"embedding_type": c.EmbeddingType != "", "encoder_type": c.EncoderType != "", "decoder_type": c.DecoderType != "",
			"channel_mult_noise": c.ChannelMultNoise != 0, "resample_filter": len(c.ResampleFilter) > 0} {
			if set {
				errs = append(errs, fmt.Errorf("%s is a flag of SongUNet, not of DhariwalUNet; leave it out", flag))
			}
		}
	}
	return errors.Join(errs...)
}

// network is the U-Net that the flags describe.
func (c *EDM) network() (*edmUNet, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.complete()
	if c.ImgResolution == 0 || c.ImgChannels == 0 {
		return nil, errors.New("img_resolution and img_channels are missing: a .pkl of EDM holds them, other files do not")
	}
	u := &edmUNet{
		song: c.ModelType == "SongUNet", size: c.ImgResolution, channels: c.ImgChannels, out: c.ImgChannels, labels: or(c.LabelDim, 0),
		dropsOut: or(c.LabelDropout, 0) > 0, augment: c.AugmentDim, base: c.ModelChannels, embedding: c.ModelChannels * c.ChannelMultEmb,
		noise: c.ModelChannels, blocks: c.NumBlocks, attention: c.AttnResolutions, filter: []int{1, 1}, headWidth: 64, groupsEps: 1e-5, skipScale: 1,
	}
	if c.Precond == "iDDPMPrecond" {
		u.out *= 2
	}
	if u.song {
		u.noise *= c.ChannelMultNoise
		u.fourier, u.encoder, u.decoder, u.filter = c.EmbeddingType == "fourier", c.EncoderType, c.DecoderType, c.ResampleFilter
		u.headWidth, u.groupsEps, u.skipScale, u.projectAll = 0, 1e-6, float32(math.Sqrt(0.5)), true
	}
	for _, x := range c.ChannelMult {
		u.widths = append(u.widths, x*c.ModelChannels)
	}
	if err := u.check(); err != nil {
		return nil, err
	}
	if u.embedding > maxWidth || u.noise > maxWidth || u.noise%2 != 0 {
		return nil, fmt.Errorf("the embeddings have %d and %d channels, expected at most %d, and an even number", u.embedding, u.noise, maxWidth)
	}
	return u, nil
}

// Open implements Family.
func (c *EDM) Open(path string, opt Options) (Model, error) {
	own := *c
	f, err := openTold(&own, path, opt)
	if err != nil {
		return nil, err
	}
	u, err := own.network()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: edm: %w", err)
	}
	n, err := networkOf(f, opt, u.labelRows(), func(m *onnx.Module, t *Taps) error {
		m.Ignore("u")
		return u.build(m, t)
	}, func(sd checkpoint.StateDict) string {
		return cmp.Or(ownKind(sd), "its keys are not those of a U-Net of EDM (no model.map_layer0.weight)")
	})
	if err != nil {
		return nil, err
	}
	if err := u.checkFilters(n.file.Tensors); err != nil {
		n.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return &edmNet{denoiserNet{n, own.precond(), u.labels}, &own, u}, nil
}

// labelRows is how many labels the graph takes: a row of zeros is one more.
func (u *edmUNet) labelRows() int {
	if u.labels > 0 && u.dropsOut {
		return u.labels + 1
	}
	return u.labels
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *EDM) Parameters() (map[string][]int, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: edm: %w", err)
	}
	return onnx.Parameters(untapped(u.build))
}

// Size implements WithParameters; it is not known where the flags do not tell.
func (c *EDM) Size() (Size, error) {
	if c.ImgResolution == 0 {
		return Size{}, nil
	}
	u, err := c.network()
	if err != nil {
		return Size{}, fmt.Errorf("models: edm: %w", err)
	}
	return onnx.Measure(untapped(u.build))
}

// Conditioning implements Conditional: everything where the flags do not tell.
func (c *EDM) Conditioning() Conditioning {
	labels := c.LabelDim == nil || *c.LabelDim > 0
	return Conditioning{Labels: labels, Null: labels && (c.LabelDim == nil || or(c.LabelDropout, 0) > 0)}
}

// ImageSides implements WithImageSide.
func (c *EDM) ImageSides(string) (height, width int) { return c.ImgResolution, c.ImgResolution }

// Diffusion implements Diffusing: the noise levels that the network supports.
func (c *EDM) Diffusion() sampling.ScheduleConfig {
	d := c.complete()
	l := sampling.NoiseLevels{Max: math.Inf(1)}
	switch d.Precond {
	case "VPPrecond":
		l.Min, l.Max = vpLevel(d.BetaD, d.BetaMin, d.EpsilonT), vpLevel(d.BetaD, d.BetaMin, 1)
	case "VEPrecond":
		l.Min, l.Max = or(d.SigmaMin, 0.02), or(d.SigmaMax, 100)
	case "iDDPMPrecond":
		u := d.iddpmLevels()
		l.Min, l.Max = float64(u[len(u)-2]), float64(u[0])
		l.Round = func(sigma float64) float64 { return float64(u[nearestLevel(u, float32(sigma))]) }
	default:
		l.Min, l.Max = or(d.SigmaMin, 0), or(d.SigmaMax, math.Inf(1))
	}
	l.Min, l.Max = cmp.Or(d.low, l.Min), cmp.Or(d.high, l.Max)
	return sampling.ScheduleConfig{Path: l}
}

// vpLevel is the noise level at a time of VPPrecond, in float32 as torch has it.
func vpLevel(betaD, betaMin, t float64) float64 {
	at := float32(t)
	exponent := float32(float32(0.5*betaD)*float32(at*at)) + float32(float32(betaMin)*at)
	return float64(float32(math.Sqrt(float64(float32(math.Exp(float64(exponent))) - 1))))
}

// iddpmLevels are the levels that iDDPMPrecond knows, the highest first, and 0.
func (c *EDM) iddpmLevels() []float32 {
	if c.levels != nil {
		return c.levels
	}
	return sampling.IDDPMLevels[float32](c.M, c.C1, c.C2)
}

// nearestLevel is the index of the level next to sigma, as torch.cdist finds it of
// more than 25 levels: by √(σ² − 2σu + u²) in float32, the first of equal ones.
func nearestLevel(u []float32, sigma float32) int {
	best, least := 0, float32(math.Inf(1))
	for j, v := range u {
		d := float32(float32(-2*sigma)*v) + float32(sigma*sigma)
		d = sqrt32(max(0, d+float32(v*v)))
		if d < least {
			best, least = j, d
		}
	}
	return best
}

// precond are the factors of the preconditioning, in float32 as torch has them.
// Source: training/networks.py, forward of the four classes; Karras et al. 2022,
// table 1.
func (c *EDM) precond() preconditioning {
	d := c.complete()
	switch d.Precond {
	case "VPPrecond":
		return func(s float32) factors {
			log := float32(math.Log(float64(1 + float32(s*s))))
			t := sqrt32(float32(d.BetaMin*d.BetaMin)+float32(float32(2*d.BetaD)*log)) - float32(d.BetaMin)
			return factors{1, -s, 1 / sqrt32(float32(s*s)+1), float32(d.M-1) * (t / float32(d.BetaD))}
		}
	case "VEPrecond":
		return func(s float32) factors { return factors{1, s, 1, float32(math.Log(float64(0.5 * s)))} }
	case "iDDPMPrecond":
		u := d.iddpmLevels()
		return func(s float32) factors {
			return factors{1, -s, 1 / sqrt32(float32(s*s)+1), float32(d.M - 1 - nearestLevel(u, s))}
		}
	}
	return edmFactors(d.SigmaData)
}

// GuessFile implements FileGuesser.
func (c *EDM) GuessFile(f *checkpoint.File) (Guess, bool) {
	class := f.Objects[f.Wrapper].Class
	if _, known := edmPreconds[class]; !known && !f.Tensors.Has("model.map_layer0.weight") {
		return Guess{}, false
	}
	g := Guess{Evidence: "model.map_noise, model.map_layer0, model.enc and model.dec of EDM's U-Nets"}
	if class == "" {
		g.Needs = []string{"precond, img_resolution, img_channels, model_type …: the arguments that the network was made with, which EDM's .pkl hold and this file does not"}
		return g, true
	}
	g.Evidence = "an object of EDM's class " + class
	found := *c
	err := found.read(f)
	u, errNet := found.network()
	if err = errors.Join(err, errNet); err != nil {
		g.Mismatches = FirstFew([]string{err.Error()})
		return g, true
	}
	g.Flags = []Flag{NewFlag("precond", class), NewFlag("img_resolution", found.ImgResolution), NewFlag("label_dim", or(found.LabelDim, 0)), NewFlag("model_type", found.complete().ModelType)}
	g.Mismatches = Mismatches(f.Tensors, u.checkFilters(f.Tensors), g.tapped(func(m *onnx.Module, t *Taps) error {
		m.Ignore("u")
		return u.build(m, t)
	}))
	return g, true
}
