package plan

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// embeddedFamilies are the labels of configs/families-fashion.yaml.
var embeddedFamilies = []string{"ADM", "IDDPM", "DiT", "SD"}

// The experiments on the embedded models have a row for each family and value,
// and nothing but the swept path differs within a family.
func TestFamilyExperiments(t *testing.T) {
	for _, c := range []struct{ name, swept, values string }{
		{"families", "s", "0 0.5"},
		{"ablation-scale", "s", "0 0.1 0.3 0.5 0.8"},
		{"ablation-blur", "blur_sigma", "0.5 1 1.5 3 5"},
		{"ablation-threshold", "mask_threshold", "0 0.5 1 1.5 2"},
		{"ablation-mask", "mask", "none high_frequency random square self_attention"},
	} {
		e, err := Load(filepath.Join(tiny.Root(), "configs", c.name+".yaml"), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		var got, want []string
		for _, r := range e.Rows {
			got = append(got, r.Title())
			if len(r.Swept) != 1 || len(r.Metrics) != 5 || len(r.Taps) > 1 || r.Samples <= 256 {
				t.Errorf("%s: %s: %v, %d metrics of %d images, %d tapped layers", c.name, r.Title(), r.Swept, len(r.Metrics), r.Samples, len(r.Taps))
			}
		}
		for _, family := range embeddedFamilies {
			for _, value := range strings.Fields(c.values) {
				want = append(want, fmt.Sprintf("%s %s=%s", family, c.swept, value))
			}
		}
		if e.Name != c.name || !slices.Equal(got, want) {
			t.Errorf("%s: rows %q, want %q", e.Name, got, want)
		}
	}
}

// configs/guidances.yaml compares every guidance but the classifier's, which has
// a table of its own, with its network alone.
func TestGuidancesExperiment(t *testing.T) {
	e, err := Load(filepath.Join(tiny.Root(), "configs/guidances.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	baselines, compared := 0, []string{"classifier"}
	for _, r := range e.Rows {
		if len(r.Guidances) == 0 {
			baselines++
			continue
		}
		if name := r.Guidances[0].Name; len(r.Guidances) == 1 && !slices.Contains(compared, name) {
			compared = append(compared, name)
		}
	}
	if slices.Sort(compared); baselines != 2 || !slices.Equal(compared, GuidanceRegistry.Names()) {
		t.Errorf("%d baselines, and rows of %v; want 2 and %v", baselines, compared, GuidanceRegistry.Names())
	}
}

// configs/sdxl-coco.yaml is MLPerf's reference for SDXL, with guidances beside it.
func TestSDXLExperiment(t *testing.T) {
	references := t.TempDir()
	t.Setenv("MODELS", "/m")
	t.Setenv("REFERENCES", references)
	path := filepath.Join(tiny.Root(), "configs/sdxl-coco.yaml")
	_, err := Load(path, nil)
	if got := fmt.Sprint(err); !strings.Contains(got, "coco2014-captions.txt: no such file or directory; published: mlcommons/inference on GitHub") {
		t.Error(got)
	}
	tiny.Write(t, filepath.Join(references, "coco2014-captions.txt"), "a city at night\na clock\n")
	e, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"SDXL s=0 [cfg sag] 23.48", "SDXL s=0.25 [cfg sag] 0", "SDXL s=0.5 [cfg sag] 0", "SDXL s=0.75 [cfg sag] 0", "SDXL, PAG [cfg pag] 0", "SDXL, SEG [cfg seg] 0"} {
		r := e.Rows[i]
		var names []string
		for _, g := range r.Guidances {
			names = append(names, g.Name)
		}
		if got := fmt.Sprint(r.Title(), " ", names, " ", r.Published["fid"]); got != want || r.Model.Family != "sdxl" || len(r.Prompts) != 2 || r.NegativePrompt == "" || r.Sampler.Name != "euler" {
			t.Errorf("row %d: %s of %s by %s, want %s", i, got, r.Model.Family, r.Sampler.Name, want)
		}
		for _, p := range r.Perturbations {
			if layers := p.Paths(); len(layers) != 10 || layers[9] != "mid_block.attentions.0.transformer_blocks.9.attn1" {
				t.Errorf("%s: layers %v", r.Title(), layers)
			}
		}
	}
	if problems := fmt.Sprint(e.CheckInputs(t.Context())); !strings.Contains(problems, "stabilityai/stable-diffusion-xl-base-1.0 on Hugging Face") {
		t.Error(problems)
	}
}
