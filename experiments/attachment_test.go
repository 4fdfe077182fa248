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
	"sagbench/experiments/run"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/families"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
	"sagbench/sampling/tensor"
)

// A slope is a classifier whose gradient is the same everywhere, (y + 1) times
// the checkpoint's number.
type slope struct {
	Sign    float64 `yaml:"sign"`
	classes int
	step    float32
}

func (c *slope) Open(path string, _ models.Options) (models.Model, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	step, err := f.Tensors["step"].Float32()
	if err != nil {
		return nil, err
	}
	slopes.opened++
	return &slope{c.Sign, len(step), step[0]}, nil
}

// slopes counts what became of the networks of slope.
var slopes struct{ opened, closed int }

func (c *slope) Classes() int { return c.classes }

func (c *slope) Close() { slopes.closed++ }

func (c *slope) Gradient(_ context.Context, x tensor.Tensor, _ sampling.Timestep, y []int64) (tensor.Tensor, error) {
	g := x.Like()
	for i, label := range y {
		for j := range g.Row(i) {
			g.Row(i)[j] = float32(c.Sign) * c.step * float32(label+1)
		}
	}
	return g, nil
}

func (c *slope) Forward(context.Context, map[string]ort.Array) (map[string]ort.Array, error) {
	return nil, nil
}

// A climb follows a classifier.
type climb struct {
	Scale float64      `yaml:"scale"`
	Model sampling.Ref `yaml:"model"`

	classifier sampling.Classifier
}

func (g *climb) Network() *sampling.Ref { return &g.Model }

func (g *climb) Attach(_ context.Context, network any) error {
	c, ok := network.(sampling.Classifier)
	if !ok {
		return fmt.Errorf("climb needs a classifier")
	}
	g.classifier = c
	return nil
}

func (g *climb) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if g.Scale == 0 {
		return sampling.Delta{}, nil
	}
	score, err := g.classifier.Gradient(ctx, s.X, s.T, s.Cond().Labels)
	for i := range score.Data {
		score.Data[i] *= float32(g.Scale)
	}
	return sampling.Delta{Score: score}, err
}

// climbExperiment writes an experiment of which a guidance has a network of its
// own, of a family that the program does not know otherwise.
func climbExperiment(t *testing.T) (dir, file string) {
	t.Helper()
	families.Table["fifth"] = func() models.Family { return &fifthFamily{Gain: 1, ScheduleConfig: sampling.DefaultSchedule()} }
	families.Table["slope"] = func() models.Family { return &slope{Sign: 1} }
	guidance.Registry["climb"] = func() sampling.Guidance { return &climb{} }
	t.Cleanup(func() {
		delete(families.Table, "fifth")
		delete(families.Table, "slope")
		delete(guidance.Registry, "climb")
	})
	dir = t.TempDir()
	saveTensor(t, filepath.Join(dir, "model.safetensors"), "mean", make([]float32, 192), 3, 8, 8)
	saveTensor(t, filepath.Join(dir, "slope.safetensors"), "step", []float32{1000, 0, 0}, 3)
	file = filepath.Join(dir, "climb.yaml")
	text := `{name: climb, samples: 5, batch: 2, seed: 1, model: {family: fifth, checkpoint: model.safetensors}, sampler: {ddim: {steps: 4}},
  guidance: {climb: {model: {family: slope, checkpoint: slope.safetensors}}}, metrics: [], sweep: {guidance.climb.scale: [0, 1]}}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func saveTensor(t *testing.T, path, name string, data []float32, shape ...int) {
	t.Helper()
	if err := checkpoint.WriteSafetensors(path, checkpoint.StateDict{name: checkpoint.FromFloat32(data, shape...)}, nil); err != nil {
		t.Fatal(err)
	}
}

// The generator knows no classes: its images have those of the classifier, and
// follow its slope. In DDIM's last step, x_0 = x̂0 + (1−ᾱ)/√ᾱ g with 1−ᾱ = 1e-4.
func TestAttachedNetwork(t *testing.T) {
	dir, file := climbExperiment(t)
	results := filepath.Join(dir, "results")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand(&globals{})
		root.SetArgs(append(args, "--results", results))
		root.SetOut(&out)
		err := root.Execute()
		return out.String(), err
	}
	plan, err := run("plan", file, "--trial")
	if err != nil || !strings.Contains(plan, "1 pass in 1 call  ") || !strings.Contains(plan, "1 pass in 1 call + 1 of climb  ") || !strings.Contains(plan, "20 passes through the networks of guidances") {
		t.Errorf("plan: %v\n%s", err, plan)
	}
	slopes.opened, slopes.closed = 0, 0
	if _, err := run("run", file); err != nil {
		t.Fatal(err)
	}
	if slopes.opened != 1 || slopes.closed != 1 {
		t.Errorf("the two rows opened the guidance's network %d times and closed it %d times, want once", slopes.opened, slopes.closed)
	}
	labels := drawnLabels(t, filepath.Join(results, "climb", "scale=1-*", "samples", "*.npz"))
	pixels := drawnPixels(t, filepath.Join(results, "climb"), "scale=1")
	for i, label := range labels {
		if label != sampling.Label(1, i, 3) {
			t.Errorf("image %d has label %d", i, label)
		}
		want := 100 * 1e-4 * 1000 * float64(label+1)
		if got := float64(pixels[192*i]); got < want-1 || got > want+0.1 {
			t.Errorf("image %d of class %d has pixels of %g, want %g", i, label, got, want)
		}
	}
	config, err := os.ReadFile(filepath.Join(globOne(t, filepath.Join(results, "climb", "scale=1-*")), "run.yaml"))
	if want := "    model:\n      checkpoint: slope.safetensors\n      family: slope\n      sign: 1\n"; err != nil || !strings.Contains(string(config), want) {
		t.Errorf("run.yaml has no resolved block of the guidance's network: %v\n%s", err, config)
	}
	if _, err := run("plan", file, "guidance.climb.model.checkpoint=nowhere.pt"); err == nil || strings.Count(err.Error(), "nowhere.pt: there is no such file") != 1 || !strings.Contains(err.Error(), "needed by: scale=0; scale=1") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := run("run", file, "guidance.climb.model.family=fifth", "guidance.climb.model.checkpoint="+filepath.Join(dir, "model.safetensors")); err == nil || !strings.Contains(err.Error(), "climb needs a classifier") {
		t.Errorf("a network that the guidance cannot use: %v", err)
	}
	if _, err := run("plan", file, "guidance.climb.model.signs=2"); err == nil || !strings.Contains(err.Error(), `unknown key "signs"`) {
		t.Errorf("an unknown flag: %v", err)
	}
}

// What a guidance's network computes is part of the run id; where it lies is not.
func TestAttachedIdentity(t *testing.T) {
	_, file := climbExperiment(t)
	id := func(contents []string, overrides ...string) string {
		t.Helper()
		e, err := plan.Load(file, overrides)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Rows[1].RunID(contents...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	own := id([]string{"a", "b"})
	if got := id([]string{"a", "b"}, "guidance.climb.model.checkpoint=other.pt", "guidance.climb.model.sign=1.0"); got != own {
		t.Error("the path of the checkpoint changes the id")
	}
	others := []string{own, id([]string{"a", "c"}), id([]string{"b", "b"}), id([]string{"a", "b"}, "guidance.climb.model.sign=2")}
	if slices.Sort(others); len(slices.Compact(others)) != 4 {
		t.Errorf("ids %v, want four", others)
	}
}

// An image has one label, whatever network asks for it.
func TestAttachedClasses(t *testing.T) {
	_, file := climbExperiment(t)
	e, err := plan.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	generator := &labelled{&fifthModel{mean: tensor.New(3, 8, 8)}, 0}
	for _, c := range []struct{ own, attached, want int }{{0, 3, 3}, {3, 3, 3}, {4, 0, 4}, {4, 3, -1}} {
		generator.classes = c.own
		n, err := run.Assemble(t.Context(), e.Rows[1], []models.Model{generator, &slope{classes: c.attached}})
		if (c.want < 0) != (err != nil) || err == nil && n.Classes() != c.want {
			t.Errorf("%+v: %+v, %v", c, n, err)
		}
	}
}

type labelled struct {
	*fifthModel
	classes int
}

func (m *labelled) Classes() int { return m.classes }

func globOne(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// drawnLabels are the labels in the one file of the pattern.
func drawnLabels(t *testing.T, pattern string) []int64 {
	t.Helper()
	f, err := npz.Open(globOne(t, pattern))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := f.Array("arr_1")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	labels := make([]int64, a.Rows())
	if _, err := npz.ReadRows(a, labels); err != nil {
		t.Fatal(err)
	}
	return labels
}
