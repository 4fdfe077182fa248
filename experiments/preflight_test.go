package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/models/ort"
)

// table1 is the experiment at the paper's scale.
func table1(t *testing.T, overrides ...string) *experiment {
	t.Helper()
	e, err := loadExperiment(filepath.Join("..", "configs", "table1.yaml"), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fashion(t *testing.T, overrides ...string) *experiment {
	t.Helper()
	e, err := loadExperiment(filepath.Join("..", "configs", "table1-fashion.yaml"), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Every file is listed once, with all its rows, in one message.
func TestMissingInputs(t *testing.T) {
	models := t.TempDir()
	t.Setenv("MODELS", models)
	t.Setenv("REFERENCES", "")
	weights, err := os.ReadFile(filepath.Join("..", "models", "pretrained", "adm-uncond.pt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"256x256_diffusion_uncond.pt": weights,
		"256x256_diffusion.pt":        weights[:len(weights)/2], // an interrupted download
	} {
		if err := os.WriteFile(filepath.Join(models, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err = table1(t).checkInputs()
	if err == nil {
		t.Fatal("nothing is missing")
	}
	got := strings.ReplaceAll(err.Error(), models, "/models")
	if i := strings.Index(got, "/256x256_diffusion.pt: "); i > 0 { // what the reader of checkpoints says is its own affair
		end := i + strings.IndexByte(got[i:], '\n')
		got = got[:i] + "/256x256_diffusion.pt: BROKEN (../configs/table1.yaml:59)" + got[end:]
	}
	golden := filepath.Join("testdata", "missing-inputs.txt")
	if *update {
		if err := writeWhole(golden, []byte(got)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// An experiment's own sources win over those that are known.
func TestSourceOf(t *testing.T) {
	e := table1(t, "sources={lsun_cat.pt: {page: a page, size: 3 bytes}}")
	for path, want := range map[string]Source{
		"/x/lsun_cat.pt":        {Page: "a page", Size: "3 bytes"},
		"lsun_horse.pt":         {Page: checkpointsPage, Size: "about 2.2 GB"},
		"a/VIRTUAL_unknown.npz": {},
	} {
		if got := e.rows[0].sourceOf(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

func TestInputProblems(t *testing.T) {
	folder := t.TempDir()
	samples := filepath.Join(folder, "no.npz")
	if err := os.WriteFile(filepath.Join(folder, "text.npz"), []byte("not a zip"), 0o644); err != nil {
		t.Fatal(err)
	}
	writeImages(t, filepath.Join(folder, "images.npz"), 0, 2, 2, 0)
	pretrained := filepath.Join("..", "models", "pretrained")
	for _, c := range []struct {
		kind inputKind
		path string
		want string // "" = usable
	}{
		{referenceInput, samples, "there is no such file"},
		{referenceInput, folder, ""},
		{"Inception network", folder, "is a folder, expected a file"},
		{networkInput, folder, ""},
		{referenceInput, filepath.Join(folder, "text.npz"), "text.npz"},
		{referenceInput, filepath.Join(folder, "images.npz"), ""},
		{referenceInput, filepath.Join(pretrained, "reference.npz"), ""},
		{networkInput, filepath.Join(pretrained, "adm-cond.pt"), ""},
		{"Inception network", filepath.Join(pretrained, "inception.pt"), ""},
		{"Inception network", filepath.Join(pretrained, "reference.npz"), "reference.npz"},
		{"Inception network", filepath.Join(pretrained, "adm-cond.pt"), "fc.weight"},
		{networkInput, filepath.Join(folder, "text.npz"), "text.npz"},
		{networkInput, filepath.Join(folder, "text.npz", "below"), "not a directory"},
	} {
		in := &input{inputPath: inputPath{Path: c.path}, kind: c.kind}
		if e := defaults(); c.kind == "Inception network" {
			in.shares = []share{{featureNetwork: e.featureNetworks()["inception"]}}
		}
		if got := in.problem(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.kind, c.path, got, c.want)
		}
	}
	in := &input{inputPath: inputPath{Path: "${A}/${B}", Unset: []string{"A", "B"}}}
	if got, want := in.problem(), "A is not set; name the folder with A=DIR; B is not set; name the folder with B=DIR"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFashionHasItsInputs(t *testing.T) {
	if err := fashion(t).checkInputs(); err != nil {
		t.Error(err)
	}
}

// A pass a step without guidance, two with: also where the guidance starts late.
func TestForecast(t *testing.T) {
	e := fashion(t, "sampler={ddpm: {steps: 20}}", "samples=100", "batch=16")
	f, err := e.forecast(t.TempDir(), func(r *row) int {
		if r.index == 1 {
			return 60
		}
		return r.index / 4 * 500 // the last row is done, with images to spare
	})
	if err != nil {
		t.Fatal(err)
	}
	const image = 3 * 32 * 32
	const one, two = "1 pass in 1 call", "2 passes in 2 calls"
	const features = 8*256*256 + 4*256*100 + 8*175*175 // covariances, pool features
	for i, want := range []rowForecast{
		{images: 100, passes: 20, calls: 7 * 20, perStep: one, bytes: 100*image + features},
		{images: 40, passes: 40, calls: 3 * 40, perStep: two, bytes: 40*image + features},
		{images: 100, passes: 40, calls: 7 * 40, perStep: two, bytes: 100*image + features},
		{images: 100, passes: 20, calls: 7 * 20, perStep: one, bytes: 100*image + features},
		{images: 0, passes: 40, perStep: two},
	} {
		want.row = e.rows[i]
		if got := f.rows[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("row %d: %+v, want %+v", i, got, want)
		}
	}
	if got, want := f.write(), int64((340+100)*image+4*features); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	f.free = 1_000_000
	want := "to do: 340 images in 5 rows: 9,600 passes through the network, in 680 calls\ndisk:  4.8 MB at most in " + f.folder + ", 1.0 MB free: NOT ENOUGH; free some space or choose another disk with --results\n"
	if got := f.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	f.free, f.trialed = -1, true
	f.rows[0].time, f.rows[4].time = time.Minute, 10*time.Second
	if got := f.String(); !strings.HasSuffix(got, f.folder+"\ntime:  about 1m10s, from a trial of two batches\n") {
		t.Error(got)
	}
}

func TestForecastOfThePaper(t *testing.T) {
	f, err := table1(t).forecast(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var passes []int
	for _, p := range f.rows {
		passes = append(passes, p.passes)
	}
	if want := []int{250, 500, 500, 250, 500, 250, 500, 250, 500}; !slices.Equal(passes, want) {
		t.Errorf("%v, want %v", passes, want)
	}
	if !strings.HasPrefix(f.String(), "to do: 450,000 images in 9 rows: 175,000,000 passes through the network, in 10,937,500 calls\ndisk:  102.6 GB at most in ") {
		t.Error(f)
	}
	if f.free <= 0 {
		t.Errorf("%d bytes free", f.free)
	}
}

func TestFreeSpace(t *testing.T) {
	folder := t.TempDir()
	if a, b := freeSpace(filepath.Join(folder, "not", "yet", "there")), freeSpace(folder); a <= 0 || b <= 0 {
		t.Error(a, b)
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 98_304_000_000: "98.3 GB", 2e15: "2000.0 TB"} {
		if got := byteSize(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The trial runs every network of the experiment and reports what does not fit.
func TestTrial(t *testing.T) {
	e := fashion(t, "samples=4", "batch=2")
	f, err := e.forecast(t.TempDir(), func(r *row) int { return r.index / 4 * 4 })
	if err != nil {
		t.Fatal(err)
	}
	if err := f.trial(t.Context(), ort.Options{}); err != nil {
		t.Fatal(err)
	}
	if !f.trialed {
		t.Error("no trial")
	}
	for i, p := range f.rows[:4] {
		if p.time <= 0 || p.time > time.Minute {
			t.Errorf("row %d takes %v", i, p.time)
		}
	}
	if f.rows[4].time != 0 {
		t.Error("a row that is done takes time")
	}
	e = fashion(t, "model.num_channels=96")
	if f, err = e.forecast(t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	if err := f.trial(t.Context(), ort.Options{}); err == nil || !strings.Contains(err.Error(), "adm-uncond.pt") {
		t.Error(err)
	}
}
