package plan

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/sampling"
)

// loadPrompted is a row of the embedded Stable Diffusion.
func loadPrompted(t *testing.T, overrides ...string) (*Row, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prompted.yaml")
	tiny.Write(t, path, `name: prompted
metrics: []
model: {family: sd, checkpoint: `+filepath.Join(tiny.Root(), "models/pretrained/sd")+`}
sampler: {ddpm: {steps: 2}}
guidance: {cfg: {scale: 3}}
`)
	e, err := Load(path, overrides)
	if err != nil {
		return nil, err
	}
	return e.Rows[0], nil
}

// writeFile writes a file into a folder and returns its path.
func writeFile(t *testing.T, folder, name, text string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	tiny.Write(t, path, text)
	return path
}

func runID(t *testing.T, r *Row) string {
	t.Helper()
	id, err := r.RunID(strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// coco is a file of captions of n images in COCO's format, in an order that dice choose.
func coco(t *testing.T, folder, name string, n int, dice uint64) string {
	t.Helper()
	type object = map[string]any
	var images, annotations []object
	for i := range n {
		images = append(images, object{"id": 100 + 3*i, "file_name": imageName(i), "license": 3})
		for k := range 5 {
			annotations = append(annotations, object{"image_id": 100 + 3*i, "id": 10*i + k, "caption": fmt.Sprintf(" caption %d of image %d\n", k, i)})
		}
	}
	r := rand.New(rand.NewPCG(dice, 1))
	if dice > 0 {
		r.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
		r.Shuffle(len(annotations), func(i, j int) { annotations[i], annotations[j] = annotations[j], annotations[i] })
	}
	data, err := json.Marshal(object{"info": object{"year": 2014}, "images": images, "licenses": []int{}, "annotations": annotations})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, folder, name, string(data))
}

func imageName(i int) string { return fmt.Sprintf("COCO_val2014_%012d.jpg", 100+3*i) }

// A draw from COCO's captions takes images without replacement and one caption of each,
// as a function of the seed and of what the file holds.
func TestDrawnCaptions(t *testing.T) {
	folder := t.TempDir()
	load := func(file string, number int, seed int) *Row {
		t.Helper()
		r, err := loadPrompted(t, "prompts_file="+file, fmt.Sprintf("prompts_draw={number: %d, seed: %d}", number, seed))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	sorted, shuffled := coco(t, folder, "sorted.json", 60, 0), coco(t, folder, "shuffled.json", 60, 1)
	all := load(sorted, 60, 4)
	images, captions := map[string]bool{}, map[string]int{}
	for i := range 60 {
		var k, image int
		if _, err := fmt.Sscanf(all.PromptOf(i), "caption %d of image %d", &k, &image); err != nil || imageName(image) != all.FileNameOf(i) || k > 4 {
			t.Errorf("image %d is drawn from %q of %s", i, all.PromptOf(i), all.FileNameOf(i))
		}
		images[all.FileNameOf(i)] = true
		captions[fmt.Sprint(k)]++
	}
	if len(images) != 60 || len(captions) != 5 {
		t.Errorf("%d images of 60, captions %v", len(images), captions)
	}
	few, other := load(shuffled, 20, 4), load(sorted, 20, 5)
	if !slices.Equal(few.Prompts, all.Prompts[:20]) || !slices.Equal(few.FileNames, all.FileNames[:20]) {
		t.Errorf("20 of another order: %q, want %q", few.Prompts, all.Prompts[:20])
	}
	if slices.Equal(other.Prompts, few.Prompts) {
		t.Error("another seed draws the same")
	}
	if got := few.PromptOf(21); got != few.Prompts[1] {
		t.Errorf("image 21 of 20 prompts is drawn from %q", got)
	}
	if got := load(sorted, 3, 0).Prompts; strings.Join(got, "; ") != drawGolden {
		t.Errorf("drew %q, want %q: sets that were drawn before would be others", strings.Join(got, "; "), drawGolden)
	}
	if got := all.DescribeDraw(); !strings.Contains(got, "prompts: 60 drawn from 60 images, of each one caption, in sorted.json (sha256 ") || !strings.HasSuffix(got, ") with seed 4; the 50000 images take each more than once") {
		t.Error(got)
	}
	for samples, want := range map[int]string{59: "; the 59 images take the first 59 of them", 60: ") with seed 4", 61: "; the 61 images take each more than once (the last 59 once)"} {
		some := *all
		if some.Samples = samples; !strings.HasSuffix(some.DescribeDraw(), want) {
			t.Errorf("%d images: %s, want …%s", samples, some.DescribeDraw(), want)
		}
	}
	// The ids hold the content of the file and the seed.
	seen := map[string]bool{}
	for _, r := range []*Row{all, load(sorted, 20, 4), other, few, load(coco(t, folder, "more.json", 61, 0), 20, 4)} {
		if id := runID(t, r); seen[id] {
			t.Errorf("%s: a run id that was there before", r.DescribeDraw())
		} else {
			seen[id] = true
		}
	}
	data, err := all.Document()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(writeFile(t, folder, "run.yaml", string(data)), nil)
	if err != nil || runID(t, again.Rows[0]) != runID(t, all) {
		t.Errorf("%v\n%s", err, data)
	}
	if _, err := loadPrompted(t, "prompts_file="+sorted); err == nil || !strings.Contains(err.Error(), "draws 30,000 of the 60 images with a text in sorted.json; give number: at most so many") {
		t.Errorf("the usual number of pairs: %v", err)
	}
}

const drawGolden = "caption 4 of image 56; caption 2 of image 27; caption 3 of image 39"

// The usual draw is of 30,000 pairs.
func TestCOCO30k(t *testing.T) {
	r, err := loadPrompted(t, "prompts_file="+coco(t, t.TempDir(), "captions_val2014.json", 30_010, 0))
	if err != nil {
		t.Fatal(err)
	}
	distinct := map[string]bool{}
	for _, name := range r.FileNames {
		distinct[name] = true
	}
	if len(r.Prompts) != 30_000 || len(distinct) != 30_000 {
		t.Errorf("%d prompts of %d images", len(r.Prompts), len(distinct))
	}
	data, err := r.Document()
	if err != nil || !strings.Contains(string(data), "prompts_draw:\n  number: 30000\n  seed: 0\n") {
		t.Errorf("run.yaml does not tell the draw: %v\n%s", err, data)
	}
}

// An object a line has a prompt, and what belongs to it.
func TestPromptObjects(t *testing.T) {
	folder := t.TempDir()
	file := writeFile(t, folder, "prompts.JSONL", "\ufeff"+`{"prompt": " a bag ", "negative_prompt": "dark", "file_name": "a/1.jpg", "id": 3}

{"prompt": "a coat", "negative_prompt": "", "file_name": "2.jpg"}
  {"file_name": "3.jpg", "prompt": "ein Hemd, größer \ud83d\ude00", "negative_prompt": null}`+"\r\n")
	r, err := loadPrompted(t, "prompts_file="+file, "negative_prompt=blurry")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a bag|dark|a/1.jpg", "a coat||2.jpg", "ein Hemd, größer 😀|blurry|3.jpg", "a bag|dark|a/1.jpg"} {
		if got := r.PromptOf(i) + "|" + r.NegativeOf(i) + "|" + r.FileNameOf(i); got != want {
			t.Errorf("image %d: %q, want %q", i, got, want)
		}
	}
	if len(r.PromptNotes) != 1 || !strings.Contains(r.PromptNotes[0], `prompts.JSONL: the key "id" of 1 lines is not read`) {
		t.Errorf("%q", r.PromptNotes)
	}
	drawn, err := loadPrompted(t, "prompts_file="+file, "prompts_draw.number=2", "prompts_draw.seed=1")
	if err != nil || len(drawn.Prompts) != 2 || len(drawn.Negatives) != 2 || len(drawn.FileNames) != 2 {
		t.Errorf("%v, %+v", err, drawn)
	}
	plain := writeFile(t, folder, "plain.txt", "one\ntwo\nthree\n")
	lines, err := loadPrompted(t, "prompts_file="+plain, "prompts_draw={number: 3, seed: 2}")
	if sorted := slices.Sorted(slices.Values(lines.Prompts)); err != nil || !slices.Equal(sorted, []string{"one", "three", "two"}) || lines.FileNames != nil {
		t.Errorf("%v, %q", err, lines.Prompts)
	}
}

// What stands for ∅ of each image, however it is said, is one run; that of all images
// is the run that it was before.
func TestNegativePromptsInRunIDs(t *testing.T) {
	folder := t.TempDir()
	file := writeFile(t, folder, "negative.txt", "dark\n\n")
	objects := writeFile(t, folder, "both.jsonl", `{"prompt": "a", "negative_prompt": "dark"}`+"\n"+`{"prompt": "b"}`)
	id := func(overrides ...string) string {
		t.Helper()
		r, err := loadPrompted(t, overrides...)
		if err != nil {
			t.Fatal(err)
		}
		return runID(t, r)
	}
	list := id("prompts=[a, b]", `negative_prompts=[dark, ""]`)
	if got := id("prompts=[a, b]", "negative_prompts_file="+file); got != list {
		t.Errorf("of a file %s, of a list %s", got, list)
	}
	if got := id("prompts_file=" + objects); got != list {
		t.Errorf("of objects %s, of a list %s", got, list)
	}
	one := id("prompts=[a, b]", "negative_prompt=dark")
	if got := id("prompts=[a, b]", "negative_prompts=[dark, dark]"); got != one || one == list {
		t.Errorf("twice the same %s, of all %s, of one %s", got, one, list)
	}
	if got := id("prompts_file="+objects, "negative_prompt=dark"); got != one {
		t.Errorf("the same for the line that has none %s, of all %s", got, one)
	}
}

func TestNegativePromptErrors(t *testing.T) {
	folder := t.TempDir()
	objects := writeFile(t, folder, "both.jsonl", `{"prompt": "a", "negative_prompt": "dark"}`)
	text := writeFile(t, folder, "plain.txt", "a\nb\n")
	short := writeFile(t, folder, "short.txt", "dark\n")
	for _, c := range []struct {
		overrides []string
		want      string
	}{
		{[]string{"prompts=[a, b]", "negative_prompts=[dark]"}, "negative_prompts: has 1 negative prompts for 2 prompts"},
		{[]string{"prompts=[a, b]", "negative_prompts_file=" + short}, "negative_prompts_file: has 1 negative prompts for 2 prompts"},
		{[]string{"prompts=[a, b]", "negative_prompts_file=" + folder + "/none"}, "none: no such file"},
		{[]string{"prompts=[a]", "negative_prompts=[dark]", "negative_prompt=x"}, "negative_prompts and negative_prompt are given; give one of them"},
		{[]string{"prompts=[a]", "negative_prompts=[dark]", "negative_prompts_file=" + short}, "give one of them"},
		{[]string{"prompts_file=" + objects, "negative_prompts=[dark]"}, "negative_prompt in both.jsonl and negative_prompts are given"},
		{[]string{"prompts_file=" + objects, "model.negative_prompt=x"}, "the model block gives a negative_prompt as well"},
		{[]string{"prompts_file=" + text, "prompts_draw.number=1", "negative_prompts_file=" + short}, "prompts_draw draws some"},
		{[]string{"prompts=[a]", "prompts_draw.number=1"}, "prompts_draw: draws from prompts_file, and there is none"},
		{[]string{"prompts_file=" + text, "prompts_draw.seed=1"}, "has a seed and no number"},
		{[]string{"prompts_file=" + text, "prompts_draw.number=3"}, "draws 3 of the 2 lines with a text in plain.txt"},
		{[]string{"prompts_file=" + text, "prompts_draw.number=-1"}, "prompts_draw.number"},
	} {
		if _, err := loadPrompted(t, c.overrides...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: no %q in %v", c.overrides, c.want, err)
		}
	}
}

// Each fault of a file of prompts is told with its place.
func TestPromptFileErrors(t *testing.T) {
	images := func(more string) string {
		return `{"images": [{"id": 1, "file_name": "a.jpg"}` + more + `], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}`
	}
	captions := func(all string) string {
		return `{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [` + all + `]}`
	}
	for i, c := range []struct{ name, text, want string }{
		{".jsonl", "", "holds no text"},
		{".jsonl", "{\"prompt\": \"a\"}\nprompt\n", ":2: expected an object"},
		{".jsonl", "{\"prompt\": \"a\"}\n[1]\n", ":2: expected an object"},
		{".jsonl", "{\"prompt\": \"a\"", ":1: not JSON: it ends too early"},
		{".jsonl", "{\"prompt\": \"a\",}", ":1: not JSON"},
		{".jsonl", "{\"prompt\": \"a\"} {}", ":1: there is more behind the object"},
		{".jsonl", "{\"prompt\": \"a\"}\n\n{\"text\": \"a\", \"id\": 3}", `:3: there is no prompt, expected an object with it: {"prompt": …}; its keys: "id", "text"`},
		{".jsonl", "{\"prompt\": \" \"}", ":1: prompt is an empty text"},
		{".jsonl", "{\"prompt\": 3}", ":1: prompt is 3, expected a text"},
		{".jsonl", "{\"prompt\": \"a\", \"negative_prompt\": [\"b\"]}", `:1: negative_prompt is ["b"], expected a text`},
		{".jsonl", "{\"prompt\": \"a\", \"prompt\": \"b\"}", `:1: the key "prompt" is there twice`},
		{".jsonl", "{\"prompt\": \"\\ud800 a\"}", ":1: prompt holds half of a surrogate pair"},
		{".jsonl", "{\"prompt\": \"\\u0000\"}", ":1: prompt holds the character 0"},
		{".jsonl", "{\"prompt\": \"\xff\"}", ":1: not a text in UTF-8"},
		{".jsonl", "{\"prompt\": \"" + strings.Repeat("a", maxPrompt+1) + "\"}", ":1: prompt has 65537 bytes, expected at most 65536"},
		{".jsonl", "{\"prompt\": \"a\", \"file_name\": \"1.jpg\"}\n{\"prompt\": \"b\"}", ":2: line 1 has a file_name and line 2 has none"},
		{".jsonl", "{\"prompt\": \"b\"}\n{\"prompt\": \"a\", \"file_name\": \"1.jpg\"}", ":2: line 2 has a file_name and line 1 has none"},
		{".jsonl", "{\"prompt\": \"a\", \"file_name\": \"1.jpg\"}\n{\"prompt\": \"b\", \"file_name\": \"1.jpg\"}", `:2: file_name is "1.jpg", as in line 1`},
		{".jsonl", "{\"prompt\": \"a\", \"file_name\": \"a/..\"}", `:1: file_name is "a/..", expected that of an image`},
		{".jsonl", "{\"prompt\": \"a\", \"file_name\": \"a\\nb\"}", "without control characters"},
		{".jsonl", "{\"prompt\": \"a\", \"file_name\": \"" + strings.Repeat("a/", 600) + "b\"}", "file_name has 1201 bytes"},
		{".txt", "{\"prompt\": \"a\"}\n", "holds JSON objects, a line each; call it FILE.jsonl"},
		{".json", "", "holds no object, expected COCO's captions"},
		{".json", "[1]", "holds no object, expected COCO's captions"},
		{".json", `{"images": []}`, "has no list annotations"},
		{".json", `{"images": {}, "annotations": []}`, "has no list images"},
		{".json", `{"images": [], "annotations": []}`, "holds no captions"},
		{".json", `{"images": [{"id": 1, `, "is not JSON: it ends too early (byte "},
		{".json", `{"images": [}`, "is not JSON: "},
		{".json", `{"info": nothing}`, "is not JSON: "},
		{".json", `{"images": [], "images": []}`, "has the list images twice"},
		{".json", images("") + "\n" + images(""), "has more behind the object"},
		{".json", "{\"a\": \"\xff\"}", "is not a text in UTF-8 (byte 7)"},
		{".json", images(`, 3`), "images[1]: it is a number, expected an object"},
		{".json", images(`, {"id": "2", "file_name": "b.jpg"}`), "images[1]: id is a string, expected a whole number"},
		{".json", images(`, {"file_name": "b.jpg"}`), "images[1]: has no id"},
		{".json", images(`, {"id": 2}`), "images[1]: has no file_name"},
		{".json", images(`, {"id": 1, "file_name": "b.jpg"}`), "images[1]: id 1 is that of images[0] as well"},
		{".json", images(`, {"id": 2, "file_name": "a.jpg"}`), `images[1]: file_name "a.jpg" is that of images[0] as well`},
		{".json", images(`, {"id": 2, "file_name": ".."}`), `images[1]: file_name is "..", expected that of an image`},
		{".json", captions(`{"id": 1, "image_id": 1}`), "annotations[0]: has no caption"},
		{".json", captions(`{"id": 1, "caption": "a"}`), "annotations[0]: has no image_id"},
		{".json", captions(`{"image_id": 1, "caption": "a"}`), "annotations[0]: has no id"},
		{".json", captions(`{"id": 1, "image_id": 2, "caption": "a"}`), "annotations[0]: image_id is 2, and no image has that id"},
		{".json", captions(`{"id": 1, "image_id": 1, "caption": 3}`), "annotations[0]: caption is 3, expected a text"},
		{".json", captions(`{"id": 1, "image_id": 1, "caption": "a"}, {"id": 0, "image_id": 1, "caption": "a"}, {"id": 1, "image_id": 1, "caption": "b"}`), "annotations[2]: id 1 is that of annotations[0] as well"},
		{".json", captions(`{"id": 1, "image_id": 1, "caption": " "}`), "holds no captions"},
	} {
		path := writeFile(t, t.TempDir(), "prompts"+c.name, c.text)
		if _, err := readPromptsFile(sampling.File{Path: path}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%d: no %q in %v", i, c.want, err)
		}
	}
	many := writeFile(t, t.TempDir(), "many.jsonl", strings.Repeat("{\"prompt\":\"a\"}\n", maxObjects+1))
	if _, err := readPromptsFile(sampling.File{Path: many}); err == nil || !strings.Contains(err.Error(), "many.jsonl:1000001: there are more than 1,000,000 objects") {
		t.Error(err)
	}
	long := filepath.Join(t.TempDir(), "long.jsonl")
	tiny.Write(t, long, "")
	if err := os.Truncate(long, maxPromptsFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readPromptsFile(sampling.File{Path: long}); err == nil || !strings.Contains(err.Error(), "expected a text of at most") {
		t.Error(err)
	}
	// What COCO might hold and is no fault, is told.
	left := writeFile(t, t.TempDir(), "left.json", `{"annotations": [{"id": 1, "image_id": 1, "caption": "a"}, {"id": 2, "image_id": 1, "caption": ""}], "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]}`)
	read, err := readPromptsFile(sampling.File{Path: left})
	if err != nil || fmt.Sprint(read.notes) != "[left.json: 1 captions are empty and are not drawn left.json: 1 images have no caption and are not drawn]" {
		t.Errorf("%q, %v", read.notes, err)
	}
}

// configs/sd-coco30k.yaml draws 30,000 pairs, and says where captions and checkpoint are
// published.
func TestCOCOExperiment(t *testing.T) {
	references := t.TempDir()
	t.Setenv("MODELS", "/m")
	t.Setenv("REFERENCES", references)
	path := filepath.Join(tiny.Root(), "configs/sd-coco30k.yaml")
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "captions_val2014.json: no such file or directory; published: https://cocodataset.org/#download") {
		t.Error(err)
	}
	coco(t, references, "captions_val2014.json", 30_001, 3)
	e, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, r := range e.Rows {
		titles = append(titles, r.Title())
		if len(r.Prompts) != r.Samples || len(r.FileNames) != 30_000 || r.Sampler.Name != "pndm" || len(r.Guidances) != 2 {
			t.Errorf("%s: %d prompts for %d images by %s", r.Title(), len(r.Prompts), r.Samples, r.Sampler.Name)
		}
	}
	if got := strings.Join(titles, ", "); got != "s=0, s=0.25, s=0.5, s=0.75" {
		t.Error(got)
	}
	if problems := fmt.Sprint(e.CheckInputs(t.Context())); !strings.Contains(problems, "CompVis/stable-diffusion-v1-4 on Hugging Face") || !strings.Contains(problems, "coco2014-val.npz") {
		t.Error(problems)
	}
}
