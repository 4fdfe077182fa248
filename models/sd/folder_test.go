package sd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/sampling"
)

const tinySD = casesFolder + "sample-sd-cfg/model"

// TestSDFolder spoils one thing of a folder at a time.
func TestSDFolder(t *testing.T) {
	for _, c := range []struct {
		want  []string
		spoil func(file func(...string) string) error
	}{
		{[]string{"vae, tokenizer is missing; a Stable Diffusion folder has unet, vae, text_encoder, tokenizer and scheduler"}, func(file func(...string) string) error {
			return first(os.RemoveAll(file("vae")), os.RemoveAll(file("tokenizer")))
		}},
		{[]string{"scheduler_config.json is missing; it says which process", "vae/config.json:1: not JSON"}, func(file func(...string) string) error {
			return first(os.Remove(file("scheduler", "scheduler_config.json")), os.WriteFile(file("vae", "config.json"), []byte("{"), 0o644))
		}},
		{[]string{`_class_name: "StableDiffusionInpaintPipeline" is not supported; supported: StableDiffusionPipeline`}, func(file func(...string) string) error {
			return replaceIn(file("model_index.json"), `"StableDiffusionPipeline"`, `"StableDiffusionInpaintPipeline"`)
		}},
		{[]string{`unet.1: "UNetSpatioTemporalConditionModel" is not supported; supported: UNet2DConditionModel`, `text_encoder.1: "T5EncoderModel" is not supported`}, func(file func(...string) string) error {
			return first(replaceIn(file("model_index.json"), `"UNet2DConditionModel"`, `"UNetSpatioTemporalConditionModel"`),
				replaceIn(file("model_index.json"), `"CLIPTextModel"`, `"T5EncoderModel"`))
		}},
		{[]string{"model_index.json:1: not JSON"}, func(file func(...string) string) error {
			return os.WriteFile(file("model_index.json"), []byte("<html>"), 0o644)
		}},
		{[]string{"the tokenizer has 814 tokens, the text encoder vocab_size 300; they do not belong together", "the U-Net has cross_attention_dim 32, the text encoder hidden_size 48"}, func(file func(...string) string) error {
			return first(os.RemoveAll(file("text_encoder")), os.CopyFS(file("text_encoder"), os.DirFS(casesFolder+"clip-text-gelu-tiny/model/text_encoder")))
		}},
		{[]string{"scheduler_config.json: sampling: scheduler config: prediction_type is \"flow\", expected one of: epsilon, v_prediction, sample", "beta_start is 8.5"}, func(file func(...string) string) error {
			return first(replaceIn(file("scheduler", "scheduler_config.json"), `"epsilon"`, `"flow"`), replaceIn(file("scheduler", "scheduler_config.json"), "0.00085", "8.5"))
		}},
		{[]string{"merges.txt: line 2"}, func(file func(...string) string) error {
			return os.WriteFile(file("tokenizer", "merges.txt"), []byte("#version: 0.2\nq\n"), 0o644)
		}},
	} {
		folder := copyFolder(t, tinySD)
		if err := c.spoil(func(parts ...string) string { return filepath.Join(append([]string{folder}, parts...)...) }); err != nil {
			t.Fatal(err)
		}
		_, err := (&SD{}).Open(folder, models.Options{})
		wantError(t, err, c.want...)
	}
}

// first is the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func replaceIn(path, old, by string) error {
	data, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(data), old) {
		err = os.ErrNotExist
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Replace(string(data), old, by, 1)), 0o644)
}

func TestSDFlags(t *testing.T) {
	for want, flags := range map[string]*SD{
		`component is "scheduler", which is not supported; supported: nothing, unet, vae, text_encoder`:     {flags{Component: "scheduler"}},
		"height is -8, expected 0 or a positive number":                                                     {flags{Height: -8}},
		"height is 33, expected a multiple of 2, the autoencoder's factor":                                  {flags{Height: 33}},
		"clip_skip is 3, the text encoder has 2 layers":                                                     {flags{ClipSkip: 3}},
		"expected diffusion_pytorch_model.fp16.safetensors or diffusion_pytorch_model.fp16.bin":             {flags{Variant: "fp16"}},
		"expected model.fp16.safetensors or pytorch_model.fp16.bin":                                         {flags{Variant: "fp16"}},
		"original_config, tokenizer, text_encoder and extract_ema are for single files":                     {flags{ExtractEMA: true}},
		`prediction_type is "v", which is not supported; supported: nothing, epsilon, v_prediction, sample`: {flags{PredictionType: "v"}},
	} {
		_, err := flags.Open(tinySD, models.Options{})
		wantError(t, err, want)
	}
	_, err := (&SD{}).Open(tinySD+"/none", models.Options{})
	wantError(t, err, "no such file or folder; expected a diffusers folder of Stable Diffusion, or one .safetensors or .ckpt file")

	n := openSD(t, &SD{flags{Height: 20, Width: 34, PredictionType: "v_prediction", NegativePrompt: "blurry", ClipSkip: 1}}, tinySD)
	if want := []int{4, 10, 17}; !slices.Equal(n.SampleShape(), want) || n.Classes() != 0 {
		t.Errorf("x_t has shape %v, want %v", n.SampleShape(), want)
	}
	p := n.Process()
	if c := p.Schedule.Scheduler; p.Predicts != sampling.V || p.ClipDenoised || c.ClassName != "DDIMScheduler" || *c.StepsOffset != 1 || *c.SetAlphaToOne {
		t.Errorf("process %+v, scheduler %+v", p, c)
	}
	s, err := sampling.NewSchedule(p.Schedule)
	if err != nil || s.Len() != 1000 {
		t.Fatal(s, err)
	}
	// ᾱ of scaled_linear 0.00085 … 0.012 at its ends
	if first, last := s.AlphaBar(0), s.AlphaBar(999); first != 1-s.Beta(0) || last < 0.00465 || last > 0.00467 {
		t.Errorf("ᾱ from %g to %g, want 0.99915 to 0.00466", first, last)
	}
	null, err := n.Null(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Encode(context.Background(), []string{"blurry", "a horse", "blurry"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(null.Context.Row(1), c.Context.Row(2)) || !slices.Equal(c.Context.Row(0), c.Context.Row(2)) || slices.Equal(c.Context.Row(0), c.Context.Row(1)) {
		t.Error("∅ has to be the negative prompt, and equal prompts have equal embeddings")
	}
	_, err = n.Denoise(context.Background(), noise(t, 1, 4, 4, 4), sampling.Timestep{}, sampling.Cond{})
	wantError(t, err, "the condition has no prompt")
}

// TestSDFiles lists what a run id has to depend on.
func TestSDFiles(t *testing.T) {
	relative := func(files []string, to string) []string {
		for i, f := range files {
			files[i] = strings.TrimPrefix(f, to+"/")
		}
		return files
	}
	files, err := models.Files(&SD{}, fashionSD)
	if want := []string{
		"unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
		"text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json",
	}; err != nil || !slices.Equal(relative(files, fashionSD), want) {
		t.Errorf("got %v, %v", files, err)
	}
	files, err = models.Files(&SD{flags{Component: "unet"}}, tinyUNet)
	if want := []string{"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}; err != nil || !slices.Equal(relative(files, tinyUNet), want) {
		t.Errorf("got %v, %v", files, err)
	}
	files, err = models.Files(&SD{flags{OriginalConfig: fileIn(fashionSD, "v1.yaml"), Tokenizer: fileIn(fashionSD, "tokenizer")}}, singleSD)
	if want := []string{singleSD, fashionSD + "/v1.yaml", fashionSD + "/tokenizer/vocab.json"}; err != nil || len(files) != 6 || !slices.Equal(files[:3], want) {
		t.Errorf("got %v, %v", files, err)
	}
	_, err = models.Files(&SD{}, tinyUNet)
	wantError(t, err, "vae, text_encoder, tokenizer, scheduler is missing")
}

const singleSD = casesFolder + "sample-sd-singlefile/model.ckpt"
