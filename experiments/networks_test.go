package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// tinyDINOv2 unpacks the network of a reference case.
func tinyDINOv2(t *testing.T) string {
	t.Helper()
	f, err := os.Open("refcase/testdata/cases/dinov2-registers-tiny/model.pth.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dinov2_tiny.pth")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// noiseImages writes n images of side×side pixels: byte j of image i is the top
// byte of x ← 1664525·x + 1013904223 mod 2³², halved i mod 3 times, plus base.
func noiseImages(t *testing.T, name string, n, side int, seed uint32, base uint8) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	pixels := make([]uint8, n*side*side*3)
	for i := range pixels {
		seed = 1664525*seed + 1013904223
		pixels[i] = uint8(seed>>24)>>(i/(side*side*3)%3) + base
	}
	if err := npz.WriteArray(w, "arr_0", pixels, n, side, side, 3); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return path
}

// evaluated runs the command eval and reads its JSON.
func evaluated(t *testing.T, args ...string) store.Evaluation {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scores.json")
	succeed(t, append([]string{"eval", "--json", path}, args...)...)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e store.Evaluation
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// FD-DINOv2 from images to the number, against facebookresearch/dinov2 b8931f7
// on Pillow 10.4.0's resize and dgm-eval's formula, whose square root is taken
// as a nuclear norm: 0.2465685225 (scipy's sqrtm: 0.2465685083).
func TestFDDINOv2OfImages(t *testing.T) {
	ref := noiseImages(t, "ref.npz", 150, 10, 1, 0)
	gen := noiseImages(t, "gen.npz", 130, 10, 2, 20)
	network := tinyDINOv2(t)
	e := evaluated(t, ref, gen, "--dinov2", network, "--metrics", "fd_dinov2")
	if len(e.Scores) != 1 || math.Abs(e.Scores[0].Value-0.2465685225) > 2e-6 {
		t.Errorf("%+v, want 0.2465685225", e.Scores)
	}
	in := e.Inputs["network"]
	if in.Name != "dinov2_tiny.pth" || len(in.SHA256) != 64 || len(in.Network) == 0 {
		t.Errorf("the network is recorded as %+v", in)
	}
	if string(in.Network["resize"]) != `"pil"` || string(in.Network["input_size"]) != "224" {
		t.Errorf("%s", in.Network)
	}
	all := evaluated(t, ref, gen, "--network", "dinov2", "--dinov2", network, "--metrics", "fd_dinov2, fid: {mean: float64}, precision, kid: {subset_size: 100}")
	if len(all.Scores) != 4 || all.Scores[0].Value != e.Scores[0].Value || all.Scores[1].Value != e.Scores[0].Value || len(all.Inputs) != 3 {
		t.Errorf("all metrics of DINOv2's features: %+v", all.Scores)
	}
}

// A row has metrics of two networks, and each network its own features.
func TestRunOfTwoNetworks(t *testing.T) {
	results, network := t.TempDir(), tinyDINOv2(t)
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#", "[fid, sfid, is, precision, recall]", "[fd_dinov2, fid]\ndinov2: {checkpoint: "+network+"}")
	succeed(t, "run", file, "--results", results, "bootstrap=40")
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	row := rows[0]
	fd, hasFD := row.Score("fd_dinov2")
	fid, hasFID := row.Score("fid")
	if !hasFD || !hasFID || len(row.Scores) != 2 || fd.Interval == nil || fid.Interval == nil {
		t.Fatalf("%+v", row.Scores)
	}
	if row.Inputs.Networks["dinov2"].Name != "dinov2_tiny.pth" || row.Inputs.Networks["inception"].Name != "inception.pt" || !strings.Contains(string(row.Config), `"resize": "pil"`) {
		t.Errorf("%+v\n%s", row.Inputs, row.Config)
	}
	for _, name := range []string{"features.npz", "features-dinov2.npz"} {
		if !store.Exists(filepath.Join(row.Folder, name)) {
			t.Errorf("%s is missing", name)
		}
	}
	samples, err := filepath.Glob(filepath.Join(row.Folder, "samples", "*.npz"))
	if err != nil || len(samples) != 1 {
		t.Fatal(samples, err)
	}
	e := evaluated(t, tiny.Reference(), samples[0], "--dinov2", network, "--inception", "../models/pretrained/inception.pt", "--input-size", "107", "--metrics", "fid, fd_dinov2")
	if e.Inputs["network"].Name != "inception.pt" || e.Inputs["dinov2"].Name != "dinov2_tiny.pth" {
		t.Errorf("inputs %+v", e.Inputs)
	}
	if e.Scores[0].Value != fid.Value || e.Scores[1].Value != fd.Value {
		t.Errorf("eval says %v and %v, run %v and %v", e.Scores[0].Value, e.Scores[1].Value, fid.Value, fd.Value)
	}
	before := tiny.Tree(t, results)
	if p := succeed(t, "run", file, "--results", results, "bootstrap=40"); strings.Contains(p.stderr.String(), ": features") {
		t.Errorf("features were computed again:\n%s", &p.stderr)
	}
	if after := tiny.Tree(t, results); len(after) != len(before) {
		t.Errorf("%d files, %d before", len(after), len(before))
	}
}

// meanNetwork writes a feature network as a user has one: features are the means
// of channels and quarters of an image, logits a product of them.
func meanNetwork(t *testing.T) string {
	t.Helper()
	g, err := onnx.Build(nil, func(m *onnx.Module) {
		x := m.Input("images", checkpoint.F32, onnx.Batch, 3, 8, 8)
		pool := m.Reshape(m.AveragePool(x, onnx.Pool{Kernel: 4, Stride: 4}), onnx.Batch, 12)
		m.Output("pooled", pool)
		weights := make([]float32, 12*4)
		for i := range weights {
			weights[i] = float32(i%5) - 2
		}
		m.Output("classes", m.MatMul(pool, m.Const(weights, 12, 4)))
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mine.onnx")
	if err := os.WriteFile(path, g.Proto, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEvalWithONNXFile(t *testing.T) {
	ref, gen := noiseImages(t, "ref.npz", 150, 10, 1, 0), noiseImages(t, "gen.npz", 130, 10, 2, 20)
	network := meanNetwork(t)
	own := []string{"--network", network, "--range", "unit", "--output", "pool=pooled,logits=classes"}
	e := evaluated(t, append([]string{ref, gen, "--metrics", "fid, is: {splits: 2}, recall, kid: {subset_size: 100}"}, own...)...)
	if len(e.Scores) != 4 || e.Scores[0].Value <= 0 || e.Scores[1].Value < 1 || e.Scores[1].Value > 4 || e.Inputs["network"].Name != "mine.onnx" {
		t.Errorf("%+v, %+v", e.Scores, e.Inputs)
	}
	same := evaluated(t, append([]string{ref, ref, "--metrics", "fid, precision, recall"}, own...)...)
	if same.Scores[0].Value > 1e-9 || same.Scores[1].Value != 1 || same.Scores[2].Value != 1 {
		t.Errorf("a set against itself: %+v", same.Scores)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{`mine.onnx has no spatial features, which sfid needs`, append([]string{"--metrics", "sfid"}, own...)},
		{"range is missing", []string{"--network", network, "--output", "pool=pooled"}},
		{`no output "pool5"; it has pooled [N,12] F32, classes [N,4] F32`, []string{"--network", network, "--output", "pool=pool5", "--range", "unit"}},
		{"expected pool=NAME", []string{"--network", network, "--output", "features=pooled", "--range", "unit"}},
		{"is for --network FILE.onnx", []string{"--inception", network, "--range", "unit"}},
		{`--network is "resnet"`, []string{"--network", "resnet"}},
		{"fd_dinov2: --dinov2 is missing: the weights of the DINOv2 network, published as dinov2_vitl14_pretrain.pth", append([]string{"--metrics", "fid, fd_dinov2"}, own...)},
		{"resize is \"nearest\"", append([]string{"--resize", "nearest"}, own...)},
	} {
		if message := fail(t, append([]string{"eval", ref, gen}, c.args...)...); !strings.Contains(message, c.want) {
			t.Errorf("%v: %s, want %s", c.args, message, c.want)
		}
	}
}

// Statistics of another network are not mixed with features.
func TestStatisticsOfAnotherNetwork(t *testing.T) {
	folder := t.TempDir()
	statistics := filepath.Join(folder, "stats.npz")
	w, err := npz.Create(statistics)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := npz.WriteArray(w, "mu", make([]float64, 12), 12); err != nil {
		t.Fatal(err)
	}
	if err := npz.WriteArray(w, "sigma", make([]float64, 144), 12, 12); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	message := fail(t, "eval", statistics, noiseImages(t, "gen.npz", 20, 10, 2, 0), "--network", meanNetwork(t), "--range", "unit", "--output", "pool=pooled", "--metrics", "fid")
	if !strings.Contains(message, "its statistics are not of mine.onnx, or do not say so; give the images themselves") {
		t.Error(message)
	}
	named := filepath.Join(folder, "net-abcdef01.onnx")
	if err := os.Rename(meanNetwork(t), named); err != nil {
		t.Fatal(err)
	}
	message = fail(t, "eval", statistics, statistics, "--network", named, "--range", "unit", "--output", "pool=pooled", "--metrics", "fid")
	if !strings.Contains(message, "its sha256 begins with abcdef01") {
		t.Error(message)
	}
}

// A reference that the program made is of its network; of Inception's, another
// network takes the images.
func TestReferenceOfEachNetwork(t *testing.T) {
	dino, inception := tinyDINOv2(t), []string{"--inception", "../models/pretrained/inception.pt", "--input-size", "107"}
	data, gen := noiseImages(t, "data.npz", 150, 10, 1, 0), noiseImages(t, "gen.npz", 130, 10, 2, 20)
	folder := t.TempDir()
	ofDINO, ofInception := filepath.Join(folder, "dino.npz"), filepath.Join(folder, "inception.npz")
	succeed(t, "reference", data, "-o", ofDINO, "--network", "dinov2", "--dinov2", dino, "--images", "0", "--protocol", "pytorch-fid")
	succeed(t, append([]string{"reference", data, "-o", ofInception}, inception...)...)
	for _, ref := range []string{ofDINO, ofInception} {
		if e := evaluated(t, ref, gen, "--dinov2", dino, "--metrics", "fd_dinov2"); math.Abs(e.Scores[0].Value-0.2465685225) > 2e-6 {
			t.Errorf("%s: %v, want 0.2465685225", filepath.Base(ref), e.Scores[0].Value)
		}
	}
	for want, args := range map[string][]string{
		"with network dinov2, these features with inception": append([]string{ofDINO, gen, "--metrics", "fid"}, inception...),
		"with resize pil, these features with clean":         {ofDINO, gen, "--network", "dinov2", "--dinov2", dino, "--resize", "clean", "--metrics", "fid"},
	} {
		if message := fail(t, append([]string{"eval"}, args...)...); !strings.Contains(message, want) {
			t.Errorf("%s, want %s", message, want)
		}
	}
}
