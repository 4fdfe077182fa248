package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/families"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A fifthFamily is all that another family takes: its flags, and Open. Its
// network knows one image, the checkpoint's, which it predicts whatever x_t is.
type fifthFamily struct {
	Gain                    float64 `yaml:"gain" doc:"what the image is multiplied by"`
	sampling.ScheduleConfig `yaml:",inline"`
}

func (c *fifthFamily) Open(path string, opt models.Options) (models.Model, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mean, err := f.Tensors["mean"].Float32()
	if err != nil {
		return nil, err
	}
	m := &fifthModel{process: models.Process{Schedule: c.ScheduleConfig, Predicts: sampling.XStart, ClipDenoised: true}, mean: tensor.New(3, 8, 8), tapped: len(opt.Taps) > 0}
	for i, v := range mean {
		m.mean.Data[i] = float32(c.Gain) * v
	}
	return m, nil
}

type fifthModel struct {
	process models.Process
	mean    tensor.Tensor
	tapped  bool
}

func (m *fifthModel) Process() models.Process { return m.process }

func (m *fifthModel) SampleShape() []int { return m.mean.Shape }

func (m *fifthModel) Classes() int { return 0 }

func (m *fifthModel) Close() {}

func (m *fifthModel) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	p := sampling.Prediction{Eps: x.Like()}
	for i := range x.Rows() {
		copy(p.Eps.Row(i), m.mean.Data)
	}
	if m.tapped {
		p.Attn = tensor.New(x.Rows(), 16)
	}
	return p, nil
}

func (m *fifthModel) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	p, err := m.Denoise(ctx, in["x"].Tensor(), sampling.Timestep{}, sampling.Cond{})
	return map[string]ort.Array{"model": ort.Floats(p.Eps)}, err
}

func (m *fifthModel) Pixels(_ context.Context, x tensor.Tensor) (models.Images, error) {
	im := models.Images{N: x.Rows(), Height: 8, Width: 8}
	for i := range x.Rows() {
		for p := range 64 {
			for c := range 3 {
				im.Pixels = append(im.Pixels, uint8(x.Row(i)[64*c+p]*100))
			}
		}
	}
	return im, nil
}

// TestFifthFamily adds a row to the table of families, and nothing else: then it
// is planned, drawn, guided, checked and documented.
func TestFifthFamily(t *testing.T) {
	families.Table["fifth"] = func() models.Family {
		return &fifthFamily{Gain: 1, ScheduleConfig: sampling.DefaultSchedule()}
	}
	t.Cleanup(func() { delete(families.Table, "fifth") })
	dir := t.TempDir()
	mean := make([]float32, 3*64)
	for i := range mean {
		mean[i] = float32(i%64) / 128
	}
	weights := checkpoint.StateDict{"mean": checkpoint.FromFloat32(mean, 3, 8, 8)}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	save := func(name string, sd checkpoint.StateDict) {
		if err := checkpoint.WriteSafetensors(filepath.Join(dir, name), sd, nil); err != nil {
			t.Fatal(err)
		}
	}
	save("model.safetensors", weights)
	experiment := write("fifth.yaml", `{name: fifth, samples: 3, batch: 2, model: {family: fifth, checkpoint: model.safetensors},
  sampler: {ddim: {steps: 5}}, guidance: {sag: {layer: middle, blur_sigma: 1, blur_kernel: 3}}, metrics: [],
  sweep: {model.gain: [1, 1.5], guidance.sag.scale: [0, 0.5]}}`)
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		root := rootCommand(&globals{})
		root.SetArgs(append(args, "--results", filepath.Join(dir, "results")))
		root.SetOut(&out)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := run("plan", experiment); !strings.Contains(got, "12 images in 4 rows: 90 passes through the network") {
		t.Errorf("plan: %s", got)
	}
	run("run", experiment)
	for row, gain := range map[string]float32{"gain=1 s=0": 1, "gain=1.5 s=0.5": 1.5} {
		pixels := drawnPixels(t, filepath.Join(dir, "results", "fifth"), row)
		for i, got := range pixels {
			want := gain * mean[i/3%64] * 100
			if d := float32(got) - want; d > 0.01 || d < -1.01 { // truncated
				t.Fatalf("%s: pixel %d is %d, want %g", row, i, got, want)
			}
		}
	}

	save("io.safetensors", checkpoint.StateDict{"in.x": checkpoint.FromFloat32(make([]float32, 192), 1, 3, 8, 8), "out.model": checkpoint.FromFloat32(mean, 1, 3, 8, 8)})
	write("case.yaml", "{kind: forward, source: here, tolerance: {relative: 0}, model: {family: fifth, checkpoint: model.safetensors}}")
	if got := run("check", dir); !strings.Contains(got, "PASS") {
		t.Errorf("check: %s", got)
	}
	if got := run("docs"); !strings.Contains(got, "model, family: fifth") || !strings.Contains(got, "what the image is multiplied by") {
		t.Error("the family is not in the documentation")
	}
}

// drawnPixels are the images of the row whose folder's name speaks of all words.
func drawnPixels(t *testing.T, folder, words string) []uint8 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*", "samples", "samples_*.npz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		name := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if slices.ContainsFunc(strings.Fields(words), func(w string) bool { return !strings.Contains(name+"-", w+"-") }) {
			continue
		}
		f, err := npz.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		a, err := f.Array("arr_0")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		pixels := make([]uint8, a.Rows()*a.RowLen())
		if _, err := npz.ReadRows(a, pixels); err != nil {
			t.Fatal(err)
		}
		return pixels
	}
	t.Fatalf("%s holds no row %s: %v", folder, words, files)
	return nil
}

const ditExperiment = `{name: dit, samples: 5, seed: 1, batch: 3, metrics: [],
  model: {family: dit, checkpoint: MODELS/dit.pt, input_size: 16, patch_size: 2, hidden_size: 128, depth: 6, num_heads: 4,
    num_classes: 10, vae: VAE, vae_scaling_factor: 1.049873},
  sampler: {ddpm: {steps: 3}},
  guidance: {cfg: {scale: 1, channels: 3}, sag: {scale: 0, layer: blocks.3.attn, blur_sigma: 1, blur_kernel: 5}},
  sweep: {guidance.cfg.scale: [1, 3], guidance.sag.scale: [0, 0.5]}}`

// TestDiT draws with the embedded DiT: guidances that share calls, whatever the
// batch, and run ids that know the autoencoder by its content.
func TestDiT(t *testing.T) {
	pretrained, err := filepath.Abs("../models/pretrained")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "dit.yaml")
	write := func(vae string) {
		text := strings.NewReplacer("MODELS", pretrained, "VAE", vae).Replace(ditExperiment)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(pretrained, "sd/vae"))
	if got := succeed(t, "plan", file).stdout.String(); !strings.Contains(got, "20 images in 4 rows: 120 passes") {
		t.Errorf("plan: %s", got)
	}
	batches := map[string]string{}
	for _, batch := range []string{"3", "1"} {
		results := filepath.Join(dir, "batch"+batch)
		succeed(t, "run", file, "batch="+batch, "--results", results)
		for name, content := range tiny.Tree(t, results) {
			if !strings.HasSuffix(name, ".npz") {
				continue
			}
			if other, ok := batches[name]; ok && other != content {
				t.Errorf("%s depends on the batch", name)
			}
			batches[name] = content
		}
	}
	if len(batches) != 4 {
		t.Errorf("%d files of images, want 4 with the same names: %v", len(batches), batches)
	}
	plain, guided := drawnPixels(t, filepath.Join(dir, "batch1", "dit"), "cfg.scale=1 sag.scale=0"), drawnPixels(t, filepath.Join(dir, "batch1", "dit"), "cfg.scale=3 sag.scale=0.5")
	if len(plain) != 5*32*32*3 || bytes.Equal(plain, guided) {
		t.Errorf("%d bytes of pixels, and guidance changes some: %v", len(plain), !bytes.Equal(plain, guided))
	}

	ids := func() string {
		e, err := plan.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		runs, err := e.Identify(filepath.Join(dir, "results"), store.Hashes{})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(runs[0].ID, runs[1].ID)
	}
	original := ids()
	vae := filepath.Join(dir, "elsewhere")
	if err := os.CopyFS(vae, os.DirFS(filepath.Join(pretrained, "sd/vae"))); err != nil {
		t.Fatal(err)
	}
	write("{family: vae, checkpoint: elsewhere}")
	if got := ids(); got != original {
		t.Errorf("the path of the autoencoder changes the run ids: %s, want %s", got, original)
	}
	path := filepath.Join(vae, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got == original {
		t.Error("another autoencoder has the same run ids")
	}
	write("nowhere")
	if got := fail(t, "run", file); !strings.Contains(got, "nowhere  checkpoint") || !strings.Contains(got, "there is no such file") {
		t.Errorf("a missing autoencoder: %s", got)
	}
	write(`"${NOWHERE}/vae"`)
	if got := fail(t, "run", file); !strings.Contains(got, "NOWHERE is not set") {
		t.Errorf("an unset variable: %s", got)
	}
}
