package main

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/features"
)

// captionsOfTest are captions of four images, two of them the same.
var captionsOfTest = []string{"two dogs in the snow", "a red bicycle &amp; a wall", "two dogs in the snow", strings.Repeat("a very long story ", 30)}

// clipFolder writes four images of two sizes with their captions beside them.
func clipFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for i, caption := range captionsOfTest {
		im := image.NewNRGBA(image.Rect(0, 0, 50-2*i, 40))
		for y := range 40 {
			for x := range im.Rect.Dx() {
				im.Set(x, y, color.NRGBA{uint8(x * (3 + i)), uint8(y * 5), uint8(x * y * i), 255})
			}
		}
		f, err := os.Create(filepath.Join(folder, string(rune('a'+i))+".png"))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, im); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		tiny.Write(t, filepath.Join(folder, string(rune('a'+i))+".txt"), caption+"\n")
	}
	return folder
}

// clipScore is what a definition gives of the images that decode in folder order.
func clipScore(t *testing.T, network, folder, definition string, names ...string) float64 {
	t.Helper()
	x, err := (&features.CLIP{}).Extractor(t.Context(), network, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	metric := &eval.CLIPScore{Definition: definition}
	f := &eval.Features{D: x.Width()}
	var texts []string
	for _, name := range names {
		file, err := os.Open(filepath.Join(folder, name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		im, err := png.Decode(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		one := models.Images{N: 1, Height: im.Bounds().Dy(), Width: im.Bounds().Dx()}
		for y := range one.Height {
			for x := range one.Width {
				r, g, b, _ := im.At(x, y).RGBA()
				one.Pixels = append(one.Pixels, uint8(r>>8), uint8(g>>8), uint8(b>>8))
			}
		}
		out, err := features.Of(t.Context(), x, features.Resize(metric.Resize()), one, features.Pool)
		if err != nil {
			t.Fatal(err)
		}
		f.N, f.Pool = f.N+1, append(f.Pool, out[features.Pool].Tensor().Data...)
		texts = append(texts, captionsOfTest[name[0]-'a'])
	}
	rows, err := x.(features.Texting).Texts(t.Context(), texts, features.TextForms[definition], func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	f.Texts = rows.Data
	s, err := metric.Score(t.Context(), nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return s[0].Value
}

// The captions beside images, in a text file and in JSON by names give the same score, and an
// image that is left out as broken takes its caption along.
func TestCLIPScore(t *testing.T) {
	network, folder := tiny.CLIP(t), clipFolder(t)
	for _, definition := range []string{eval.TorchMetrics, eval.JMHessel} {
		want := clipScore(t, network, folder, definition, "a", "b", "c", "d")
		metrics := "clip_score: {definition: " + definition + "}"
		text, byName := filepath.Join(t.TempDir(), "captions.txt"), filepath.Join(t.TempDir(), "captions.json")
		tiny.Write(t, text, strings.Join(captionsOfTest, "\n"))
		coco := `{"images": [`
		annotations := ""
		for i, c := range captionsOfTest {
			separator := map[bool]string{true: ",", false: ""}[i > 0]
			quoted, _ := json.Marshal(c)
			coco += separator + `{"id": ` + string(rune('7'-i)) + `, "file_name": "` + string(rune('a'+i)) + `.jpg"}`
			annotations += separator + `{"image_id": ` + string(rune('7'-i)) + `, "caption": ` + string(quoted) + `}, {"image_id": ` + string(rune('7'-i)) + `, "caption": "another"}`
		}
		tiny.Write(t, byName, coco+`], "annotations": [`+annotations+`]}`)
		for from, args := range map[string][]string{"set": nil, "file": {"--captions", text}, "file of names": {"--captions", byName}} {
			e := evaluated(t, append([]string{folder, folder, "--clip", network, "--metrics", metrics}, args...)...)
			if len(e.Scores) != 1 || math.Abs(e.Scores[0].Value-want) > 1e-5*math.Abs(want)+1e-9 {
				t.Errorf("%s of %s: %+v, want %g", definition, from, e.Scores, want)
			}
			in := e.Inputs["captions"]
			if in.CaptionsRead == nil || in.From != strings.Fields(from)[0] || in.Distinct != 3 || in.Cut != 1 || in.Several != len(args)/2*strings.Count(from, "names")*4 || len(in.SHA256) != 64 {
				t.Errorf("%s: captions are recorded as %+v, %+v", from, in.InputFile, in.CaptionsRead)
			}
		}
		classes := evaluated(t, folder, folder, "--clip", network, "--metrics", metrics+", cmmd", "--captions", text)
		if len(classes.Scores) != 2 {
			t.Errorf("%s beside cmmd: %+v", definition, classes.Scores)
		}
		tiny.Write(t, filepath.Join(folder, "b.png"), "no image")
		want = clipScore(t, network, folder, definition, "a", "c", "d")
		e := evaluated(t, folder, folder, "--clip", network, "--metrics", metrics, "--skip-broken", "--captions", text)
		if len(e.Scores) != 1 || math.Abs(e.Scores[0].Value-want) > 1e-5*math.Abs(want)+1e-9 || e.Samples != 3 {
			t.Errorf("%s without the broken image: %+v, want %g", definition, e.Scores, want)
		}
		folder = clipFolder(t)
	}
}

// What keeps captions from being compared is told before anything is computed.
func TestCLIPScoreRefuses(t *testing.T) {
	network, folder := tiny.CLIP(t), clipFolder(t)
	scratch := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(scratch, name)
		tiny.Write(t, path, text)
		return path
	}
	args := []string{"eval", folder, folder, "--clip", network, "--metrics", "clip_score"}
	for want, more := range map[string][]string{
		"3 captions for 4 images":                           {"--captions", file("three.txt", "a\nb\nc\n")},
		"b.png has no caption":                              {"--captions", file("gap.txt", "a\n\nc\nd\n")},
		"d.png has no caption":                              {"--captions", file("names.json", `{"a.png": "a", "b": "b", "x/c.png": ["c", "cc"]}`)},
		"several names end in a.png":                        {"--captions", file("twice.json", `{"x/a.png": "a", "y/a.png": "b"}`)},
		"line 2 is not a text in UTF-8":                     {"--captions", file("bytes.txt", "a\n\xff\xfe\n")},
		"annotation 0 has no caption, or one of an image":   {"--captions", file("coco.json", `{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 2, "caption": "a"}]}`)},
		"expected a text or a list of texts":                {"--captions", file("wrong.json", `{"a.png": 3}`)},
		"nowhere.txt":                                       {"--captions", filepath.Join(scratch, "nowhere.txt")},
		"definition is \"clip\", expected torchmetrics or ": {"--metrics", "clip_score: {definition: clip}"},
	} {
		if more[0] == "--metrics" {
			args := append(append([]string{}, args[:len(args)-2]...), more...)
			if message := fail(t, args...); !strings.Contains(message, want) {
				t.Errorf("%s\nwant %s", message, want)
			}
			continue
		}
		if message := fail(t, append(args, more...)...); !strings.Contains(message, want) {
			t.Errorf("%s\nwant %s", message, want)
		}
	}
	if message := fail(t, "eval", folder, folder, "--clip", network, "--metrics", "cmmd", "--captions", file("ok.txt", "a\n")); !strings.Contains(message, "--captions is for clip_score") {
		t.Error(message)
	}
	bare := noiseImages(t, "bare.npz", 4, 32, 1, 0)
	if message := fail(t, "eval", bare, bare, "--clip", network, "--metrics", "clip_score"); !strings.Contains(message, "tells no captions of its images; give --captions FILE") {
		t.Error(message)
	}
	adm := tiny.Experiment(t, t.TempDir(), "[fid, sfid, is, precision, recall]", "[clip_score]\nclip: {checkpoint: "+network+"}")
	if message := fail(t, "plan", adm); !strings.Contains(message, "clip_score compares images with the prompts that they are drawn from, and family adm has none") {
		t.Error(message)
	}
}

// A run of prompts has CLIP scores, CMMD and FD of CLIP's features from one pass of its square
// images, and the shared numbers are verified from what it leaves.
func TestRunWithCLIP(t *testing.T) {
	results, folder, network := t.TempDir(), t.TempDir(), tiny.CLIP(t)
	file := filepath.Join(folder, "prompted.yaml")
	tiny.Write(t, file, strings.NewReplacer("MODELS", filepath.Join(tiny.Root(), "models/pretrained"), "NETWORK", network, "REFERENCE", tiny.Reference()).Replace(`name: prompted
samples: 5
batch: 3
metrics: [precision: {k: 2}, fid, cmmd, clip_score]
network: clip
clip: {checkpoint: NETWORK}
reference: REFERENCE
bootstrap: 40
model: {family: sd, checkpoint: MODELS/sd}
sampler: {ddpm: {steps: 1}}
prompts: [a photo of a bag, a photo of a coat]
`))
	succeed(t, "run", file, "--results", results)
	rows, err := store.FindMetrics(results)
	if err != nil || len(rows) != 1 || len(rows[0].Scores) != 4 {
		t.Fatal(rows, err)
	}
	row := rows[0]
	for _, name := range []string{"precision", "fid", "cmmd", "clip_score"} {
		if s, ok := row.Score(name); !ok || s.Interval == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if c := row.Inputs.Captions; c == nil || c.Name != "prompts" || c.From != "prompts" || c.Distinct != 2 || row.Inputs.Networks["clip"].Name != filepath.Base(network) {
		t.Errorf("%+v, %+v", c, row.Inputs.Networks)
	}
	found, _ := filepath.Glob(filepath.Join(row.Folder, "features*.npz"))
	if len(found) != 1 || filepath.Base(found[0]) != "features-clip.npz" {
		t.Errorf("features are kept in %v", found)
	}
	if out := succeed(t, "verify", results).stdout.String(); !strings.Contains(out, "scores") {
		t.Error(out)
	}
	// The same images and captions through eval.
	samples, _ := filepath.Glob(filepath.Join(row.Folder, "samples", "samples_*.npz"))
	captions := filepath.Join(folder, "captions.txt")
	tiny.Write(t, captions, "a photo of a bag\na photo of a coat\na photo of a bag\na photo of a coat\na photo of a bag\n")
	e := evaluated(t, tiny.Reference(), samples[0], "--clip", network, "--metrics", "cmmd,clip_score", "--captions", captions)
	for _, s := range e.Scores {
		if own, _ := row.Score(s.Name); own.Value != s.Value {
			t.Errorf("%s is %v in the run, %v by eval", s.Name, own.Value, s.Value)
		}
	}
	// A reference with statistics of the network's usual resize serves with its images.
	ref := filepath.Join(folder, "ref.npz")
	succeed(t, "reference", clipFolder(t), "-o", ref, "--network", "clip", "--clip", network, "--images", "0")
	if message := fail(t, "eval", ref, samples[0], "--clip", network, "--metrics", "cmmd"); !strings.Contains(message, "its statistics were made with resize clip") {
		t.Error(message)
	}
	succeed(t, "reference", tiny.Reference(), "-o", ref, "--network", "clip", "--clip", network, "--force")
	if again := evaluated(t, ref, samples[0], "--clip", network, "--metrics", "cmmd"); again.Scores[0].Value != e.Scores[0].Value || !strings.Contains(strings.Join(again.Notes, " "), "its statistics are not of resize cmmd") {
		t.Errorf("%+v, %q", again.Scores, again.Notes)
	}
	if e.Inputs["captions"].SHA256 != row.Inputs.Captions.SHA256 {
		t.Error("the captions' hashes differ")
	}
}
