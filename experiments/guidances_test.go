package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
)

var update = flag.Bool("update", false, "write the table of docs/guidance.md anew")

// A guided is a family as the table of docs/guidance.md names it, and what guidances
// need on it.
type guided struct {
	column string
	label  string // in configs/families-fashion.yaml, of an embedded family
	layer  string // of attention
	block  string // that can be skipped
	file   string // of the checkpoint that a worse network is made of
	flags  string // beside those of the label
	null   string // an unconditional checkpoint of the same process

	// Of a family that is not embedded, in place of label, file and null:
	network func(t *testing.T) (model, worse, null string) // model blocks; the last two "" where there are none
	sampler string
	space   string // for tcfg, whose own says nothing at the first step
}

var guidedFamilies = []guided{
	{column: "ADM", label: "ADM", layer: "output_blocks.1.1", block: "middle_block.1", file: "adm-uncond.pt"},
	{column: "ADM, class_cond", label: "ADM", layer: "output_blocks.1.1", block: "middle_block.1", file: "adm-cond.pt", flags: "class_cond: true, num_classes: 10", null: "adm-uncond.pt"},
	{column: "IDDPM", label: "IDDPM", layer: "output_blocks.1.1", block: "middle_block.1", file: "iddpm.pt"},
	{column: "DiT", label: "DiT", layer: "blocks.3.attn", block: "blocks.3", file: "dit.pt"},
	{column: "SD", label: "SD", layer: "mid_block.attentions.0.transformer_blocks.0.attn1", block: "mid_block.attentions.0.transformer_blocks.0", file: "sd"},
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
func randomModel(t *testing.T, family models.WithParameters, flags string) string {
	shapes, err := family.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "random.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("{checkpoint: %s, %s}", path, flags)
}

// sitNetworks are a network of SiT and one with other weights.
func sitNetworks(t *testing.T) (model, worse, null string) {
	c := models.NewSiT()
	c.InputSize, c.HiddenSize, c.Depth, c.NumHeads, c.NumClasses, c.PatchSize = 8, 48, 3, 4, 10, 2
	of := referenceCase(t, "sample-sit-sag")
	flags := "family: sit, input_size: 8, patch_size: 2, hidden_size: 48, depth: 3, num_heads: 4, num_classes: 10, vae: " + of + "/vae"
	return "{checkpoint: " + of + "/model.pt, " + flags + "}", randomModel(t, c, flags), ""
}

// edm2Networks are conditional networks of EDM2 and one without labels.
func edm2Networks(t *testing.T) (model, worse, null string) {
	of := func(name string) string { return "{family: edm2, checkpoint: " + referenceCase(t, name) + "}" }
	return of("edm2-cond-tiny/model.pkl"), of("sample-edm2-heun/model.pkl"), of("sample-edm2-cfg-churn/gnet.pkl")
}

// edmNetworks are conditional networks of EDM and one without labels.
func edmNetworks(t *testing.T) (model, worse, null string) {
	uncond := &models.EDM{ImgResolution: 8, ImgChannels: 3, ModelChannels: 32, ChannelMult: []int{1, 2}, NumBlocks: 1, AttnResolutions: []int{4}}
	return "{family: edm, checkpoint: " + referenceCase(t, "edm-adm-tiny/model.pkl") + "}", "{family: edm, checkpoint: " + referenceCase(t, "sample-edm-churn/model.pkl") + "}",
		randomModel(t, uncond, "family: edm, img_resolution: 8, img_channels: 3, model_channels: 32, channel_mult: [1, 2], num_blocks: 1, attn_resolutions: [4]")
}

const fashionClassifier = "{family: classifier, checkpoint: PRETRAINED/classifier.pt, image_size: 32, classifier_attention_resolutions: 8, classifier_depth: 1, " +
	"classifier_width: 32, channel_mult: '1,2,2', num_head_channels: 16, num_classes: 10}"

// worse writes a checkpoint whose weights are all a little smaller, or for a
// folder a copy of it whose U-Net has such weights, and returns its path.
func worse(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(path), ".pt"))
	file := to + ".safetensors"
	if filepath.Ext(path) == "" {
		if err := os.CopyFS(to, os.DirFS(path)); err != nil {
			t.Fatal(err)
		}
		path, file = filepath.Join(path, "unet/diffusion_pytorch_model.safetensors"), filepath.Join(to, "unet/diffusion_pytorch_model.safetensors")
	} else {
		to = file
	}
	f, err := checkpoint.Open(path)
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
	if err := checkpoint.WriteSafetensors(file, smaller, nil); err != nil {
		t.Fatal(err)
	}
	return to
}

// options are those that a guidance needs on a family; with own set, with a network
// of its own. ok is false where there is none for it.
func (f *guided) options(t *testing.T, name string, own bool, model string) (options string, ok bool) {
	given := map[string]string{
		"sag":  "layer: " + f.layer + ", blur_sigma: 1, blur_kernel: 5",
		"tcfg": "space: '" + f.space + "'",
		"pag":  "layers: [" + f.layer + "]", "seg": "layers: [" + f.layer + "]", "slg": "layers: [" + f.block + "]",
	}[name]
	if !own {
		return given, true
	}
	if name == "classifier" {
		return "model: " + fashionClassifier, true
	}
	if given != "" {
		given += ", "
	}
	other := f.null
	switch {
	case f.network != nil:
		_, worse, null := f.network(t)
		other = null
		if name == "autoguidance" {
			other = worse
		}
		return given + "model: " + other, other != ""
	case name == "autoguidance":
		other = worse(t, filepath.Join(pretrained(t), f.file))
	case other == "":
		return "", false
	default:
		other = "PRETRAINED/" + other
		model = strings.Replace(model, "class_cond: true", "class_cond: false", 1)
	}
	return given + "model: " + strings.Replace(model, "PRETRAINED/"+f.file, other, 1), true
}

func pretrained(t *testing.T) string {
	path, err := filepath.Abs("../models/pretrained")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// model is the family's model block.
func (f *guided) model(t *testing.T, e *plan.Experiment) string {
	if f.network != nil {
		model, _, _ := f.network(t)
		return model
	}
	r := e.Rows[slices.IndexFunc(e.Rows, func(r *plan.Row) bool { return r.Label == f.label })]
	m := strings.ReplaceAll(r.ModelBlock.String(), "../models/pretrained", "PRETRAINED")
	if f.flags != "" {
		m = strings.Replace(strings.Replace(m, "class_cond: false", f.flags, 1), "adm-uncond.pt", f.file, 1)
	}
	return m
}

// The table of docs/guidance.md is what the program says: every guidance on every
// family changes the images, with a network of its own or without, or the plan says
// why it cannot be. With -update it is written anew.
func TestGuidancesOfFamilies(t *testing.T) {
	families, err := plan.Load("../configs/families-fashion.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	load := func(name string, f *guided, rows ...string) string {
		sampler := f.sampler
		if sampler == "" {
			sampler = "{ddim: {steps: 2}}"
		}
		path := filepath.Join(dir, name+".yaml")
		text := "{name: " + name + ", samples: 1, metrics: [], sampler: " + sampler + ", rows: [" + strings.Join(rows, ", ") + "]}"
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "PRETRAINED", pretrained(t))), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) error {
		root := rootCommand(&globals{})
		root.SetArgs(append(args, "--results", filepath.Join(dir, "results")))
		root.SetOut(io.Discard)
		return root.Execute()
	}
	cells := map[string][]string{} // by guidance
	for i := range guidedFamilies {
		f := &guidedFamilies[i]
		model := f.model(t, families)
		row := func(label, guidance string) string {
			prompts := ""
			if f.label == "SD" {
				prompts = "prompts: [a photo of a bag, a photo of a coat], "
			}
			return fmt.Sprintf("{label: %s, %smodel: %s, guidance: %s}", label, prompts, model, guidance)
		}
		rows := []string{row("unguided", "{}")}
		names := plan.GuidanceRegistry.Names()
		slices.SortStableFunc(names, func(a, b string) int { // those that share a network together
			first, _ := f.options(t, a, false, "")
			second, _ := f.options(t, b, false, "")
			return strings.Index(first, "layer") - strings.Index(second, "layer")
		})
		var guided []string
		for _, name := range names {
			cell, err := "–", error(nil)
			for _, own := range []bool{false, true} {
				options, ok := f.options(t, name, own, model)
				if !ok {
					continue
				}
				one := row(name, fmt.Sprintf("{%s: {%s}}", name, options))
				if err = run("plan", load("tried", f, one)); err == nil {
					cell = map[bool]string{false: "●", true: "◐"}[own]
					rows, guided = append(rows, one), append(guided, name)
					break
				}
			}
			if err != nil && !explains(err, name) {
				t.Errorf("%s on %s: %v", name, f.column, err)
			}
			cells[name] = append(cells[name], cell)
		}
		experiment := fmt.Sprint("family", i)
		if err := run("sample", load(experiment, f, rows...)); err != nil {
			t.Errorf("%s: %v", f.column, err)
			continue
		}
		folder := filepath.Join(dir, "results", experiment)
		plain := drawnPixels(t, folder, "unguided")
		for _, name := range guided {
			if bytes.Equal(drawnPixels(t, folder, name), plain) {
				t.Errorf("%s on %s changes nothing", name, f.column)
			}
		}
	}
	compareTable(t, cells)
}

// explains tells whether an error says why a guidance is nothing for a family.
func explains(err error, name string) bool {
	return strings.Contains(err.Error(), name) && slices.ContainsFunc([]string{
		"takes no condition", "name an unconditional network", "expected the same", "the time itself", "takes a model block", "is missing",
	}, func(why string) bool { return strings.Contains(err.Error(), why) })
}

// compareTable holds the table of docs/guidance.md against the cells of all families,
// by guidance.
func compareTable(t *testing.T, cells map[string][]string) {
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
	for _, name := range slices.Sorted(maps.Keys(cells)) {
		table += "| " + name + " | " + strings.Join(cells[name], " | ") + " |\n"
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
