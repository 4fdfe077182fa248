package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/features"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// What a new sampler and a new feature network cost: a file each, which stand
// here, and a row in a table. What a metric costs is in eval/needs_test.go, a
// family in models/families/toy_test.go, a guidance and its network in
// attachment_test.go.

// command runs a command line in this process.
func command(args ...string) (string, error) {
	var out bytes.Buffer
	root := rootCommand(&globals{})
	root.SetArgs(append(args, "--threads", "1"))
	root.SetOut(&out)
	err := root.Execute()
	return out.String(), err
}

// A leap is the shortest sampler: x_0 is what the network makes of x_T.
type leap struct {
	Steps int `yaml:"steps" doc:"denoising steps, of which the first is made"`
}

// Schedule implements sampling.Sampler.
func (s *leap) Schedule(c sampling.ScheduleConfig) (*sampling.Schedule, error) {
	return (&sampling.DDIM{Steps: s.Steps}).Schedule(c)
}

// Sample implements sampling.Sampler.
func (s *leap) Sample(ctx context.Context, p *sampling.Predictor, xT tensor.Tensor, _ sampling.Noise) (tensor.Tensor, error) {
	last := p.Schedule.Len() - 1
	guided, _, err := p.Predict(ctx, xT, p.Schedule.Timestep(last))
	if err != nil {
		return xT, err
	}
	x, eps, c := xT.Like(), xT.Like(), p.Schedule.At(last)
	for n := range x.Rows() {
		c.Split(p.Predicts, xT.Row(n), guided.Eps.Row(n), x.Row(n), eps.Row(n))
	}
	if p.Trace != nil {
		p.Trace("x", p.Schedule.Timestep(last), x)
	}
	return x, nil
}

func TestAddedSampler(t *testing.T) {
	sampling.Samplers["leap"] = func() sampling.Sampler { return &leap{} }
	t.Cleanup(func() { delete(sampling.Samplers, "leap") })
	file, results := tiny.Experiment(t, t.TempDir(), "{ddpm: {steps: 2}}", "{leap: {steps: 4}}", "samples: 8", "samples: 2", "[fid, sfid, is, precision, recall]", "[fid]"), t.TempDir()
	if out, err := command("plan", file, "--results", results); err != nil || !strings.Contains(out, "2 passes in 2 calls") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := command("sample", file, "--results", results); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if found, _ := filepath.Glob(filepath.Join(results, "tiny", "*", "samples", "samples_2x32x32x3.npz")); len(found) != 2 {
		t.Errorf("%d rows have images, want 2", len(found))
	}
	var docs bytes.Buffer
	if err := plan.WriteDocs(&docs); err != nil || !strings.Contains(docs.String(), "## sampler: leap\n") {
		t.Errorf("the sampler is not in the docs: %v", err)
	}
}

// A texture is a metric of an output that no other metric looks at: the distance
// of the means of the Inception's first features.
type texture struct{}

func (*texture) Column() eval.Column {
	return eval.Column{Name: "texture", Title: "texture", Direction: eval.Lower, Decimals: 3}
}
func (*texture) MinImages() int { return 1 }
func (*texture) Needs() eval.Needs {
	early := eval.Parts{Outputs: features.Features64}
	return eval.Needs{Reference: early, Generated: early}
}

func (m *texture) Score(_ context.Context, ref, gen *eval.Features) ([]eval.Score, error) {
	means := func(f *eval.Features) float64 {
		sum := 0.0
		for _, v := range f.Outputs[features.Features64] {
			sum += float64(v)
		}
		return sum / float64(len(f.Outputs[features.Features64]))
	}
	return []eval.Score{{Column: m.Column(), Value: math.Abs(means(ref) - means(gen))}}, nil
}

func TestAddedMetricOfAnotherOutput(t *testing.T) {
	eval.Metrics["texture"] = func() eval.Metric { return &texture{} }
	t.Cleanup(func() { delete(eval.Metrics, "texture") })
	file, results := tiny.Experiment(t, t.TempDir(), "[fid, sfid, is, precision, recall]", "[texture, fid]", "samples: 8", "samples: 4"), t.TempDir()
	for _, args := range [][]string{{"plan", file, "bootstrap=40"}, {"eval", tiny.Reference(), tiny.Reference(), "--inception", "../models/pretrained/inception.pt", "--metrics", "fid,texture", "--bootstrap", "40"}} { // before anything is computed
		if _, err := command(args...); err == nil || statusOf(err) != statusMisuse || !strings.Contains(err.Error(), "no bootstrap interval of texture") {
			t.Errorf("%v: %v", args, err)
		}
	}
	for range 2 { // the second time from features.npz
		if out, err := command("run", file, "--results", results); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		found, err := store.FindMetrics(results)
		if err != nil || len(found) != 2 {
			t.Fatal(found, err)
		}
		for _, m := range found {
			if s, ok := m.Score("texture"); !ok || s.Value <= 0 || s.Value > 1 {
				t.Errorf("%s: %+v", m.Title(), m.Scores)
			}
			if err := os.Remove(filepath.Join(m.Folder, store.MetricsFile)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := command("plan", file, "network=onnx", "onnx.checkpoint="+file); err == nil {
		t.Error("an .onnx file that is none has the output")
	}
}

// A tint is the smallest feature network: three features, the mean of each
// channel times a factor. It needs no graph.
type tint struct {
	Factor float64 `yaml:"factor" doc:"what the means are multiplied by"`
}

// Open implements models.Family.
func (c *tint) Open(string, models.Options) (models.Model, error) {
	return &tintNet{float32(c.Factor)}, nil
}

// Extractor implements features.Flags.
func (c *tint) Extractor(context.Context, string, models.Options) (features.Extractor, error) {
	return &tintNet{float32(c.Factor)}, nil
}

// Resize implements features.Flags.
func (c *tint) Resize() features.Resize { return features.PIL }

// Features implements features.Flags.
func (c *tint) Features(string) (pool, spatial int) { return 3, 0 }

type tintNet struct{ factor float32 }

func (n *tintNet) Width() int        { return 3 }
func (n *tintNet) Outputs() []string { return []string{features.Pool} }
func (n *tintNet) InputShape() []int { return []int{3, 1, 1} }
func (n *tintNet) Rest()             {}
func (n *tintNet) Close()            {}
func (n *tintNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return n.Run(ctx, in["x"].Tensor())
}

func (n *tintNet) Input(_ features.Resize, images models.Images) (tensor.Tensor, error) {
	x := tensor.New(images.N, 3, 1, 1)
	for i, v := range images.Pixels {
		x.Data[i/(len(images.Pixels)/images.N)*3+i%3] += n.factor * float32(v) / float32(images.Height*images.Width)
	}
	return x, nil
}

func (n *tintNet) Run(_ context.Context, x tensor.Tensor, _ ...string) (map[string]ort.Array, error) {
	return map[string]ort.Array{features.Pool: ort.Floats(tensor.Of(slices.Clone(x.Data), x.Rows(), 3))}, nil
}

func TestAddedFeatureNetwork(t *testing.T) {
	rows := features.Networks
	features.Networks = append(slices.Clone(rows), features.Network{
		Name: "tint", Title: "tints", Doc: "mean colours", Usage: "any file", Size: "1 (tint)",
		Arguments: []features.Argument{{Flag: "factor", Usage: "a factor", Keys: []string{"factor"}}},
		New:       func() features.Flags { return &tint{Factor: 1} },
	})
	t.Cleanup(func() { features.Networks = rows })

	weights, results := filepath.Join(tiny.Root(), "LICENSE"), t.TempDir()
	out, err := command("eval", tiny.Reference(), tiny.Reference(), "--network", "tint", "--tint", weights, "--factor", "2", "--metrics", "fid, precision", "--json", "-")
	if err != nil || !strings.Contains(out, `"factor": 2`) || !strings.Contains(out, `"network": "tint"`) {
		t.Errorf("%v\n%s", err, out)
	}
	file := tiny.Experiment(t, t.TempDir(), "[fid, sfid, is, precision, recall]", "[fid]\nnetwork: tint\ntint: {checkpoint: "+weights+", factor: 3}", "samples: 8", "samples: 4")
	if out, err := command("run", file, "--results", results); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found, err := store.FindMetrics(results)
	if err != nil || len(found) != 2 || found[0].Inputs.Networks["tint"].Name != "LICENSE" || !strings.Contains(string(found[0].Config), `"factor": 3`) || !store.Exists(filepath.Join(found[0].Folder, "features-tint.npz")) {
		t.Errorf("%v, %+v", err, found)
	}
	if _, err := command("plan", file, "metrics=[sfid]"); err == nil || !strings.Contains(err.Error(), "has no spatial features, which sfid needs") {
		t.Errorf("features that the network does not have: %v", err)
	}
	var docs bytes.Buffer
	if err := plan.WriteDocs(&docs); err != nil || !strings.Contains(docs.String(), "## feature network: tint\n") {
		t.Errorf("the network is not in the docs: %v", err)
	}
}
