package sd

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// The prefixes of SD's text encoders in a single file.
var sdText, sdOpenCLIP = sdGeneration.textParts[0].transformers, sdGeneration.textParts[0].openCLIP

// openCLIPOf gives a text encoder of transformers the layout of open_clip, behind a
// prefix.
func openCLIPOf(t testing.TB, sd checkpoint.StateDict, prefix string, layers int) checkpoint.StateDict {
	t.Helper()
	names := strings.NewReplacer("text_model.encoder.layers.", "transformer.resblocks.", "text_model.embeddings.token_embedding.", "token_embedding.",
		"text_model.embeddings.position_embedding.weight", "positional_embedding", "text_model.final_layer_norm.", "ln_final.",
		"layer_norm1", "ln_1", "layer_norm2", "ln_2", "self_attn.out_proj", "attn.out_proj", "mlp.fc1", "mlp.c_fc", "mlp.fc2", "mlp.c_proj")
	out := checkpoint.StateDict{}
	for key, x := range sd {
		if !strings.Contains(key, "_proj.") || strings.Contains(key, "out_proj") {
			out[prefix+names.Replace(key)] = x
		}
	}
	for i := range layers {
		for _, kind := range []string{"weight", "bias"} {
			var raw []byte
			shape := slices.Clone(sd[fmt.Sprintf("text_model.encoder.layers.%d.self_attn.q_proj.%s", i, kind)].Shape)
			for _, p := range []string{"q", "k", "v"} {
				raw = append(raw, sd[fmt.Sprintf("text_model.encoder.layers.%d.self_attn.%s_proj.%s", i, p, kind)].Raw...)
			}
			shape[0] *= 3
			out[fmt.Sprintf("%stransformer.resblocks.%d.attn.in_proj_%s", prefix, i, kind)] = checkpoint.FromBytes(checkpoint.F32, raw, shape...)
		}
	}
	out[prefix+"logit_scale"] = checkpoint.FromFloat32(make([]float32, 1))
	return out
}

// TestSingleFileOpenCLIP: SD 2.x's text encoder gives, out of one file, what
// the same weights give out of a folder of transformers.
func TestSingleFileOpenCLIP(t *testing.T) {
	const folder = casesFolder + "clip-text-gelu-tiny/model/text_encoder"
	sd := readTensors(t, singleSD)
	for key := range sd {
		if strings.HasPrefix(key, sdText) {
			delete(sd, key)
		}
	}
	text := openCLIPOf(t, readTensors(t, filepath.Join(folder, "model.safetensors")), sdOpenCLIP, 2)
	for key, x := range maps.Clone(text) { // a last layer that is not used
		text[strings.Replace(key, "resblocks.0.", "resblocks.2.", 1)] = x
	}
	text[sdOpenCLIP+"text_projection"] = checkpoint.FromFloat32(make([]float32, 4), 2, 2)
	maps.Copy(sd, text)
	path := filepath.Join(t.TempDir(), "v2.safetensors")
	writeTensors(t, path, sd)

	sizes := &clipSizes{NumHiddenLayers: 2, NumAttentionHeads: 6}
	m, err := (&SD{flags{Component: "text_encoder", TextEncoder: sizes}}).Open(path, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in := map[string]ort.Array{"ids": tokens(2, 5, 6, 7, 8, 9, 299)}
	got, err := m.Forward(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := openText(t, folder).Forward(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model", "penultimate", "pooled"} {
		if !slices.Equal(got[name].Tensor().Data, want[name].Tensor().Data) {
			t.Errorf("%s differs", name)
		}
	}
	_, err = (&SD{flags{TextEncoder: sizes}}).Open(path, models.Options{})
	wantError(t, err, "is an SD 2.x checkpoint, which does not tell what it predicts; give prediction_type")
	_, err = (&SD{flags{TextEncoder: sizes, PredictionType: "epsilon"}}).Open(path, models.Options{})
	wantError(t, err, "the U-Net has cross_attention_dim 32, the text encoder hidden_size 48")
}

// TestOpenCLIPLayers: of the published 24 layers the last is left out.
func TestOpenCLIPLayers(t *testing.T) {
	sd := checkpoint.StateDict{"text_model.embeddings.token_embedding.weight": {Shape: []int{49408, 1024}}}
	for i := range 24 {
		sd[fmt.Sprintf("text_model.encoder.layers.%d.layer_norm1.weight", i)] = checkpoint.Tensor{Shape: []int{1024}}
	}
	c := singleText{tensors: sd, openCLIP: true, spare: openCLIPLayers}.config(nil)
	if c.NumHiddenLayers != 23 || c.NumAttentionHeads != 16 || c.HiddenAct != "gelu" || sd.Has("text_model.encoder.layers.23.layer_norm1.weight") {
		t.Errorf("%+v with %d tensors, want 23 layers of 16 heads with gelu", c, len(sd))
	}
}

// singleFlags are those of the case, edited.
func singleFlags(t *testing.T, edit func(*SD)) *SD {
	t.Helper()
	c := *openCase(t, "sample-sd-singlefile").flags.(*SD)
	sizes := *c.TextEncoder
	c.TextEncoder = &sizes
	edit(&c)
	return &c
}

func openSingle(t *testing.T, c *SD, path string) (*Net, error) {
	t.Helper()
	m, err := c.Open(path, models.Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(m.Close)
	return m.(*Net), nil
}

// TestSingleFile: without its YAML file the checkpoint is read by its shapes
// and SD 1.x's habits, which is the same here but for the size.
func TestSingleFile(t *testing.T) {
	with, err := openSingle(t, singleFlags(t, func(*SD) {}), singleSD)
	if err != nil {
		t.Fatal(err)
	}
	without, err := openSingle(t, singleFlags(t, func(c *SD) { c.OriginalConfig = sampling.File{} }), singleSD)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := with.SampleShape(), without.SampleShape(); !slices.Equal(a, []int{4, 16, 16}) || !slices.Equal(b, []int{4, 64, 64}) {
		t.Errorf("latents %v and, without original_config, %v", a, b)
	}
	for _, n := range []*Net{with, without} {
		if *n.scheduler.BetaStart != 0.00085 || *n.scheduler.BetaEnd != 0.012 || n.vae.config.ScalingFactor != 0.18215 || n.Process().Predicts != sampling.Epsilon {
			t.Errorf("scheduler %+v, scaling factor %g", n.scheduler, n.vae.config.ScalingFactor)
		}
	}
	c := sampling.Cond{Context: noise(t, 1, 1, 9, 32)}
	c.Context = tensor.Of(c.Context.Data, 1, 9, 32)
	x := noise(t, 1, 4, 4, 4)
	want := denoise(t, with, x, c)
	if got := denoise(t, without, x, c); !slices.Equal(got.Eps.Data, want.Eps.Data) {
		t.Error("other predictions without original_config")
	}
	_, err = without.Null(t.Context(), 1)
	wantError(t, err, "holds no tokenizer")

	for _, component := range []string{"unet", "vae", "text_encoder"} {
		m, err := singleFlags(t, func(c *SD) { c.Component = component }).Open(singleSD, models.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
}

// TestSingleFileEMA takes the averaged weights, whose keys have no dots.
func TestSingleFileEMA(t *testing.T) {
	sd := readTensors(t, singleSD)
	for key, x := range maps.Clone(sd) {
		if rest, ok := strings.CutPrefix(key, ldmUNet); ok {
			sd[ldmEMA+strings.ReplaceAll(rest, ".", "")] = x
		}
	}
	key := ldmUNet + "out.2.bias"
	sd[key] = checkpoint.FromFloat32([]float32{1, 2, 3, 4}, 4)
	path := filepath.Join(t.TempDir(), "ema.safetensors")
	writeTensors(t, path, sd)
	c := sampling.Cond{Context: tensor.New(1, 3, 32)}
	x := noise(t, 1, 4, 4, 4)
	var eps [3]tensor.Tensor
	for i, open := range []struct {
		path string
		ema  bool
	}{{singleSD, false}, {path, true}, {path, false}} {
		n, err := openSingle(t, singleFlags(t, func(c *SD) { c.ExtractEMA = open.ema }), open.path)
		if err != nil {
			t.Fatal(err)
		}
		eps[i] = denoise(t, n, x, c).Eps
		notes, err := n.pipeline.notes(open.path, nil, models.Options{})
		if want := []string{"", "averages are used", "raw ones are used"}[i]; err != nil || (want == "") != (len(notes) == 0) || !strings.Contains(strings.Join(notes, "\n"), want) {
			t.Errorf("notes of %+v: %q, %v", open, notes, err)
		}
	}
	if !slices.Equal(eps[0].Data, eps[1].Data) || slices.Equal(eps[1].Data, eps[2].Data) {
		t.Error("extract_ema has to take the averages, and nothing else may")
	}
	_, err := openSingle(t, singleFlags(t, func(c *SD) { c.ExtractEMA = true }), singleSD)
	wantError(t, err, "extract_ema: the file has no average of model.diffusion_model.")
}

func TestSingleFileFaults(t *testing.T) {
	whole := readTensors(t, singleSD)
	for _, c := range []struct {
		want  string
		spoil func(checkpoint.StateDict)
	}{
		{"the file holds no U-Net (no key begins with model.diffusion_model.), only: autoencoder, text encoder; give the whole checkpoint", func(sd checkpoint.StateDict) {
			maps.DeleteFunc(sd, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, ldmUNet) })
		}},
		{"1 keys belong to no part of Stable Diffusion 1.x or 2.x: depth_model.weight", func(sd checkpoint.StateDict) { sd["depth_model.weight"] = sd["betas"] }},
		{"its keys are those of Stable Diffusion XL (family: sdxl)", func(sd checkpoint.StateDict) { sd["conditioner.embedders.0.weight"] = sd["betas"] }},
		{"what is missing is named as diffusers names it\n  missing    conv_out.bias [4]", func(sd checkpoint.StateDict) { delete(sd, ldmUNet+"out.2.bias") }},
		{"unexpected model.diffusion_model.input_blocks.9.0.in_layers.0.weight [1000]", func(sd checkpoint.StateDict) { sd[ldmUNet+"input_blocks.9.0.in_layers.0.weight"] = sd["betas"] }},
		{"unexpected model.diffusion_model.middle_block.3.x [1000]", func(sd checkpoint.StateDict) { sd[ldmUNet+"middle_block.3.x"] = sd["betas"] }},
		{"unexpected first_stage_model.encoder.down.0.attn.0.q.weight", func(sd checkpoint.StateDict) { sd[ldmVAE+"encoder.down.0.attn.0.q.weight"] = sd["betas"] }},
		{"mis-shaped model.diffusion_model.input_blocks.1.0.emb_layers.1.bias: the network wants [32], the checkpoint has [1000]", func(sd checkpoint.StateDict) { sd[ldmUNet+"input_blocks.1.0.emb_layers.1.bias"] = sd["betas"] }},
		{"missing    text_model.final_layer_norm.bias [32]", func(sd checkpoint.StateDict) { delete(sd, sdText+"text_model.final_layer_norm.bias") }},
		{"the file holds no autoencoder (no key begins with first_stage_model.), only: U-Net, text encoder; give the whole checkpoint, or the folder of diffusers", func(sd checkpoint.StateDict) {
			maps.DeleteFunc(sd, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, ldmVAE) })
		}},
		{"the file holds no text encoder (no key begins with cond_stage_model.transformer. or cond_stage_model.model.)", func(sd checkpoint.StateDict) {
			maps.DeleteFunc(sd, func(key string, _ checkpoint.Tensor) bool { return strings.HasPrefix(key, sdText) })
		}},
	} {
		sd := maps.Clone(whole)
		c.spoil(sd)
		path := filepath.Join(t.TempDir(), "model.safetensors")
		writeTensors(t, path, sd)
		_, err := openSingle(t, singleFlags(t, func(c *SD) { c.OriginalConfig, c.TextEncoder = sampling.File{}, nil }), path)
		wantError(t, err, c.want)
	}
	_, err := openSingle(t, singleFlags(t, func(c *SD) { c.Variant = "fp16" }), singleSD)
	wantError(t, err, `variant "fp16": a single file has no variants`)
}

func TestOriginalConfig(t *testing.T) {
	for _, c := range []struct{ want, old, by string }{
		{`model.params.unet_config.target: "ldm.modules.diffusionmodules.openaimodel.EncoderUNetModel" is not supported; supported: ldm.modules`, "openaimodel.UNetModel", "openaimodel.EncoderUNetModel"},
		{`model.params.cond_stage_config.target: "ldm.modules.encoders.modules.BERTEmbedder" is not supported`, "FrozenCLIPEmbedder", "BERTEmbedder"},
		{"v1-inference.yaml:20: model.params.unet_config.params.model_channels: 64, but the checkpoint's shapes say 32; is it the configuration of another model?", "model_channels: 32", "model_channels: 64"},
		{`model.params.parameterization: "x0" is not supported; supported: eps, v`, "timesteps: 1000", "timesteps: 1000\n    parameterization: x0"},
		{"num_heads or num_head_channels is needed", "num_heads: 8", "num_head_channels: -1"},
		{"model.target: \"\" is not supported", "  target: ldm.models.diffusion.ddpm.LatentDiffusion\n", ""},
		{"v1-inference.yaml:1: not valid YAML", "model:", "model: ]"},
	} {
		folder := copyFolder(t, casesFolder+"sample-sd-singlefile")
		path := filepath.Join(folder, "v1-inference.yaml")
		if err := replaceIn(path, c.old, c.by); err != nil {
			t.Fatal(err)
		}
		_, err := singleFlags(t, func(c *SD) { c.OriginalConfig.Path = path }).Open(singleSD, models.Options{})
		wantError(t, err, c.want)
	}
	_, err := singleFlags(t, func(c *SD) { c.OriginalConfig.Path = "none.yaml" }).Open(singleSD, models.Options{})
	wantError(t, err, "original_config: open none.yaml")

	path := filepath.Join(t.TempDir(), "v.yaml")
	data, err := os.ReadFile(casesFolder + "sample-sd-singlefile/v1-inference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("timesteps: 1000", "timesteps: 500\n    parameterization: v", "num_heads: 8", "num_head_channels: 16").Replace(string(data))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := singleFlags(t, func(c *SD) { c.OriginalConfig.Path = path }).Open(singleSD, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	p := n.(*Net).Process()
	if heads := n.(*Net).unet.config.AttentionHeadDim.values; p.Predicts != sampling.V || *p.Schedule.Scheduler.NumTrainTimesteps != 500 || !slices.Equal(heads, []int{2, 2}) {
		t.Errorf("predicts %s, %d steps, heads %v; want v, 500, [2 2]", p.Predicts, *p.Schedule.Scheduler.NumTrainTimesteps, heads)
	}
}

// guessed is what the families of this package say of a checkpoint.
func guessed(sd checkpoint.StateDict) (found []models.Guess) {
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if g, ok := families[name]().(models.Guesser).Guess(sd); ok {
			g.Family = name
			found = append(found, g)
		}
	}
	return found
}

// TestSDGuess recognizes the parts and the single file.
func TestSDGuess(t *testing.T) {
	for path, want := range map[string]string{
		singleSD:                                      "sd: model.diffusion_model, first_stage_model and cond_stage_model of CompVis' LatentDiffusion in one file; context of 32 channels: Stable Diffusion 1.x",
		fashionSD + "/unet/" + weightsFile:            "sd: down_blocks, mid_block and up_blocks with cross-attention",
		fashionSD + "/vae/" + weightsFile:             "vae: encoder, decoder and quant_conv",
		fashionSD + "/text_encoder/model.safetensors": "clip_text: embeddings and encoder.layers",
		tinyText + "/model.safetensors":               "clip_text: embeddings and encoder.layers",
	} {
		f, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		found := guessed(f.Tensors)
		if len(found) != 1 || !strings.HasPrefix(found[0].Family+": "+found[0].Evidence, want) || len(found[0].Mismatches) > 0 {
			t.Errorf("%s: %+v, want %s", path, found, want)
		}
		f.Close()
	}
	sd := readTensors(t, singleSD)
	delete(sd, ldmUNet+"out.2.bias")
	if found := guessed(sd); len(found) != 1 || !slices.Equal(found[0].Mismatches, []string{"conv_out.bias [4] is missing"}) {
		t.Errorf("a near miss: %+v", found)
	}
}

// TestSingleFileTokenizer: a folder that the flags name gives the recorded
// embeddings; without one CLIP's own tokenizer is taken where it fits.
func TestSingleFileTokenizer(t *testing.T) {
	c := openCase(t, "sample-sd-singlefile")
	flags := singleFlags(t, func(flags *SD) { flags.Tokenizer = fileIn(c.dir, "../sample-sd-cfg/model/tokenizer") })
	n, err := openSingle(t, flags, singleSD)
	if err != nil {
		t.Fatal(err)
	}
	positive, _ := c.prompts(t)
	text, err := n.Encode(context.Background(), positive)
	if err != nil {
		t.Fatal(err)
	}
	if e := relativeError(t, ort.Floats(text.Context), c.array(t, "in.prompt_embeds")); e > 2e-5 {
		t.Errorf("prompt_embeds: relative error %g", e)
	}

	sd := readTensors(t, singleSD)
	sd[sdText+"text_model.embeddings.token_embedding.weight"] = checkpoint.FromFloat32(make([]float32, clipbpe.PublishedSize*32), clipbpe.PublishedSize, 32)
	path := filepath.Join(t.TempDir(), "clip.safetensors")
	writeTensors(t, path, sd)
	n, err = openSingle(t, singleFlags(t, func(c *SD) { c.TextEncoder.VocabSize = clipbpe.PublishedSize }), path)
	if err != nil {
		t.Fatal(err)
	}
	if null, err := n.Null(t.Context(), 2); err != nil || !slices.Equal(null.Context.Shape, []int{2, 77, 32}) {
		t.Errorf("∅ has shape %v, %v", null.Context.Shape, err)
	}
}
