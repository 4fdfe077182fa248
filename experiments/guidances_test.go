package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/experiments/plan"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
)

var update = flag.Bool("update", false, "write the table of docs/guidance.md anew")

// A guided is a family as the table of docs/guidance.md names it, and what guidances
// need on it.
type guided struct {
	column  string
	layer   string // of attention
	block   string // that can be skipped
	network func(t *testing.T) (model, worse, null string)
	sampler string
	space   string // for tcfg, whose own says nothing at the first step
	prompts bool
}

var guidedFamilies = []guided{
	{column: "ADM", layer: "output_blocks.0.1", block: "middle_block.1", network: admNetworks},
	{column: "ADM, class_cond", layer: "output_blocks.0.1", block: "middle_block.1", network: admClassNetworks},
	{column: "IDDPM", layer: "output_blocks.0.1", block: "middle_block.1", network: iddpmNetworks},
	{column: "DiT", layer: "blocks.1.attn", block: "blocks.1", network: ditNetworks},
	{column: "SD", layer: "mid_block.attentions.0.transformer_blocks.0.attn1", block: "mid_block.attentions.0.transformer_blocks.0", network: sdNetworks, prompts: true},
	{column: "SDXL", layer: "mid_block.attentions.0.transformer_blocks.0.attn1", block: "mid_block.attentions.0.transformer_blocks.0", network: sdxlNetworks, prompts: true},
	{column: "SiT", layer: "blocks.1.attn", block: "blocks.1", network: sitNetworks, sampler: "{ode: {steps: 4, sampling_method: euler}}", space: "velocity"},
	{column: "EDM", layer: "model.dec.4x4_in0", block: "model.dec.4x4_in0", network: edmNetworks, sampler: "{edm: {steps: 2, sigma_min: 0.5}}"},
	{column: "EDM2", layer: "unet.dec.4x4_in0", block: "unet.dec.4x4_in0", network: edm2Networks, sampler: "{edm: {steps: 2, sigma_min: 0.5}}"},
}

// referenceCase is a file of a reference case.
func referenceCase(t *testing.T, name string) string {
	path, err := filepath.Abs("refcase/testdata/cases/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// randomModel is a model block with a checkpoint of random weights.
func randomModel(t *testing.T, flags string, seed uint64) string {
	t.Helper()
	block := fmt.Sprintf("{checkpoint: %q, %s}", filepath.Join(t.TempDir(), "random.pt"), flags)
	b, err := configs.Parse("random", []byte(block))
	if err != nil {
		t.Fatal(err)
	}
	n, err := plan.DecodeNetwork(b.With(plan.Hooks(plan.FileOf)))
	if err != nil {
		t.Fatal(err)
	}
	shapes, err := n.Flags.(models.WithParameters).Parameters()
	if err != nil {
		t.Fatal(err)
	}
	if err := randomweights.Write(n.Checkpoint.Path, shapes, seed); err != nil {
		t.Fatal(err)
	}
	return block
}

// Flags of small networks, most of 8×8 pixels or latents.
const (
	smallUNet = ", num_channels: 32, num_res_blocks: 1, attention_resolutions: '4', num_heads: 2, diffusion_steps: 100"
	smallDiT  = ", input_size: 8, patch_size: 2, hidden_size: 48, depth: 3, num_heads: 4, num_classes: 10"
	smallEDM2 = "family: edm2, img_resolution: 8, img_channels: 3, model_channels: 32, channel_mult: [1, 2], num_blocks: 1, attn_resolutions: [4]"
	smallEDM  = "family: edm, img_resolution: 8, img_channels: 3, model_channels: 32, channel_mult: [1, 2], num_blocks: 1, attn_resolutions: [4]"

	smallADM        = "family: adm, image_size: 8, channel_mult: '1,2', learn_sigma: true" + smallUNet
	smallClassifier = "family: classifier, image_size: 8, classifier_attention_resolutions: '4', classifier_depth: 1, classifier_width: 32, channel_mult: '1,2', num_head_channels: 16, num_classes: 10"
)

// admNetworks are an unconditional ADM and one with other weights.
func admNetworks(t *testing.T) (model, worse, null string) {
	return randomModel(t, smallADM, 1), randomModel(t, smallADM, 2), ""
}

// admClassNetworks are class-conditional ADMs and one without labels.
func admClassNetworks(t *testing.T) (model, worse, null string) {
	labelled := smallADM + ", class_cond: true, num_classes: 10"
	return randomModel(t, labelled, 1), randomModel(t, labelled, 2), randomModel(t, smallADM, 3)
}

// iddpmNetworks are an unconditional IDDPM and one with other weights.
func iddpmNetworks(t *testing.T) (model, worse, null string) {
	flags := "family: iddpm, image_size: 8, channel_mult: '1,2', learn_sigma: true" + smallUNet
	return randomModel(t, flags, 1), randomModel(t, flags, 2), ""
}

// ditNetworks are a DiT with an autoencoder and one with other weights.
func ditNetworks(t *testing.T) (model, worse, null string) {
	flags := "family: dit, vae: " + referenceCase(t, "sample-sit-sag/vae") + smallDiT
	return randomModel(t, flags, 1), randomModel(t, flags, 2), ""
}

// sitNetworks are likewise of SiT.
func sitNetworks(t *testing.T) (model, worse, null string) {
	of := referenceCase(t, "sample-sit-sag")
	flags := "family: sit, vae: " + of + "/vae" + smallDiT
	return "{checkpoint: " + of + "/model.pt, " + flags + "}", randomModel(t, flags, 1), ""
}

// sdNetworks are a Stable Diffusion and one whose U-Net's weights are all a little smaller.
func sdNetworks(t *testing.T) (model, worse, null string) {
	return pipelines(t, "sd", "sample-sd-cfg/model")
}

// sdxlNetworks are likewise of Stable Diffusion XL.
func sdxlNetworks(t *testing.T) (model, worse, null string) {
	return pipelines(t, "sdxl", "sample-sdxl-cfg/model")
}

func pipelines(t *testing.T, family, folder string) (model, worse, null string) {
	good := referenceCase(t, folder)
	block := func(folder string) string { return "{family: " + family + ", checkpoint: " + folder + "}" }
	return block(good), block(shrunk(t, good)), ""
}

// edm2Networks are conditional networks of EDM2 and one without labels.
func edm2Networks(t *testing.T) (model, worse, null string) {
	of := func(name string) string { return "{family: edm2, checkpoint: " + referenceCase(t, name) + "}" }
	return of("edm2-cond-tiny/model.pkl"), of("sample-edm2-heun/model.pkl"), randomModel(t, smallEDM2, 1)
}

// edmNetworks are conditional networks of EDM and one without labels.
func edmNetworks(t *testing.T) (model, worse, null string) {
	return randomModel(t, smallEDM+", label_dim: 5", 1), randomModel(t, smallEDM+", label_dim: 5", 2), randomModel(t, smallEDM, 1)
}

// shrunk is a copy of a folder of diffusers whose U-Net's weights are a little smaller.
func shrunk(t *testing.T, folder string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(filepath.Join(folder, "unet/diffusion_pytorch_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	smaller := checkpoint.StateDict{}
	for name, w := range f.Tensors {
		values, err := w.Float32()
		if err != nil {
			t.Fatal(err)
		}
		for i := range values {
			values[i] *= 0.97
		}
		smaller[name] = checkpoint.FromFloat32(values, w.Shape...)
	}
	if err := checkpoint.WriteSafetensors(filepath.Join(to, "unet/diffusion_pytorch_model.safetensors"), smaller, nil); err != nil {
		t.Fatal(err)
	}
	return to
}

// options are those that a guidance needs on a family; with a model block in model,
// with a network of its own.
func (f *guided) options(name, model string) string {
	given := map[string]string{
		"sag":  "layer: " + f.layer + ", blur_sigma: 1, blur_kernel: 5",
		"tcfg": "space: '" + f.space + "'",
		"pag":  "layers: [" + f.layer + "]", "seg": "layers: [" + f.layer + "]", "slg": "layers: [" + f.block + "]",
	}[name]
	if model == "" {
		return given
	}
	return strings.TrimPrefix(given+", ", ", ") + "model: " + model
}

// The table of docs/guidance.md is what the program says: every guidance on every
// family changes the images, with a network of its own or without, or the plan says
// why it cannot be. With -update it is written anew. What takes time are sessions,
// five or more a family, so the networks are small and have a thread each.
func TestGuidancesOfFamilies(t *testing.T) {
	classifier := randomModel(t, smallClassifier, 1)
	columns := make([]map[string]string, len(guidedFamilies)) // by guidance, the cells of a family
	t.Run("families", func(t *testing.T) {
		for i := range guidedFamilies {
			t.Run(guidedFamilies[i].column, func(t *testing.T) {
				t.Parallel()
				columns[i] = guidedFamilies[i].cells(t, classifier)
			})
		}
	})
	if !t.Failed() {
		compareTable(t, columns)
	}
}

// cells tries every guidance on the family, draws with those that run, and compares
// the images with those of none.
func (f *guided) cells(t *testing.T, classifier string) map[string]string {
	dir := t.TempDir()
	load := func(name string, rows ...string) string {
		path := filepath.Join(dir, name+".yaml")
		text := "{name: " + name + ", samples: 1, metrics: [], sampler: " + cmp.Or(f.sampler, "{ddim: {steps: 2}}") + ", rows: [" + strings.Join(rows, ", ") + "]}"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) error {
		root := rootCommand(&globals{})
		root.SetArgs(append(args, "--threads", "1", "--results", filepath.Join(dir, "results")))
		root.SetOut(io.Discard)
		return root.Execute()
	}
	model, worse, null := f.network(t)
	row := func(label, guidance string) string {
		prompts := ""
		if f.prompts {
			prompts = "prompts: [a photo of a bag, a photo of a coat], "
		}
		return fmt.Sprintf("{label: %s, %smodel: %s, guidance: %s}", label, prompts, model, guidance)
	}
	rows := []string{row("unguided", "{}")}
	names := plan.GuidanceRegistry.Names()
	slices.SortStableFunc(names, func(a, b string) int { // those that share a network together
		return strings.Index(f.options(a, ""), "layer") - strings.Index(f.options(b, ""), "layer")
	})
	cells := map[string]string{}
	for _, name := range names {
		own := map[string]string{"autoguidance": worse, "classifier": classifier}[name]
		cells[name] = "–"
		var err error
		for _, try := range []struct{ cell, network string }{{"●", ""}, {"◐", cmp.Or(own, null)}} {
			if try.cell == "◐" && try.network == "" {
				continue
			}
			one := row(name, fmt.Sprintf("{%s: {%s}}", name, f.options(name, try.network)))
			if err = run("plan", load("tried", one)); err == nil {
				cells[name], rows = try.cell, append(rows, one)
				break
			}
		}
		if err != nil && !explains(err, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := run("sample", load("drawn", rows...)); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "results", "drawn")
	plain := drawnPixels(t, folder, "unguided")
	for name, cell := range cells {
		if cell != "–" && bytes.Equal(drawnPixels(t, folder, name), plain) {
			t.Errorf("%s changes nothing", name)
		}
	}
	return cells
}

// explains tells whether an error says why a guidance is nothing for a family.
func explains(err error, name string) bool {
	return strings.Contains(err.Error(), name) && slices.ContainsFunc([]string{
		"takes no condition", "name an unconditional network", "expected the same", "the time itself", "takes a model block", "is missing",
	}, func(why string) bool { return strings.Contains(err.Error(), why) })
}

// compareTable holds the table of docs/guidance.md against the cells of all families,
// by guidance.
func compareTable(t *testing.T, columns []map[string]string) {
	t.Helper()
	const page = "../docs/guidance.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head := []string{"guidance"}
	for _, f := range guidedFamilies {
		head = append(head, f.column)
	}
	table := "| " + strings.Join(head, " | ") + " |\n|" + strings.Repeat(" --- |", len(head)) + "\n"
	for _, name := range slices.Sorted(maps.Keys(columns[0])) {
		table += "| " + name
		for _, cells := range columns {
			table += " | " + cells[name]
		}
		table += " |\n"
	}
	from := strings.Index(string(text), "| guidance |")
	to := from + strings.Index(string(text)[from:], "\n\n") + 1
	if string(text)[from:to] == table {
		return
	}
	if !*update {
		t.Fatalf("%s has another table than\n%s\nwrite it with go test ./experiments -run %s -update", page, table, t.Name())
	}
	if err := os.WriteFile(page, []byte(string(text)[:from]+table+string(text)[to:]), 0o644); err != nil {
		t.Fatal(err)
	}
}
