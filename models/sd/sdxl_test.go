package sd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const tinyXL = casesFolder + "sample-sdxl-cfg/model"

func openXL(t testing.TB, c *SDXL, path string) *Net {
	t.Helper()
	m, err := c.Open(path, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m.(*Net)
}

// TestXLPrompts: prompts.json leads to the recorded embeddings, pooled embeddings
// and sizes, those of ∅ too.
func TestXLPrompts(t *testing.T) {
	for _, name := range []string{"sample-sdxl-cfg", "sample-sdxl-sag", "sample-sdxl-dpm2m-skip"} {
		c := openCase(t, name)
		n := c.open(t, models.Options{}).(*Net)
		positive, negative := c.prompts(t)
		compare := func(prefix string, got sampling.Cond, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			want := tensor.Beside(c.array(t, prefix+"pooled_prompt_embeds").Tensor(), c.array(t, prefix+"time_ids").Tensor())
			for what, pair := range map[string][2]tensor.Tensor{"prompt_embeds": {got.Context, c.array(t, prefix+"prompt_embeds").Tensor()}, "vector": {got.Vector, want}} {
				if e := relative(pair[0], pair[1]); !(e < 1e-5) {
					t.Errorf("%s: %s%s: relative error %g", name, prefix, what, e)
				}
			}
		}
		got, err := n.Encode(context.Background(), positive)
		compare("in.", got, err)
		if negative == nil {
			got, err = n.Null(t.Context(), len(positive))
		} else {
			got, err = n.EncodeNegative(context.Background(), negative)
		}
		compare("in.negative_", got, err)
	}
}

// relative is the largest distance as a fraction of the largest value; infinite for
// other shapes, and 0 for zeros alone.
func relative(a, b tensor.Tensor) float64 {
	if !slices.Equal(a.Shape, b.Shape) {
		return 1e9
	}
	far, largest := 0.0, 0.0
	for i, v := range b.Data {
		far, largest = max(far, float64(v-a.Data[i]), float64(a.Data[i]-v)), max(largest, float64(v), -float64(v))
	}
	if far == 0 {
		return 0
	}
	return far / largest
}

// TestXLNull: what stands for ∅ where the flags and model_index.json say it is.
func TestXLNull(t *testing.T) {
	off, on := false, true
	folder := copyFolder(t, tinyXL)
	editJSON(t, filepath.Join(folder, "model_index.json"), func(m map[string]any) { m["force_zeros_for_empty_prompt"] = false })
	for _, c := range []struct {
		path  string
		flags *SDXL
		zeros bool
	}{
		{tinyXL, &SDXL{}, true}, {tinyXL, &SDXL{ForceZerosForEmptyPrompt: &off}, false}, {tinyXL, &SDXL{flags: flags{NegativePrompt: "blurry"}}, false},
		{folder, &SDXL{}, false}, {folder, &SDXL{ForceZerosForEmptyPrompt: &on}, true},
	} {
		n := openXL(t, c.flags, c.path)
		null, err := n.Null(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		want, err := n.EncodeNegative(context.Background(), []string{c.flags.NegativePrompt, c.flags.NegativePrompt})
		if err != nil {
			t.Fatal(err)
		}
		if c.zeros {
			want.Context = want.Context.Like()
			want.Vector = tensor.Beside(tensor.New(2, 20), tensor.Of([]float32{32, 32, 0, 0, 32, 32, 32, 32, 0, 0, 32, 32}, 2, 6))
		}
		if !null.Equal(want) {
			t.Errorf("%s, %+v: ∅ is %v …, want %v …", c.path, c.flags, null.Vector.Data[:8], want.Vector.Data[:8])
		}
	}
}

// TestXLFiles lists what a run id has to depend on.
func TestXLFiles(t *testing.T) {
	files, err := NewSDXL().Files(tinyXL)
	for i, f := range files {
		files[i] = strings.TrimPrefix(f, tinyXL+"/")
	}
	if want := []string{
		"unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
		"text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder_2/config.json", "text_encoder_2/model.safetensors",
		"tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json",
		"tokenizer_2/vocab.json", "tokenizer_2/merges.txt", "tokenizer_2/tokenizer_config.json", "tokenizer_2/special_tokens_map.json",
		"scheduler/scheduler_config.json", "model_index.json",
	}; err != nil || !slices.Equal(files, want) {
		t.Errorf("got %q, %v", files, err)
	}
}

// TestXLFlags: what is wrong with flags and folders is said.
func TestXLFlags(t *testing.T) {
	for want, c := range map[string]*SDXL{
		`component is "text_encoder_3", which is not supported; supported: nothing, unet, vae, text_encoder, text_encoder_2`: {flags: flags{Component: "text_encoder_3"}},
		"target_size has 3 numbers, expected 2":                                                {TargetSize: []int{1, 2, 3}},
		"negative_original_size and negative_target_size are given together or not at all":     {NegativeTargetSize: []int{1, 2}},
		"negative_crops_coords_top_left needs negative_original_size and negative_target_size": {NegativeCropsCoordsTopLeft: []int{1, 2}},
		"clip_skip is 3, text encoder has 3 layers, of which the last is never used":           {flags: flags{ClipSkip: 3}},
		"original_config, tokenizer, text_encoder and extract_ema are for single files":        {TextEncoder2: &clipSizes{}},
		"height is 33, expected a multiple of 2, the autoencoder's factor":                     {flags: flags{Height: 33}},
	} {
		m, err := c.Open(tinyXL, models.Options{})
		if err == nil {
			m.Close()
		}
		wantError(t, err, want)
	}
	for want, spoil := range map[string]func(folder string){
		"this is Stable Diffusion XL's refiner": func(folder string) {
			editJSON(t, filepath.Join(folder, "model_index.json"), func(m map[string]any) {
				m["_class_name"], m["requires_aesthetics_score"], m["text_encoder"] = "StableDiffusionXLImg2ImgPipeline", true, []any{nil, nil}
			})
		},
		"unet/config.json:47: projection_class_embeddings_input_dim: this is Stable Diffusion XL's refiner": func(folder string) {
			editJSON(t, filepath.Join(folder, "unet", "config.json"), func(m map[string]any) { m["projection_class_embeddings_input_dim"] = 5*32 + 56 })
		},
		"the U-Net takes text_embeds of 20 channels, the second text encoder has projection_dim 19": func(folder string) {
			path := filepath.Join(folder, "text_encoder_2", "model.safetensors")
			sd := readTensors(t, path)
			x := sd["text_projection.weight"]
			sd["text_projection.weight"] = checkpoint.FromBytes(x.DType, x.Raw[:19*24*4], 19, 24)
			writeTensors(t, path, sd)
		},
		"the second text encoder has no text_projection": func(folder string) {
			path := filepath.Join(folder, "text_encoder_2", "model.safetensors")
			sd := readTensors(t, path)
			delete(sd, "text_projection.weight")
			writeTensors(t, path, sd)
		},
		"the tokenizers make prompts of 77 and of 70 tokens": func(folder string) {
			editJSON(t, filepath.Join(folder, "tokenizer_2", "tokenizer_config.json"), func(m map[string]any) { m["model_max_length"] = 70 })
		},
		"tokenizer_2 is missing; a Stable Diffusion XL folder has unet, vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2 and scheduler (or give component: unet, vae, text_encoder or text_encoder_2": func(folder string) {
			os.RemoveAll(filepath.Join(folder, "tokenizer_2"))
		},
		`addition_embed_type is "text", which is not supported; supported: text_time`: func(folder string) {
			editJSON(t, filepath.Join(folder, "unet", "config.json"), func(m map[string]any) { m["addition_embed_type"] = "text" })
		},
		"addition_time_embed_dim is set, but addition_embed_type is not": func(folder string) {
			editJSON(t, filepath.Join(folder, "unet", "config.json"), func(m map[string]any) { delete(m, "addition_embed_type") })
		},
		"expected more than 6 times addition_time_embed_dim 36": func(folder string) {
			editJSON(t, filepath.Join(folder, "unet", "config.json"), func(m map[string]any) { m["addition_time_embed_dim"] = 36 })
		},
	} {
		folder := copyFolder(t, tinyXL)
		spoil(folder)
		m, err := NewSDXL().Open(folder, models.Options{})
		if err == nil {
			m.Close()
		}
		wantError(t, err, want)
	}
	_, err := (&SD{}).Open(tinyXL, models.Options{})
	wantError(t, err, "is the folder of a StableDiffusionXLPipeline, of Stable Diffusion XL (family: sdxl)")
	_, err = NewSDXL().Open(tinySD, models.Options{})
	wantError(t, err, "of Stable Diffusion 1.x or 2.x (family: sd)")
	n := openXL(t, NewSDXL(), tinyXL)
	c := sampling.Cond{Context: tensor.New(1, 77, 56), Vector: tensor.New(1, 25)}
	_, err = n.Denoise(context.Background(), noise(t, 1, 4, 4, 4), sampling.Timestep{}, c)
	wantError(t, err, "the condition's Vector has shape [1 25], expected [N,26]: a pooled text embedding and 6 sizes")
}

// A single is a single file's tensors, with the family that reads it.
type single struct {
	pipeline pipeline
	tensors  checkpoint.StateDict
}

// singles are one of each generation.
func singles(t testing.TB) []single {
	_, file, xl := xlPair(t)
	return []single{{(&SD{}).pipeline(), readTensors(t, singleSD)}, {xl.pipeline(), readTensors(t, file)}}
}

// xlBlocks are the modules of a U-Net of two levels with one block each, in
// diffusers' names and in those of sgm's openaimodel.py.
var xlBlocks = strings.NewReplacer(
	"time_embedding.linear_1", "time_embed.0", "time_embedding.linear_2", "time_embed.2", "add_embedding.linear_1", "label_emb.0.0", "add_embedding.linear_2", "label_emb.0.2",
	"conv_in", "input_blocks.0.0", "conv_norm_out", "out.0", "conv_out", "out.2",
	"down_blocks.0.resnets.0", "input_blocks.1.0", "down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op",
	"down_blocks.1.resnets.0", "input_blocks.3.0", "down_blocks.1.attentions.0", "input_blocks.3.1",
	"mid_block.resnets.0", "middle_block.0", "mid_block.attentions.0", "middle_block.1", "mid_block.resnets.1", "middle_block.2",
	"up_blocks.0.resnets.0", "output_blocks.0.0", "up_blocks.0.attentions.0", "output_blocks.0.1",
	"up_blocks.0.resnets.1", "output_blocks.1.0", "up_blocks.0.attentions.1", "output_blocks.1.1", "up_blocks.0.upsamplers.0.conv", "output_blocks.1.2.conv",
	"up_blocks.1.resnets.0", "output_blocks.2.0", "up_blocks.1.resnets.1", "output_blocks.3.0",
	"norm1.", "in_layers.0.", "conv1.", "in_layers.2.", "time_emb_proj.", "emb_layers.1.", "norm2.", "out_layers.0.", "conv2.", "out_layers.3.", "conv_shortcut.", "skip_connection.")

// tinySGM describes the single file of xlPair.
const tinySGM = `model:
  target: sgm.models.diffusion.DiffusionEngine
  params:
    scale_factor: 0.25
    denoiser_config:
      target: sgm.modules.diffusionmodules.denoiser.DiscreteDenoiser
      params:
        num_idx: 1000
        scaling_config: {target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling}
        discretization_config: {target: sgm.modules.diffusionmodules.discretizer.LegacyDDPMDiscretization}
    network_config:
      target: sgm.modules.diffusionmodules.openaimodel.UNetModel
      params: {adm_in_channels: 212, in_channels: 4, out_channels: 4, model_channels: 32, num_res_blocks: 1, num_head_channels: 16, context_dim: 56}
    conditioner_config:
      target: sgm.modules.GeneralConditioner
      params:
        emb_models:
          - {target: sgm.modules.encoders.modules.FrozenCLIPEmbedder, params: {layer: hidden, layer_idx: 11}}
          - {target: sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2, params: {layer: penultimate}}
          - {target: sgm.modules.encoders.modules.ConcatTimestepEmbedderND, params: {outdim: 32}}
    first_stage_config: {target: sgm.models.autoencoder.AutoencoderKL, params: {embed_dim: 4}}
`

// xlPair is one random SDXL as a folder of diffusers and as a single file, with the
// flags of the latter. Text encoders and tokenizers are those of a case.
func xlPair(t testing.TB) (folder, file string, flags *SDXL) {
	t.Helper()
	folder, file = copyFolder(t, tinyXL), filepath.Join(t.TempDir(), "sdxl.safetensors")
	single := checkpoint.StateDict{"denoiser.sigmas": checkpoint.FromFloat32(make([]float32, 3), 3)}

	config := filepath.Join(folder, "unet", "config.json")
	editJSON(t, config, func(m map[string]any) {
		m["block_out_channels"], m["norm_num_groups"], m["attention_head_dim"], m["transformer_layers_per_block"] = []int{32, 64}, 32, []int{2, 4}, []int{1, 2}
		m["down_block_types"], m["up_block_types"], m["sample_size"] = []string{"DownBlock2D", "CrossAttnDownBlock2D"}, []string{"CrossAttnUpBlock2D", "UpBlock2D"}, 128
	})
	c := newSDUNetConfig()
	if err := readConfig(filepath.Dir(config), c); err != nil {
		t.Fatal(err)
	}
	shapes, err := onnx.Parameters(func(m *onnx.Module) { c.build(m, sdSize{size{2, 2}, 1}, models.NewTaps(models.Options{})) })
	if err != nil {
		t.Fatal(err)
	}
	unet, r := checkpoint.StateDict{}, rand.New(rand.NewPCG(1, 2))
	for _, key := range slices.Sorted(maps.Keys(shapes)) {
		v := make([]float32, tensor.Size(shapes[key]))
		for i := range v {
			v[i] = float32(r.NormFloat64()) / 8
		}
		unet[key] = checkpoint.FromFloat32(v, shapes[key]...)
		name := key
		if !strings.Contains(key, "attentions") {
			name = xlBlocks.Replace(key)
		} else if at := strings.Index(key, ".attentions.") + len(".attentions.0"); true {
			name = xlBlocks.Replace(key[:at]) + key[at:]
		}
		single[ldmUNet+name] = unet[key]
	}
	writeTensors(t, filepath.Join(folder, "unet", weightsFile), unet)

	whole := readTensors(t, singleSD)
	for key, x := range whole {
		if strings.HasPrefix(key, ldmVAE) {
			single[key] = x
		}
	}
	s, err := (&SD{}).pipeline().split(&weights{tensors: whole})
	if err != nil {
		t.Fatal(err)
	}
	v := vaeConfigOf(s.vae)
	editJSON(t, filepath.Join(folder, "vae", "config.json"), func(m map[string]any) {
		m["block_out_channels"], m["down_block_types"], m["up_block_types"], m["layers_per_block"] = v.BlockOutChannels, v.DownBlockTypes, v.UpBlockTypes, v.LayersPerBlock
		m["norm_num_groups"], m["scaling_factor"] = compVisGroups, 0.25
	})
	writeTensors(t, filepath.Join(folder, "vae", weightsFile), s.vae)

	for key, x := range readTensors(t, filepath.Join(tinyXL, "text_encoder", "model.safetensors")) {
		single["conditioner.embedders.0.transformer."+key] = x
	}
	second := readTensors(t, filepath.Join(tinyXL, "text_encoder_2", "model.safetensors"))
	const prefix = "conditioner.embedders.1.model."
	maps.Copy(single, openCLIPOf(t, second, prefix, 4))
	single[prefix+"text_projection"] = transposed(t, second["text_projection.weight"])
	delete(single, prefix+"text_projection.weight")
	writeTensors(t, file, single)

	editJSON(t, filepath.Join(folder, "scheduler", "scheduler_config.json"), func(m map[string]any) { m["prediction_type"] = "v_prediction" })
	yaml := filepath.Join(filepath.Dir(file), "sd_xl_tiny.yaml")
	if err := os.WriteFile(yaml, []byte(tinySGM), 0o644); err != nil {
		t.Fatal(err)
	}
	flags = NewSDXL()
	flags.OriginalConfig, flags.Tokenizer, flags.Tokenizer2 = fileIn("", yaml), fileIn(tinyXL, "tokenizer"), fileIn(tinyXL, "tokenizer_2")
	flags.TextEncoder, flags.TextEncoder2 = &clipSizes{NumAttentionHeads: 4}, &clipSizes{NumAttentionHeads: 3}
	return folder, file, flags
}

// transposed is a matrix the other way round.
func transposed(t testing.TB, x checkpoint.Tensor) checkpoint.Tensor {
	t.Helper()
	v, err := x.Float32()
	if err != nil {
		t.Fatal(err)
	}
	rows, columns := x.Shape[0], x.Shape[1]
	out := make([]float32, len(v))
	for i, f := range v {
		out[i%columns*rows+i/columns] = f
	}
	return checkpoint.FromFloat32(out, columns, rows)
}

// TestXLSingleFile: the single file and the folder are one network.
func TestXLSingleFile(t *testing.T) {
	folder, file, flags := xlPair(t)
	size := func(c *SDXL) *SDXL { c.Height, c.Width = 32, 48; return c }
	a, b := openXL(t, size(NewSDXL()), folder), openXL(t, size(flags), file)
	if p, q := a.Process(), b.Process(); p.Predicts != sampling.V || q.Predicts != sampling.V || *p.Schedule.Scheduler.StepsOffset != *q.Schedule.Scheduler.StepsOffset {
		t.Errorf("processes %+v and %+v", p, q)
	}
	var conds, nulls [2]sampling.Cond
	var eps [2]tensor.Tensor
	var pixels [2]models.Images
	x := noise(t, 2, 4, 16, 24)
	for i, n := range []*Net{a, b} {
		var err error
		if conds[i], err = n.Encode(context.Background(), []string{"a photo of a horse!", "rain"}); err != nil {
			t.Fatal(err)
		}
		if nulls[i], err = n.Null(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		eps[i] = denoise(t, n, x, conds[i]).Eps
		if pixels[i], err = n.Pixels(context.Background(), eps[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !conds[0].Equal(conds[1]) || !nulls[0].Equal(nulls[1]) {
		t.Error("other conditions")
	}
	if !slices.Equal(eps[0].Data, eps[1].Data) || !slices.Equal(pixels[0].Pixels, pixels[1].Pixels) {
		t.Errorf("other predictions, by %g", relative(eps[0], eps[1]))
	}
	sd := readTensors(t, file)
	for _, key := range []string{"conditioner.embedders.0.transformer.text_model.encoder.layers.9.mlp.fc1.bias", "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_fc.bias"} {
		spoilt, path := maps.Clone(sd), filepath.Join(t.TempDir(), "spoilt.safetensors")
		spoilt[key] = sd["denoiser.sigmas"]
		writeTensors(t, path, spoilt)
		_, err := flags.Open(path, models.Options{})
		wantError(t, err, "unexpected "+key) // by the file's own name
	}
	for component, want := range map[string]string{"unet": "*sd.sdUNet", "vae": "*sd.vaeNet", "text_encoder": "*sd.textNet", "text_encoder_2": "*sd.textNet"} {
		for path, c := range map[string]*SDXL{folder: NewSDXL(), file: flags} {
			c.Component = component
			m, err := c.Open(path, models.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%T", m); got != want {
				t.Errorf("%s of %s is a %s", component, path, got)
			}
			m.Close()
		}
	}
}

// TestXLOtherUNet: the U-Net of a file takes the place of a folder's and of a single
// file's.
func TestXLOtherUNet(t *testing.T) {
	folder, file, base := xlPair(t)
	own := filepath.Join(folder, "unet", weightsFile)
	path := filepath.Join(t.TempDir(), "sdxl_lightning_4step_unet.safetensors")
	sd := readTensors(t, own)
	old, err := sd["conv_out.bias"].Float32()
	if err != nil {
		t.Fatal(err)
	}
	biases := []float32{1, 2, 3, 4}
	sd["conv_out.bias"] = checkpoint.FromFloat32(biases, 4)
	writeTensors(t, path, sd)

	x, c := noise(t, 1, 4, 8, 8), sampling.Cond{Context: tensor.New(1, 3, 56), Vector: tensor.New(1, 26)}
	want := denoise(t, openXL(t, NewSDXL(), folder), x, c).Eps
	for i := range want.Data {
		want.Data[i] += biases[i/64] - old[i/64]
	}
	alone := &SDXL{flags: flags{Component: "unet"}}
	if m, err := alone.Open(own, models.Options{}); err != nil { // its config.json lies beside it
		t.Error(err)
	} else {
		m.Close()
	}
	_, err = alone.Open(path, models.Options{})
	wantError(t, err, "expected more than 6 times addition_time_embed_dim 256") // as published: the shapes do not tell
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	for path1, flags := range map[string]*SDXL{folder: NewSDXL(), file: base} {
		flags.UNet = fileIn("", path)
		if e := relative(denoise(t, openXL(t, flags, path1), x, c).Eps, want); !(e < 1e-5) {
			t.Errorf("%s: relative error %g", path1, e)
		}
		files, err := flags.Files(path1)
		if err != nil || !slices.Contains(files, path) || slices.Contains(files, own) {
			t.Errorf("%s: files %v, %v", path1, files, err)
		}
		if !slices.ContainsFunc(flags.Parts(), func(p models.Part) bool { return p.Path == path && p.Kind == "U-Net" }) {
			t.Errorf("parts %v", flags.Parts())
		}
	}
	lora := checkpoint.FromFloat32(make([]float32, 8192), 4, 2048)
	writeTensors(t, path, checkpoint.StateDict{"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": lora})
	_, err = (&SDXL{UNet: fileIn("", path)}).Open(folder, models.Options{})
	wantError(t, err, "models: unet: ", "this is a LoRA for Stable Diffusion XL: 1 tensors named lora_unet_…; merge it into its base model first")
}

// TestXLGuess: inspect knows the folder, its U-Net, the single file and the refiner,
// and its block opens what it is of.
func TestXLGuess(t *testing.T) {
	folder, file, _ := xlPair(t)
	guess := func(path string) (sd, xl models.Guess) {
		t.Helper()
		tensors := readTensors(t, path)
		sd, isSD := (&SD{}).Guess(tensors)
		xl, isXL := NewSDXL().Guess(tensors)
		if isSD || !isXL {
			t.Errorf("%s: sd %v, sdxl %v", path, isSD, isXL)
		}
		return sd, xl
	}
	if _, g := guess(filepath.Join(folder, "unet", weightsFile)); fmt.Sprint(g.Flags) != `[{component "unet" }]` || !strings.Contains(g.Evidence, "or this file as unet beside the checkpoint") {
		t.Errorf("the U-Net: %+v", g)
	}
	sd := readTensors(t, file)
	// with the published width of the embedded sizes, which the shapes do not tell
	in := ldmUNet + "label_emb.0.0.weight"
	sd[in] = checkpoint.FromFloat32(make([]float32, 128*(20+6*256)), 128, 20+6*256)
	writeTensors(t, file, sd)
	if _, g := guess(file); len(g.Mismatches) > 0 || len(g.Needs) != 2 || !strings.Contains(g.Evidence, "context of 56 channels: Stable Diffusion XL") || len(g.Attention) == 0 {
		t.Errorf("the single file: %+v", g)
	}
	for _, path := range []string{folder, filepath.Join(folder, "unet")} {
		_, isSD := (&SD{}).GuessFolder(path)
		c := NewSDXL()
		g, isXL := c.GuessFolder(path)
		if isSD || !isXL || len(g.Attention) == 0 {
			t.Errorf("%s: sd %v, sdxl %v, %+v", path, isSD, isXL, g)
		}
		if m, err := c.Open(path, models.Options{}); err != nil {
			t.Error(err)
		} else {
			m.Close()
		}
	}
	os.Remove(filepath.Join(folder, "model_index.json"))
	if _, ok := NewSDXL().GuessFolder(folder); !ok {
		t.Error("a folder without model_index.json is not recognized")
	}
	if _, ok := NewSDXL().GuessFolder(tinySD); ok {
		t.Error("SD's folder is taken for SDXL's")
	}
	sd["conditioner.embedders.0.model.ln_final.bias"] = sd["denoiser.sigmas"]
	writeTensors(t, file, sd)
	_, err := NewSDXL().Open(file, models.Options{})
	wantError(t, err, "this is Stable Diffusion XL's refiner: 1 tensors named conditioner.embedders.0.model.…; it works on images of the base model")
	_, err = NewSDXL().Open(singleSD, models.Options{})
	wantError(t, err, "its keys are those of Stable Diffusion 1.x or 2.x (family: sd)")
}

// TestXLSize: what stable-diffusion-xl-base-1.0 takes is told from its
// configurations alone; a part of it, or one that cannot be read, has no size.
func TestXLSize(t *testing.T) {
	folder := copyFolder(t, tinyXL)
	write := func(part, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, part, "config.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("unet", publishedUNets["stable-diffusion-xl-base-1.0"])
	write("vae", sdVAE)
	write("text_encoder", `{"model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}`)
	write("text_encoder_2", `{"model_type": "clip_text_model", "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280}`)
	s, err := NewSDXL().Measure(folder, 0, 0)
	const decoder = 49_490_199 // of the autoencoder's 83,653,863 parameters
	if want := 2_567_463_684 + decoder + 123_060_480 + 694_659_840 - 1280*1280.0; err != nil || s.Parameters != want {
		t.Errorf("%.0f parameters, want %.0f; %v", s.Parameters, want, err)
	}
	// values and gates of a transformer block, 8·640 channels, at 64×64 places
	if want := 4.0 * 8 * 640 * 64 * 64; s.Activation != want {
		t.Errorf("the largest value takes %.0f bytes, want %.0f", s.Activation, want)
	}
	wide, err := (&SDXL{flags: flags{Height: 2048, Width: 2048}}).Measure(folder, 0, 0)
	if err != nil || wide.Activation != 4*s.Activation {
		t.Errorf("at 2048×2048 the largest value takes %.0f bytes, %v", wide.Activation, err)
	}
	if s, err := (&SDXL{flags: flags{Component: "unet"}}).Measure(folder, 0, 0); err != nil || s.Parameters != 0 {
		t.Errorf("a part: %+v, %v", s, err)
	}
	if s, err := NewSDXL().Measure(folder+"/none", 0, 0); err != nil || s.Parameters != 0 {
		t.Errorf("no folder: %+v, %v", s, err)
	}
}
