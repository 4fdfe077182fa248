package plan

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/eval"
	"sagbench/internal/tiny"
	"sagbench/models/features"
	"sagbench/sampling"
)

// table1 is the experiment at the paper's scale.
func table1(t *testing.T, overrides ...string) *Experiment {
	t.Helper()
	e, err := Load(filepath.Join(tiny.Root(), "configs", "table1.yaml"), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fashion(t *testing.T, overrides ...string) *Experiment {
	t.Helper()
	e, err := Load(filepath.Join(tiny.Root(), "configs", "table1-fashion.yaml"), overrides)
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
	weights, err := os.ReadFile(filepath.Join(tiny.Root(), "models", "pretrained", "adm-uncond.pt"))
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
	err = table1(t).CheckInputs(t.Context())
	if err == nil {
		t.Fatal("nothing is missing")
	}
	got := strings.NewReplacer(models, "/models", tiny.Root(), "..").Replace(err.Error())
	if i := strings.Index(got, "/256x256_diffusion.pt: "); i > 0 { // what the reader of checkpoints says is its own affair
		end := i + strings.IndexByte(got[i:], '\n')
		got = got[:i] + "/256x256_diffusion.pt: BROKEN (../configs/table1.yaml:59)" + got[end:]
	}
	golden := filepath.Join("testdata", "missing-inputs.txt")
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
		if got := e.Rows[0].sourceOf(path); got != want {
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
	if err := tiny.WriteImages(filepath.Join(folder, "images.npz"), make([]uint8, 24), 2, 2, 2); err != nil {
		t.Fatal(err)
	}
	pretrained := filepath.Join(tiny.Root(), "models", "pretrained")
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
		in := &input{File: sampling.File{Path: c.path}, kind: c.kind}
		if c.kind == "Inception network" {
			in.comparisons = []Comparison{{FeatureNetwork: NewFeatureNetwork(features.Networks[0], eval.Protocol{})}}
		}
		if got := in.problem(t.Context()); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.kind, c.path, got, c.want)
		}
	}
	in := &input{File: sampling.File{Path: "${A}/${B}", Unset: []string{"A", "B"}}}
	if got, want := in.problem(t.Context()), "A is not set; name the folder with A=DIR; B is not set; name the folder with B=DIR"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFashionHasItsInputs(t *testing.T) {
	if err := fashion(t).CheckInputs(t.Context()); err != nil {
		t.Error(err)
	}
}

// A pass a step without guidance, two with: also where the guidance starts late.
func TestForecast(t *testing.T) {
	e := fashion(t, "sampler={ddpm: {steps: 20}}", "samples=100", "batch=16", "trace=null")
	f, err := e.Forecast(t.Context(), t.TempDir(), func(r *Row) int {
		if r.Index == 1 {
			return 60
		}
		return r.Index / 5 * 500 // the last row is done, with images to spare
	})
	if err != nil {
		t.Fatal(err)
	}
	const image = 3 * 32 * 32
	const one, two = "1 pass in 1 call", "2 passes in 2 calls"
	const features = 8*256*256 + 4*256*100 + 8*175*175 // covariances, pool features
	for i, want := range []RowForecast{
		{Images: 100, Passes: 20, calls: 7 * 20, perStep: one, bytes: 100*image + features},
		{Images: 40, Passes: 40, calls: 3 * 40, perStep: two, bytes: 40*image + features},
		{Images: 100, Passes: 40, calls: 7 * 40, perStep: two, bytes: 100*image + features},
		{Images: 100, Passes: 40, calls: 7 * 40, perStep: two, bytes: 100*image + features},
		{Images: 100, Passes: 20, calls: 7 * 20, perStep: one, bytes: 100*image + features},
		{Images: 0, Passes: 40, perStep: two},
	} {
		want.Row = e.Rows[i]
		if got := f.Rows[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("row %d: %+v, want %+v", i, got, want)
		}
	}
	if got, want := f.bytes(), int64((440+100)*image+5*features); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	f.diskSpace = 1_000_000
	want := "to do: 440 images in 6 rows: 13,600 passes through the network, in 960 calls\ndisk:  6.0 MB at most in " + f.folder + ", 1.0 MB free: NOT ENOUGH; free some space or choose another disk with --results\n"
	if got := f.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	f.diskSpace, f.Timed = -1, true
	f.Rows[0].Time, f.Rows[4].Time = time.Minute, 10*time.Second
	if got := f.String(); !strings.HasSuffix(got, f.folder+"\ntime:  about 1m10s, from a trial of two batches\n") {
		t.Error(got)
	}
}

func TestForecastOfThePaper(t *testing.T) {
	f, err := table1(t).Forecast(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var passes []int
	for _, p := range f.Rows {
		passes = append(passes, p.Passes)
	}
	if want := []int{250, 500, 500, 250, 500, 250, 500, 250, 500}; !slices.Equal(passes, want) {
		t.Errorf("%v, want %v", passes, want)
	}
	if !strings.HasPrefix(f.String(), "to do: 450,000 images in 9 rows: 175,000,000 passes through the network, in 10,937,500 calls\ndisk:  102.6 GB at most in ") {
		t.Error(f)
	}
	if f.diskSpace <= 0 {
		t.Errorf("%d bytes free", f.diskSpace)
	}
}

func TestSpaceFor(t *testing.T) {
	folder := t.TempDir()
	if a, b := spaceFor(filepath.Join(folder, "not", "yet", "there")), spaceFor(folder); a <= 0 || b <= 0 {
		t.Error(a, b)
	}
}
