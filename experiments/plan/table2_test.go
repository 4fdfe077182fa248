package plan

import (
	"maps"
	"path/filepath"
	"reflect"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/families"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// The rows of configs/table2.yaml against the table of the authors' README
// (KU-CVLAB/Self-Attention-Guidance) and its command for ImageNet 128×128.
func TestTable2(t *testing.T) {
	t.Setenv("MODELS", "/m")
	t.Setenv("REFERENCES", "/r")
	e, err := Load(filepath.Join(tiny.Root(), "configs", "table2.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	type values = map[string]float64
	want := []struct {
		title     string
		guidances []string
		published values
	}{
		{"no guidance", nil, values{"fid": 5.91, "sfid": 5.09, "precision": .70, "recall": .65}},
		{"CG", []string{"classifier"}, values{"fid": 2.97, "sfid": 5.09, "precision": .78, "recall": .59}},
		{"SAG", []string{"sag"}, values{"fid": 5.11, "sfid": 4.09, "precision": .72, "recall": .65}},
		{"SAG and CG", []string{"sag", "classifier"}, values{"fid": 2.58, "sfid": 4.35, "precision": .79, "recall": .59}},
	}
	if len(e.Rows) != len(want) {
		t.Fatalf("%d rows, want %d", len(e.Rows), len(want))
	}
	sag := &guidance.SAG{Scale: 0.1, BlurSigma: 3, BlurKernel: 31, MaskThreshold: 1, Layer: "output_blocks.8.1", Heads: 4}
	classifier := families.Table["classifier"]().(*models.Classifier) // with the official defaults
	classifier.ImageSize = 128
	for i, w := range want {
		r := e.Rows[i]
		if r.Title() != w.title || !maps.Equal(r.Published, w.published) || r.Samples != 50_000 || *r.Sampler.Value.(*sampling.DDPM) != (sampling.DDPM{Steps: 250}) {
			t.Errorf("row %d: %q, %v, %d images, %+v", i, r.Title(), r.Published, r.Samples, r.Sampler.Value)
		}
		var names []string
		for _, g := range r.Guidances {
			names = append(names, g.Name)
			if g.Name == "sag" && !reflect.DeepEqual(g.Value, sag) {
				t.Errorf("%s: %+v", w.title, g.Value)
			}
		}
		if !reflect.DeepEqual(names, w.guidances) {
			t.Errorf("%s: guidances %v, want %v", w.title, names, w.guidances)
		}
		paths := []string{r.Model.Checkpoint.Path, r.Reference.Path, r.FeatureNetworks["inception"].Weights.Path}
		for _, a := range r.Attachments {
			paths = append(paths, a.Checkpoint.Path)
			if scale := a.guidance.(*guidance.Classifier).Scale; scale != 0.5 || !reflect.DeepEqual(a.Flags, classifier) || a.Checkpoint.Path != "/m/128x128_classifier.pt" {
				t.Errorf("%s: scale %g, %s, %+v", w.title, scale, a.Checkpoint.Path, a.Flags)
			}
		}
		for _, path := range paths {
			if r.sourceOf(path).Page == "" {
				t.Errorf("%s: nobody says where it is published", path)
			}
		}
		adm := flags(t, r)
		if adm["class_cond"] != "true" || adm["image_size"] != "128" || adm["num_heads"] != "4" || adm["num_head_channels"] != "-1" {
			t.Errorf("%s: %v", w.title, adm)
		}
	}
}

// The miniature has the paper's rows, its classifier is open in the rows that
// have it alone, and each row has an id of its own.
func TestTable2Fashion(t *testing.T) {
	e, err := Load(filepath.Join(tiny.Root(), "configs", "table2-fashion.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, r := range e.Rows {
		costs, err := r.Costs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, r.Title()+": "+costs.String())
	}
	want := []string{"no guidance: 1 pass in 1 call", "CG: 1 pass in 1 call + 1 of classifier",
		"SAG: 2 passes in 2 calls", "SAG and CG: 2 passes in 2 calls + 1 of classifier"}
	if !reflect.DeepEqual(steps, want) {
		t.Errorf("%q, want %q", steps, want)
	}
	if err := e.CheckInputs(t.Context()); err != nil {
		t.Error(err)
	}
}
