package plan

import (
	"cmp"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
)

// A model block that is wrong, and what is said about it.
func TestModelBlocks(t *testing.T) {
	for text, want := range map[string]string{
		"{checkpoint: a.pt}":                                  "family is missing",
		"{family: adm}":                                       "checkpoint is missing",
		"{family: gan, checkpoint: a.pt}":                     `unknown family "gan"`,
		"{family: adm, checkpoint: a.pt, image_sise: 64}":     `did you mean "image_size"`,
		"{family: adm, checkpoint: a.pt, num_channels: wide}": "num_channels",
	} {
		b, err := configs.Parse("model.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeNetwork(b.With(Hooks(FileOf))); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "model.yaml:1") {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// Flags of DiT that are wrong are named with their line.
func TestDiTFlags(t *testing.T) {
	for text, want := range map[string]string{
		"model: DiT-XL/3":            `model.yaml:1: model "DiT-XL/3" is no published size; known: DiT-B/2, DiT-B/4`,
		"model: DiT-XL/2, depth: 12": "depth is 12, but that of model DiT-XL/2 is 28",
		"depth: -1":                  "depth is -1, expected a number from 1",
		"depth: 2000":                "depth is 2000, expected at most 1024",
		"input_size: 33":             "input_size 33 is no multiple of patch_size 2",
		"num_heads: 7":               "num_heads 7 does not divide hidden_size 1152",
		"mlp_ratio: 0":               "mlp_ratio is 0, which makes the MLP 0 wide",
		"noise_schedule: quadratic":  `noise_schedule is "quadratic"`,
		"vae_scaling_factor: 0":      "vae_scaling_factor is 0",
		"vae: {family: vae, checkpoint: a, varient: fp16}": `unknown key "varient"`,
		"vae: {checkpoint: a}":                             "family is missing",
		"hidden: 3":                                        `unknown key "hidden"`,
	} {
		b, err := configs.Parse("model.yaml", []byte("{family: dit, checkpoint: a.pt, "+text+"}"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeNetwork(b.With(Hooks(FileOf))); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "model.yaml:1") != strings.Count(err.Error(), "\n")+1 {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// The autoencoder of a DiT is a path, or a model block.
func TestRefs(t *testing.T) {
	dir := t.TempDir()
	tiny.Write(t, filepath.Join(dir, "beside"), "")
	for vae, written := range map[string]string{"beside": `"beside"`, "{checkpoint: beside, family: vae}": `{"checkpoint":"beside","family":"vae"}`, "null": "null"} {
		b, err := configs.Parse(filepath.Join(dir, "model.yaml"), []byte("{family: dit, checkpoint: a.pt, vae: "+vae+"}"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := DecodeNetwork(b.With(Hooks(FileOf)))
		if err != nil {
			t.Fatal(err)
		}
		got := &s.Flags.(*models.DiT).VAE
		fields, err := Fields(s.Flags)
		if err != nil || string(fields["vae"]) != written {
			t.Errorf("vae: %s is written as %s, %v", vae, fields["vae"], err)
		}
		if got.IsZero() != (vae == "null") || !got.IsZero() && (got.Family != "vae" || got.Checkpoint.Path != filepath.Join(dir, "beside") || len(s.parts()) != 1) {
			t.Errorf("vae: %s is %+v", vae, got)
		}
	}
}

// Which set of weights of the autoencoder's file decodes the latents is a part of the
// run id where it is not the one that lies nearest, and stands in the notes.
func TestWeightsOfParts(t *testing.T) {
	folder := t.TempDir()
	nested := filepath.Join(folder, "nested.ckpt")
	tiny.Nest(t, filepath.Join(tiny.Root(), "experiments/refcase/testdata/cases/sample-sd-singlefile/model.ckpt"), nested)
	ids := map[string]string{}
	for _, weights := range []string{"", "model", "ema.shadow"} {
		block := "vae: {family: vae, checkpoint: " + nested + "}"
		if weights != "" {
			block = strings.Replace(block, "}", ", weights: "+weights+"}", 1)
		}
		e, err := Load(tiny.Experiment(t, folder), []string{"guidance=!replace {}", "sweep=!replace {}", "model=!replace {family: dit, checkpoint: " +
			filepath.Join(tiny.Root(), "models/pretrained/dit.pt") + ", depth: 6, hidden_size: 128, input_size: 16, num_classes: 10, num_heads: 4, " + block + "}"})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.CheckInputs(t.Context()); err != nil {
			t.Fatal(err)
		}
		runs, err := e.Identify(folder, store.Hashes{})
		if err != nil {
			t.Fatal(err)
		}
		ids[weights] = runs[0].ID
		notes, err := models.Notes(&runs[0].Model.Ref, nil)
		used := cmp.Or(weights, "ema.shadow")
		if err != nil || !strings.Contains(strings.Join(notes, "\n"), "nested.ckpt: its weights \""+used+"\" are used") {
			t.Errorf("weights %q: notes %q, %v", weights, notes, err)
		}
	}
	if ids[""] != ids["ema.shadow"] || ids[""] == ids["model"] {
		t.Errorf("run ids %v", ids)
	}
}
