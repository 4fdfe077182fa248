package families

import (
	"context"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/sd"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const midLayer = "mid_block.attentions.0.transformer_blocks.0.attn1" // of Stable Diffusion's U-Nets

// An embedded network is one of package pretrained, with a layer of each kind
// that can be perturbed.
type embedded struct {
	flags            models.Family
	path             string
	attention, block string
	time             float64 // that it is asked at; 0 = 500
}

// embeddedNetworks are the embedded networks that draw, by family, and SDXL's of a
// reference case.
func embeddedNetworks() map[string]embedded {
	adm, iddpm, dit := models.NewADM(), models.NewIDDPM(), models.NewDiT()
	adm.ImageSize, adm.NumChannels, adm.NumResBlocks, adm.ChannelMult = 32, 64, 1, "1,1,2"
	adm.NumHeadChannels, adm.ResblockUpdown, adm.LearnSigma = 32, true, true
	iddpm.ImageSize, iddpm.NumChannels, iddpm.NumResBlocks, iddpm.ChannelMult, iddpm.LearnSigma = 32, 64, 1, "1,1,2", true
	iddpm.DiffusionSteps, iddpm.NoiseSchedule, iddpm.RescaleTimesteps = 4000, "cosine", false
	dit.InputSize, dit.PatchSize, dit.HiddenSize, dit.Depth, dit.NumHeads, dit.NumClasses = 16, 2, 128, 6, 4, 10
	return map[string]embedded{
		"adm":   {adm, "../pretrained/adm-uncond.pt", "output_blocks.1.1", "middle_block.1", 0},
		"iddpm": {iddpm, "../pretrained/iddpm.pt", "middle_block.1", "output_blocks.0.1", 0},
		"dit":   {dit, "../pretrained/dit.pt", "blocks.3.attn", "blocks.2", 0},
		"sd":    {&sd.SD{}, "../pretrained/sd", midLayer, "up_blocks.1.attentions.1.transformer_blocks.0", 0},
		"sdxl":  {sd.NewSDXL(), "../../experiments/refcase/testdata/cases/sample-sdxl-cfg/model", midLayer, "up_blocks.1.attentions.1.transformer_blocks.0", 0},
	}
}

// smallNetworks are those, and networks of reference cases of the other families.
func smallNetworks() map[string]embedded {
	const cases = "../../experiments/refcase/testdata/cases/"
	all, sit := embeddedNetworks(), models.NewSiT()
	sit.InputSize, sit.PatchSize, sit.HiddenSize, sit.Depth, sit.NumHeads, sit.NumClasses = 8, 2, 64, 2, 4, 10
	all["sit"] = embedded{sit, cases + "sit-tiny/model.pt", "blocks.0.attn", "blocks.1", 0.4}
	all["edm"] = embedded{models.NewEDM(), cases + "edm-adm-tiny/model.pkl", "model.dec.4x4_in0", "model.enc.4x4_block0", 0.7}
	all["edm, song"] = embedded{models.NewEDM(), cases + "edm-ncsnpp-tiny/model.pkl", "model.dec.4x4_in0", "model.enc.4x4_block0", 0.7}
	all["edm2"] = embedded{models.NewEDM2(), cases + "edm2-uncond-tiny/model.pkl", "unet.dec.4x4_block1", "unet.enc.4x4_block0", 0.7}
	return all
}

func TestGuess(t *testing.T) {
	for path, want := range map[string]string{
		"../pretrained/adm-uncond.pt": `adm image_size=32 num_channels=64 num_res_blocks=1 channel_mult="1,1,2" learn_sigma=true class_cond=false attention_resolutions="16,8" num_head_channels=64 use_scale_shift_norm=true resblock_updown=true use_new_attention_order=false noise_schedule="linear"`,
		"../pretrained/adm-cond.pt":   `adm image_size=32 num_channels=64 num_res_blocks=1 channel_mult="1,1,2" learn_sigma=true class_cond=true num_classes=10 attention_resolutions="16,8" num_head_channels=64 use_scale_shift_norm=true resblock_updown=true use_new_attention_order=false noise_schedule="linear"`,
		"../pretrained/iddpm.pt": `adm image_size=32 num_channels=64 num_res_blocks=1 channel_mult="1,1,2" learn_sigma=true class_cond=false attention_resolutions="16,8" num_heads=4 use_scale_shift_norm=true resblock_updown=false use_new_attention_order=false noise_schedule="linear" ` +
			`iddpm image_size=32 num_channels=64 num_res_blocks=1 channel_mult="1,1,2" learn_sigma=true class_cond=false attention_resolutions="16,8" num_heads=4 use_scale_shift_norm=true diffusion_steps=4000 noise_schedule="cosine"`,
		"../pretrained/inception.pt": "inception width=256",
	} {
		f, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := spell(Guess(f)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		}
		f.Close()
	}
}

func spell(gs []models.Guess) string {
	var s []string
	for _, g := range gs {
		s = append(s, g.Family)
		for _, f := range g.Flags {
			s = append(s, f.Name+"="+f.Value)
		}
		s = append(s, g.Mismatches...)
	}
	return strings.Join(s, " ")
}

// A folder is recognized with the files that its network is made of.
func TestGuessFolder(t *testing.T) {
	found, files := GuessFolder("../pretrained/sd")
	if got := spell(found); got != "sd" || len(files) != 11 {
		t.Errorf("%s, %d files", got, len(files))
	}
	found, _ = GuessFolder("../pretrained/sd/vae")
	if got := spell(found); got != "vae" {
		t.Errorf("the autoencoder is %q", got)
	}
}

// ditWithVAE are the flags of the embedded DiT with an autoencoder.
func ditWithVAE(family, path string, flags models.Family) *models.DiT {
	c := embeddedNetworks()["dit"].flags.(*models.DiT)
	c.VAEScalingFactor = 1.049873
	c.VAE = sampling.Ref{Place: sampling.Place{At: "model.yaml:1", Key: "vae"}, Family: family, Checkpoint: sampling.File{Written: path, Path: path}, Flags: flags}
	return c
}

func TestDiTDecodes(t *testing.T) {
	x := noise(t, 3, 4, 16, 16)
	m, err := ditWithVAE("vae", "../pretrained/sd/vae", &sd.VAE{}).Open("../pretrained/dit.pt", models.Options{Taps: []sampling.Tap{{Layer: "blocks.0.attn"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := m.(models.LatentGenerator)
	im, err := g.Pixels(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	if p := g.Process(); p.ClipDenoised || p.Predicts != sampling.Epsilon {
		t.Errorf("process %+v: latents are not clipped", p)
	}
	if im.N != 3 || im.Height != 32 || im.Width != 32 || len(im.Pixels) != 3*32*32*3 {
		t.Errorf("%d images of %d×%d", im.N, im.Height, im.Width)
	}
	narrow := ditWithVAE("vae", "../pretrained/sd/vae", &sd.VAE{})
	narrow.InChannels = 3
	for want, c := range map[string]*models.DiT{
		"model.yaml:1: vae: family iddpm decodes no latents":                             ditWithVAE("iddpm", "../pretrained/iddpm.pt", embeddedNetworks()["iddpm"].flags),
		"config.json is missing":                                                         ditWithVAE("vae", "nowhere", &sd.VAE{}),
		"model.yaml:1: vae: the autoencoder's latents have 4 channels, in_channels is 3": narrow,
	} {
		_, err := c.Open("../pretrained/dit.pt", models.Options{})
		wantError(t, err, want)
	}
}

// noise is standard normal noise of a shape whose first axis counts images.
func noise(t testing.TB, shape ...int) tensor.Tensor {
	t.Helper()
	x := tensor.New(shape...)
	images := make([]int, shape[0])
	for i := range images {
		images[i] = i
	}
	if err := (sampling.Keyed{Seed: 1, Images: images}).Fill(-1, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// wantError fails unless the error holds every text.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %q, want %q in it", err, text)
		}
	}
}
