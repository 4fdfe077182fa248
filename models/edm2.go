package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// EDM2 is the magnitude-preserving U-Net of "Analyzing and Improving the Training
// Dynamics of Diffusion Models" (arXiv 2312.02696), NVlabs/edm2
// training/networks_edm2.py Precond and UNet, with the arguments of their
// constructors. The published .pkl hold these arguments and the encoder, so that a
// block need not; where it does, they have to agree.
type EDM2 struct {
	ImgResolution    int      `yaml:"img_resolution" min:"0" max:"4096" doc:"height and width in pixels, or of the latent; this and what follows, where it is absent: as the .pkl says, or else the authors' default"`
	ImgChannels      int      `yaml:"img_channels" min:"0" max:"1024" doc:"channels of the images or latents"`
	LabelDim         *int     `yaml:"label_dim" min:"0" max:"1000000" doc:"number of labels; 0 for an unconditional network"`
	UseFP16          *bool    `yaml:"use_fp16" doc:"of the official code on GPUs; here all arithmetic is float32"`
	SigmaData        float64  `yaml:"sigma_data" min:"0" max:"1000" doc:"standard deviation of the training data"`
	LogvarChannels   int      `yaml:"logvar_channels" min:"0" max:"65536" doc:"of the estimate of uncertainty, which training uses"`
	ModelChannels    int      `yaml:"model_channels" min:"0" max:"8192" doc:"base width of the U-Net: 128 (XS), 192 (S), 256 (M), 320 (L), 384 (XL) or 448 (XXL)"`
	ChannelMult      []int    `yaml:"channel_mult" min:"1" max:"1024" doc:"width of each level over model_channels"`
	ChannelMultNoise *int     `yaml:"channel_mult_noise" min:"1" max:"1024" doc:"width of the noise embedding over model_channels; absent: that of the first level"`
	ChannelMultEmb   *int     `yaml:"channel_mult_emb" min:"1" max:"1024" doc:"width of the embedding over model_channels; absent: that of the widest level"`
	NumBlocks        int      `yaml:"num_blocks" min:"0" max:"64" doc:"blocks a level"`
	AttnResolutions  []int    `yaml:"attn_resolutions" min:"1" max:"4096" doc:"resolutions that have attention"`
	LabelBalance     *float64 `yaml:"label_balance" min:"0" max:"1" doc:"part of the class in the embedding"`
	ConcatBalance    *float64 `yaml:"concat_balance" min:"0" max:"1" doc:"part of the skip connections"`
	ResampleFilter   []int    `yaml:"resample_filter" min:"1" max:"1000" doc:"filter that halves and doubles"`
	ChannelsPerHead  int      `yaml:"channels_per_head" min:"0" max:"65536" doc:"channels of an attention head"`
	Dropout          *float64 `yaml:"dropout" min:"0" max:"1" doc:"of training; no effect here"`
	ResBalance       *float64 `yaml:"res_balance" min:"0" max:"1" doc:"part of the residual branch"`
	AttnBalance      *float64 `yaml:"attn_balance" min:"0" max:"1" doc:"part of the attention"`
	ClipAct          *float64 `yaml:"clip_act" min:"0" max:"1000000" doc:"bound of a block's output; 0 for none (None of the official code)"`

	Encoder string       `yaml:"encoder" doc:"what x_0 is: StandardRGBEncoder, pixels, or StabilityVAEEncoder, latents of Stable Diffusion's autoencoder; absent: as the .pkl says, or else pixels"`
	VAE     sampling.Ref `yaml:"vae" doc:"autoencoder of StabilityVAEEncoder: the path of its folder, or a model block; without one, no images can be drawn"`

	scale, bias []float32 // of StabilityVAEEncoder, by channel, as the checkpoint holds them
}

// The encoders.
const (
	rgbEncoder = "StandardRGBEncoder"
	vaeEncoder = "StabilityVAEEncoder"
)

// NewEDM2 is EDM2 of which nothing is said yet.
func NewEDM2() *EDM2 { return &EDM2{VAE: sampling.Ref{Family: "vae"}} }

// IdleFlags are the flags that change no pixel; the autoencoder counts by its content.
func (*EDM2) IdleFlags() []string { return []string{"use_fp16", "dropout", "vae"} }

// Notes implements Noter.
func (c *EDM2) Notes(string, []string, Options) ([]string, error) {
	return fp16Notes("use_fp16", or(c.UseFP16, false)), nil
}

// ReadFlags implements SelfDescribing.
func (c *EDM2) ReadFlags(f *checkpoint.File) error {
	if err := c.read(f); err != nil {
		return fmt.Errorf("models: %s: %w", f.Path, err)
	}
	*c = *c.complete()
	return nil
}

// read sets the flags that a checkpoint tells.
func (c *EDM2) read(f *checkpoint.File) error {
	class, told, err := toldBy(f, "img_resolution", "img_channels", "label_dim", "use_fp16")
	if err != nil || told == nil {
		return err
	}
	if class != "Precond" {
		other := ""
		if _, edm := edmPreconds[class]; edm {
			other = "; it is one of EDM (family: edm)"
		}
		return fmt.Errorf("its network is a %s, expected a Precond of EDM2%s", class, other)
	}
	if v, has := told["clip_act"]; has && v == nil {
		told["clip_act"] = 0
	}
	if e, has := f.Objects["encoder"]; has {
		told["encoder"] = e.Class
		for name, to := range map[string]*[]float32{"scale": &c.scale, "bias": &c.bias} {
			values, _ := e.Attributes[name].([]float64)
			*to = nil
			for _, v := range values {
				*to = append(*to, float32(v))
			}
		}
	}
	return settle(c, told)
}

// complete is c with the authors' defaults.
func (c *EDM2) complete() *EDM2 {
	d := *c
	d.SigmaData, d.LogvarChannels, d.ModelChannels = cmp.Or(d.SigmaData, 0.5), cmp.Or(d.LogvarChannels, 128), cmp.Or(d.ModelChannels, 192)
	fill(&d.ChannelMult, len(d.ChannelMult) == 0, []int{1, 2, 3, 4})
	d.NumBlocks, d.ChannelsPerHead = cmp.Or(d.NumBlocks, 3), cmp.Or(d.ChannelsPerHead, 64)
	fill(&d.AttnResolutions, d.AttnResolutions == nil, []int{16, 8})
	fill(&d.ResampleFilter, len(d.ResampleFilter) == 0, []int{1, 1})
	d.LabelBalance, d.ConcatBalance = new(or(d.LabelBalance, 0.5)), new(or(d.ConcatBalance, 0.5))
	d.ResBalance, d.AttnBalance, d.ClipAct = new(or(d.ResBalance, 0.3)), new(or(d.AttnBalance, 0.3)), new(or(d.ClipAct, 256))
	d.Encoder = cmp.Or(d.Encoder, rgbEncoder)
	return &d
}

// Validate tells what is wrong with the flags, as far as it can be told without the
// checkpoint.
func (c *EDM2) Validate() error {
	var errs []error
	if !slices.Contains([]string{"", rgbEncoder, vaeEncoder}, c.Encoder) {
		errs = append(errs, fmt.Errorf("encoder is %q, expected %s or %s", c.Encoder, rgbEncoder, vaeEncoder))
	}
	if c.Encoder == rgbEncoder && !c.VAE.IsZero() {
		errs = append(errs, fmt.Errorf("vae is given, but the encoder is %s: x_0 is pixels; leave it out", rgbEncoder))
	}
	if n := len(c.ResampleFilter); n > 64 || n%2 == 1 {
		errs = append(errs, fmt.Errorf("resample_filter has %d numbers, expected an even number, such as [1, 1]", n))
	}
	return errors.Join(errs...)
}

// network is the U-Net that the flags describe.
func (c *EDM2) network() (*edm2UNet, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.complete()
	if c.ImgResolution == 0 || c.ImgChannels == 0 {
		return nil, errors.New("img_resolution and img_channels are missing: a .pkl of EDM2 holds them, other files do not")
	}
	u := &edm2UNet{EDM2: c, labels: or(c.LabelDim, 0)}
	widest := 0
	for _, x := range c.ChannelMult {
		u.widths = append(u.widths, x*c.ModelChannels)
		widest = max(widest, x)
	}
	if err := checkLevels(c.ImgResolution, c.ModelChannels, u.widths, c.NumBlocks); err != nil {
		return nil, err
	}
	u.noise = or(c.ChannelMultNoise, c.ChannelMult[0]) * c.ModelChannels
	u.embedding = or(c.ChannelMultEmb, widest) * c.ModelChannels
	if u.noise > maxWidth || u.embedding > maxWidth {
		return nil, fmt.Errorf("the embeddings have %d and %d channels, expected at most %d", u.noise, u.embedding, maxWidth)
	}
	for i, w := range u.widths {
		if h := u.heads(w); h > 0 && w%h != 0 {
			return nil, fmt.Errorf("level %d has %d channels, which its %d heads do not divide", i, w, h)
		}
	}
	return u, nil
}

// Open implements Family.
func (c *EDM2) Open(path string, opt Options) (Model, error) {
	own := *c
	f, err := openTold(&own, path, opt)
	if err != nil {
		return nil, err
	}
	u, err := own.network()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: edm2: %w", err)
	}
	vae, err := openVAE(&own.VAE, own.ImgChannels, "img_channels", opt)
	if err != nil {
		f.Close()
		return nil, err
	}
	n, err := networkOf(f, opt, u.labels, u.build, func(sd checkpoint.StateDict) string {
		return cmp.Or(ownKind(sd), "its keys are not those of EDM2's U-Net (no unet.emb_fourier.freqs)")
	})
	if err != nil {
		if vae != nil {
			vae.Close()
		}
		return nil, err
	}
	return &edm2Net{denoiserNet{n, edmFactors(u.SigmaData), u.labels}, &own, vae}, nil
}

// Parameters lists the parameters of the network by key with their shapes.
func (c *EDM2) Parameters() (map[string][]int, error) {
	u, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("models: edm2: %w", err)
	}
	return onnx.Parameters(untapped(u.build))
}

// Size implements WithParameters; it is not known where the flags do not tell.
func (c *EDM2) Size() (Size, error) {
	if c.ImgResolution == 0 {
		return Size{}, nil
	}
	u, err := c.network()
	if err != nil {
		return Size{}, fmt.Errorf("models: edm2: %w", err)
	}
	return onnx.Measure(untapped(u.build))
}

// Conditioning implements Conditional: there is no null class.
func (c *EDM2) Conditioning() Conditioning {
	return Conditioning{Labels: c.LabelDim == nil || *c.LabelDim > 0, Null: c.LabelDim == nil}
}

// Diffusion implements Diffusing: all noise levels.
func (*EDM2) Diffusion() sampling.ScheduleConfig {
	return sampling.ScheduleConfig{Path: sampling.NoiseLevels{Max: math.Inf(1)}}
}

// ImageSides implements WithImageSide: with the autoencoder of Stable Diffusion.
func (c *EDM2) ImageSides(string) (height, width int) {
	side := c.ImgResolution
	if c.Encoder == vaeEncoder {
		side *= 8
	}
	return side, side
}

// Parts implements Composite.
func (c *EDM2) Parts() []Part { return vaeParts(&c.VAE) }

// Files implements FileLister: the checkpoint, and the autoencoder's files.
func (c *EDM2) Files(path string) ([]string, error) { return vaeFiles(path, &c.VAE) }

// GuessFile implements FileGuesser.
func (c *EDM2) GuessFile(f *checkpoint.File) (Guess, bool) {
	if !f.Tensors.Has("unet.emb_fourier.freqs") {
		return Guess{}, false
	}
	g := Guess{Evidence: "unet.emb_fourier, unet.enc and unet.dec of EDM2's U-Net"}
	if _, told := f.Objects[f.Wrapper]; !told {
		if f.Wrapper == "net" {
			g.Evidence += ", in the state of a training: the weights as they are trained, no average; the network-snapshot-….pkl that training writes beside it are its averages"
		}
		g.Needs = []string{"img_resolution, img_channels, label_dim, model_channels …: the arguments that the network was made with, which EDM2's .pkl hold and this file does not"}
		return g, true
	}
	found := *c
	err := found.read(f)
	u, errNet := found.network()
	if err = errors.Join(err, errNet); err != nil {
		g.Mismatches = FirstFew([]string{err.Error()})
		return g, true
	}
	g.Flags = []Flag{NewFlag("img_resolution", found.ImgResolution), NewFlag("img_channels", found.ImgChannels), NewFlag("label_dim", u.labels),
		NewFlag("model_channels", u.ModelChannels), NewFlag("encoder", u.Encoder)}
	if u.Encoder == vaeEncoder {
		g.Needs = []string{"vae: FOLDER  # of the autoencoder that decodes the latents, such as sd-vae-ft-mse"}
	}
	g.Mismatches = Mismatches(f.Tensors, nil, g.tapped(u.build))
	return g, true
}

// An edm2Net is a prepared network of EDM2 with its autoencoder.
type edm2Net struct {
	denoiserNet
	flags *EDM2
	vae   Decoder // nil without one
}

var (
	_ LatentGenerator = (*edm2Net)(nil)
	_ Incomplete      = (*edm2Net)(nil)
	_ Composite       = (*EDM2)(nil)
	_ Diffusing       = (*EDM2)(nil)
	_ SelfDescribing  = (*EDM2)(nil)
)

// Close implements Model.
func (n *edm2Net) Close() {
	n.network.Close()
	if n.vae != nil {
		n.vae.Close()
	}
}

// Process implements Generator: guidances that look at x̂0 clip it where it is pixels.
func (n *edm2Net) Process() Process {
	return Process{Schedule: n.flags.Diffusion(), Predicts: sampling.XStart, ClipDenoised: n.flags.Encoder == rgbEncoder}
}

// SampleShape implements Generator.
func (n *edm2Net) SampleShape() []int {
	return []int{n.flags.ImgChannels, n.flags.ImgResolution, n.flags.ImgResolution}
}

// Lacks implements Incomplete.
func (n *edm2Net) Lacks() error {
	if n.flags.Encoder == vaeEncoder && n.vae == nil {
		return errors.New("models: the flags name no vae: give the folder of the autoencoder that decodes the latents, such as sd-vae-ft-mse")
	}
	return nil
}

// The statistics of raw latents that StabilityVAEEncoder assumes.
var (
	rawMean = []float32{5.81, 3.25, 0.12, -2.15}
	rawStd  = []float32{4.17, 4.62, 3.71, 3.28}
)

// Decode implements LatentGenerator: x_0 itself where it is pixels, else the
// autoencoder's image of (x − bias)/scale, in [0,1] but for overshoot. Source:
// training/encoders.py StabilityVAEEncoder.
func (n *edm2Net) Decode(ctx context.Context, x tensor.Tensor) (tensor.Tensor, error) {
	if n.flags.Encoder == rgbEncoder {
		return x, nil
	}
	if err := n.Lacks(); err != nil {
		return tensor.Tensor{}, err
	}
	scale, bias := n.flags.scale, n.flags.bias
	if scale == nil || bias == nil {
		for i, std := range rawStd {
			scale = append(scale, 0.5/std)
			bias = append(bias, 0-float32(rawMean[i]*scale[i]))
		}
	}
	if c := x.Shape[1]; len(scale) != c || len(bias) != c {
		return tensor.Tensor{}, fmt.Errorf("models: the encoder's statistics are of %d channels, the latents have %d", len(scale), c)
	}
	z, plane := x.Like(), x.Shape[2]*x.Shape[3]
	for i, v := range x.Data {
		c := i / plane % x.Shape[1]
		z.Data[i] = (v - bias[c]) / scale[c]
	}
	return n.vae.Decode(ctx, z)
}

// Pixels implements Generator: 127.5·x + 128, or 255 times the decoded image, clamped
// and truncated, as the encoders' decode does.
func (n *edm2Net) Pixels(ctx context.Context, x tensor.Tensor) (Images, error) {
	decoded, err := n.Decode(ctx, x)
	if err != nil {
		return Images{}, err
	}
	if n.flags.Encoder == rgbEncoder {
		return rgbPixels(decoded)
	}
	return ImagesOf(decoded, func(v float32) float32 { return min(max(v, 0), 1) * 255 }, n.flags.VAE.Checkpoint.Path)
}
