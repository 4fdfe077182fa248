package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/models/checkpoint"
)

// A guided is an embedded family as the table of docs/guidance.md names it, and
// what guidances need on it.
type guided struct {
	column string
	label  string // in configs/families-fashion.yaml
	layer  string // of attention
	block  string // that can be skipped
	file   string // of the checkpoint that a worse network is made of
	flags  string // beside those of the label
	null   string // an unconditional checkpoint of the same process
}

var guidedFamilies = []guided{
	{column: "ADM", label: "ADM", layer: "output_blocks.1.1", block: "middle_block.1", file: "adm-uncond.pt"},
	{column: "ADM, class_cond", label: "ADM", layer: "output_blocks.1.1", block: "middle_block.1", file: "adm-cond.pt", flags: "class_cond: true, num_classes: 10", null: "adm-uncond.pt"},
	{column: "IDDPM", label: "IDDPM", layer: "output_blocks.1.1", block: "middle_block.1", file: "iddpm.pt"},
	{column: "DiT", label: "DiT", layer: "blocks.3.attn", block: "blocks.3", file: "dit.pt"},
	{column: "SD", label: "SD", layer: "mid_block.attentions.0.transformer_blocks.0.attn1", block: "mid_block.attentions.0.transformer_blocks.0", file: "sd"},
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

// options are those that a guidance needs on a family; cell is what the table
// says of the two.
func (f *guided) options(t *testing.T, name, cell, model string) string {
	given := map[string]string{
		"sag": "layer: " + f.layer + ", blur_sigma: 1, blur_kernel: 5",
		"pag": "layers: [" + f.layer + "]", "seg": "layers: [" + f.layer + "]", "slg": "layers: [" + f.block + "]",
		"classifier": "model: " + fashionClassifier,
	}[name]
	if cell != "◐" || name == "classifier" {
		return given
	}
	other := f.null
	if name == "autoguidance" {
		other = worse(t, filepath.Join(pretrained(t), f.file))
	} else {
		other = "PRETRAINED/" + other
		model = strings.Replace(model, "class_cond: true", "class_cond: false", 1)
	}
	return "model: " + strings.Replace(model, "PRETRAINED/"+f.file, other, 1)
}

func pretrained(t *testing.T) string {
	path, err := filepath.Abs("../models/pretrained")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// model is the family's model block.
func (f *guided) model(e *plan.Experiment) string {
	r := e.Rows[slices.IndexFunc(e.Rows, func(r *plan.Row) bool { return r.Label == f.label })]
	m := strings.ReplaceAll(r.ModelBlock.String(), "../models/pretrained", "PRETRAINED")
	if f.flags != "" {
		m = strings.Replace(strings.Replace(m, "class_cond: false", f.flags, 1), "adm-uncond.pt", f.file, 1)
	}
	return m
}

// guidanceTable is the table of docs/guidance.md: cells by guidance and column.
func guidanceTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/guidance.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]map[string]string{}
	var columns []string
	for line := range strings.Lines(string(text)) {
		var cells []string
		for _, c := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		switch {
		case cells[0] == "guidance" && columns == nil:
			columns = cells[1:]
		case columns == nil || cells[0] == "---":
		case len(cells) != len(columns)+1:
			return table
		default:
			table[cells[0]] = map[string]string{}
			for i, c := range cells[1:] {
				table[cells[0]][columns[i]] = c
			}
		}
	}
	return table
}

// Every guidance on every embedded model does what docs/guidance.md says: it
// changes the images, or the plan says why it cannot be.
func TestGuidancesOfFamilies(t *testing.T) {
	table := guidanceTable(t)
	if got, want := slices.Sorted(maps.Keys(table)), plan.GuidanceRegistry.Names(); !slices.Equal(got, want) {
		t.Fatalf("docs/guidance.md speaks of %v, the registry holds %v", got, want)
	}
	families, err := plan.Load("../configs/families-fashion.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	load := func(name string, rows ...string) string {
		path := filepath.Join(dir, name+".yaml")
		text := "{name: " + name + ", samples: 1, metrics: [], sampler: {ddim: {steps: 2}}, rows: [" + strings.Join(rows, ", ") + "]}"
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "PRETRAINED", pretrained(t))), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) error {
		root := rootCommand()
		root.SetArgs(append(args, "--results", filepath.Join(dir, "results")))
		root.SetOut(io.Discard)
		return root.Execute()
	}
	for i, f := range guidedFamilies {
		model := f.model(families)
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
			return strings.Index(f.options(t, a, "", ""), "layer") - strings.Index(f.options(t, b, "", ""), "layer")
		})
		for _, name := range names {
			cell := table[name][f.column]
			one := row(name, fmt.Sprintf("{%s: {%s}}", name, f.options(t, name, cell, model)))
			switch cell {
			case "●", "◐":
				rows = append(rows, one)
			case "–":
				err := run("plan", load("refused", one))
				if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), map[bool]string{false: "takes no condition", true: "expected the same"}[name == "classifier"]) {
					t.Errorf("%s on %s: %v", name, f.column, err)
				}
			default:
				t.Errorf("docs/guidance.md: %s on %s: %q", name, f.column, cell)
			}
			if cell == "◐" && name != "autoguidance" && name != "classifier" {
				if err := run("plan", load("lacking", row(name, "{"+name+": {}}"))); err == nil || !strings.Contains(err.Error(), "name an unconditional network") {
					t.Errorf("%s on %s without a model: %v", name, f.column, err)
				}
			}
		}
		experiment := fmt.Sprint("family", i)
		if err := run("sample", load(experiment, rows...)); err != nil {
			t.Errorf("%s: %v", f.column, err)
			continue
		}
		folder := filepath.Join(dir, "results", experiment)
		plain := drawnPixels(t, folder, "unguided")
		for name := range table {
			if table[name][f.column] != "–" && bytes.Equal(drawnPixels(t, folder, name), plain) {
				t.Errorf("%s on %s changes nothing", name, f.column)
			}
		}
	}
}
