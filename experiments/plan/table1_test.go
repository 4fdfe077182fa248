package plan

import (
	"maps"
	"path/filepath"
	"testing"

	"sagbench/configs"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// The rows of configs/table1.yaml against the tables of the authors' README
// (KU-CVLAB/Self-Attention-Guidance) and the files of guided-diffusion's.
func TestTable1(t *testing.T) {
	t.Setenv("MODELS", "/m")
	t.Setenv("REFERENCES", "/r")
	type values = map[string]float64
	want := []struct {
		title, checkpoint, reference string
		scale                        float64
		conditional                  bool
		published                    values
	}{
		{"ImageNet 256×256 (uncond.) s=0", "256x256_diffusion_uncond.pt", "VIRTUAL_imagenet256_labeled.npz", 0, false, values{"fid": 26.21, "sfid": 6.35, "is": 39.70, "precision": .61, "recall": .63}},
		{"ImageNet 256×256 (uncond.) s=0.5", "256x256_diffusion_uncond.pt", "VIRTUAL_imagenet256_labeled.npz", 0.5, false, values{"fid": 20.31, "sfid": 5.09, "is": 45.30, "precision": .66, "recall": .61}},
		{"ImageNet 256×256 (uncond.) s=0.8", "256x256_diffusion_uncond.pt", "VIRTUAL_imagenet256_labeled.npz", 0.8, false, values{"fid": 20.08, "sfid": 5.77, "is": 45.56, "precision": .68, "recall": .59}},
		{"ImageNet 256×256 (cond.) s=0", "256x256_diffusion.pt", "VIRTUAL_imagenet256_labeled.npz", 0, true, values{"fid": 10.94, "sfid": 6.02, "is": 100.98, "precision": .69, "recall": .63}},
		{"ImageNet 256×256 (cond.) s=0.2", "256x256_diffusion.pt", "VIRTUAL_imagenet256_labeled.npz", 0.2, true, values{"fid": 9.41, "sfid": 5.28, "is": 104.79, "precision": .70, "recall": .62}},
		{"LSUN Cat 256×256 s=0", "lsun_cat.pt", "VIRTUAL_lsun_cat256.npz", 0, false, values{"fid": 7.03, "sfid": 8.24, "precision": .60, "recall": .53}},
		{"LSUN Cat 256×256 s=0.05", "lsun_cat.pt", "VIRTUAL_lsun_cat256.npz", 0.05, false, values{"fid": 6.87, "sfid": 8.21, "precision": .60, "recall": .50}},
		{"LSUN Horse 256×256 s=0", "lsun_horse.pt", "VIRTUAL_lsun_horse256.npz", 0, false, values{"fid": 3.45, "sfid": 7.55, "precision": .68, "recall": .56}},
		{"LSUN Horse 256×256 s=0.01", "lsun_horse.pt", "VIRTUAL_lsun_horse256.npz", 0.01, false, values{"fid": 3.43, "sfid": 7.51, "precision": .68, "recall": .55}},
	}
	rows := table1(t).Rows
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d", len(rows), len(want))
	}
	for i, w := range want {
		r := rows[i]
		if r.Title() != w.title || r.Model.Checkpoint.Path != filepath.Join("/m", w.checkpoint) || r.Reference.Path != filepath.Join("/r", w.reference) || r.FeatureNetworks["inception"].Weights.Path != "/m/pt_inception-2015-12-05-6726825d.pth" {
			t.Errorf("row %d: %q %+v %+v %+v", i, r.Title(), r.Model.Checkpoint, r.Reference, r.FeatureNetworks)
		}
		for _, path := range []string{r.Model.Checkpoint.Path, r.Reference.Path, r.FeatureNetworks["inception"].Weights.Path} {
			if r.sourceOf(path).Page == "" {
				t.Errorf("%s: nobody says where it is published", path)
			}
		}
		if !maps.Equal(r.Published, w.published) {
			t.Errorf("%s: %v, want %v", w.title, r.Published, w.published)
		}
		if r.Samples != 50_000 || *r.Sampler.Value.(*sampling.DDPM) != (sampling.DDPM{Steps: 250}) {
			t.Errorf("%s: %d images, %+v", w.title, r.Samples, r.Sampler.Value)
		}
		sag := guidance.SAG{Scale: w.scale, BlurSigma: 9, BlurKernel: 31, MaskThreshold: 1, Layer: "output_blocks.2.1", Heads: 4}
		if len(r.Guidances) != 1 || *r.Guidances[0].Value.(*guidance.SAG) != sag {
			t.Errorf("%s: %+v", w.title, r.Guidances)
		}
		var names []string
		for _, m := range r.Metrics {
			names = append(names, m.Name)
		}
		if _, scored := w.published["is"]; len(names) != map[bool]int{true: 5, false: 4}[scored] {
			t.Errorf("%s: %v", w.title, names)
		}
		adm := flags(t, r)
		if adm["class_cond"] != map[bool]string{true: "true", false: "false"}[w.conditional] || adm["image_size"] != "256" || adm["num_head_channels"] != "64" || adm["timestep_respacing"] != "" {
			t.Errorf("%s: %v", w.title, adm)
		}
	}
}

func flags(t *testing.T, r *Row) map[string]string {
	t.Helper()
	data, err := configs.Canonical(r.Model.Flags)
	if err != nil {
		t.Fatal(err)
	}
	b, err := configs.Parse("flags", data)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range b.Keys() {
		v, _ := b.At(name)
		out[name], _ = v.Text()
	}
	return out
}

// The miniature has the rows of the paper's ImageNet models, and one with s < 0. Each
// is compared with s = 0, which has to come first.
func TestTable1Fashion(t *testing.T) {
	var titles []string
	for _, r := range fashion(t).Rows {
		titles = append(titles, r.Title())
		if len(r.Published) > 0 {
			t.Errorf("%s: the paper has no values for it", r.Title())
		}
	}
	want := []string{"Fashion-MNIST (uncond.) s=0", "Fashion-MNIST (uncond.) s=-0.3", "Fashion-MNIST (uncond.) s=0.5", "Fashion-MNIST (uncond.) s=0.8", "Fashion-MNIST (cond.) s=0", "Fashion-MNIST (cond.) s=0.2"}
	if len(titles) != len(want) {
		t.Fatal(titles)
	}
	for i := range want {
		if titles[i] != want[i] {
			t.Errorf("%q, want %q", titles[i], want[i])
		}
	}
}
