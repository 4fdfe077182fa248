package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sagbench/internal/tiny"
)

// pictureAt are the pixels [H,W,3] of a PNG file, and its texts by key.
func pictureAt(t *testing.T, path string) (pixels []uint8, texts map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b := decoded.Bounds()
	for y := range b.Dy() {
		for x := range b.Dx() {
			r, g, b, _ := decoded.At(x, y).RGBA()
			pixels = append(pixels, uint8(r>>8), uint8(g>>8), uint8(b>>8))
		}
	}
	texts = map[string]string{}
	for at := 8; at < len(data); {
		n := int(binary.BigEndian.Uint32(data[at:]))
		kind, body := string(data[at+4:at+8]), data[at+8:at+8+n]
		key, value, _ := bytes.Cut(body, []byte{0})
		switch kind {
		case "tEXt":
			texts[string(key)] = string(value)
		case "iTXt":
			texts[string(key)] = strings.TrimPrefix(string(value), "\x00\x00\x00\x00")
		}
		at += 12 + n
	}
	return pixels, texts
}

// scoresIn are the scores of a metrics.json or of eval's JSON, as they are written.
func scoresIn(t *testing.T, path string) string {
	t.Helper()
	var found struct {
		Scores []struct {
			Name  string
			Value json.Number
		}
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &found)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return fmt.Sprint(found.Scores)
}

// sample --png writes the images that run has drawn and scored, with what each is a
// function of, and keeps what is there.
func TestSampleToFiles(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "samples: 8", "samples: 6", "batch: 2", "batch: 4", "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid, sfid, is]\nlabels: balanced")
	results, pictures := filepath.Join(folder, "results"), filepath.Join(folder, "new/pictures")
	said := succeed(t, "run", file, "--rows", "s=0.5", "--results", results)
	const labels = "labels: balanced, image i has class i mod K of the network's K: 1 of each of classes 0 to 5"
	if !strings.Contains(said.stderr.String(), labels) {
		t.Errorf("the run does not tell of its labels:\n%s", &said.stderr)
	}
	finished := tiny.Tree(t, results)
	metrics := globOne(t, filepath.Join(results, "tiny", "*", "metrics.json"))
	if data, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(data), labels) {
		t.Errorf("the result does not tell of its labels: %v\n%s", err, data)
	}
	args := []string{"sample", file, "--rows", "2", "--png", pictures, "--results", results}
	succeed(t, args...)
	tiny.Same(t, tiny.Tree(t, results), finished)
	succeed(t, "verify", results)

	all := drawnPixels(t, filepath.Join(results, "tiny"), "s=0.5")
	id := strings.TrimPrefix(filepath.Base(filepath.Dir(metrics)), "s=0.5-")
	for i := range 6 {
		pixels, texts := pictureAt(t, filepath.Join(pictures, fmt.Sprintf("%06d.png", i)))
		if size := 32 * 32 * 3; !bytes.Equal(pixels, all[i*size:(i+1)*size]) {
			t.Errorf("picture %d has other pixels than the samples", i)
		}
		guidance := texts["guidance"]
		delete(texts, "guidance")
		if want := fmt.Sprintf("map[image:%d label:%d run:%s sampler:%s seed:3]", i, i, id, texts["sampler"]); fmt.Sprint(texts) != want || !strings.Contains(guidance, `"sag":{`) || !strings.Contains(guidance, `"scale":0.5`) {
			t.Errorf("picture %d tells %v and %s, want %s", i, texts, guidance, want)
		}
	}
	scores := filepath.Join(folder, "eval.json")
	succeed(t, "eval", tiny.Reference(), pictures, "--inception", "../models/pretrained/inception.pt", "--input-size", "107", "--metrics", "fid,sfid,is", "--json", scores)
	if got, want := scoresIn(t, scores), scoresIn(t, metrics); got != want || !strings.Contains(want, "fid") {
		t.Errorf("scores of the folder %s, of the row %s", got, want)
	}

	before := tiny.Tree(t, pictures)
	tiny.Write(t, filepath.Join(pictures, ".000003.png.99999"), "left by a process that was killed")
	tiny.Write(t, filepath.Join(pictures, "mine.txt"), "of somebody else")
	said = succeed(t, args...)
	for _, want := range []string{"6 pictures in " + pictures + ", 6 of which were there", "holds 1 files that are no pictures of these, such as mine.txt"} {
		if !strings.Contains(said.stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, &said.stderr)
		}
	}
	if err := os.Remove(filepath.Join(pictures, "mine.txt")); err != nil {
		t.Fatal(err)
	}
	tiny.Same(t, tiny.Tree(t, pictures), before)

	// Another batch, on results of its own, and one picture that is missing.
	if err := os.Remove(filepath.Join(pictures, "000002.png")); err != nil {
		t.Fatal(err)
	}
	said = succeed(t, "sample", file, "batch=1", "--rows", "2", "--png", pictures, "--results", filepath.Join(folder, "again"))
	if !strings.Contains(said.stderr.String(), "5 of which were there") {
		t.Errorf("what was there is not kept:\n%s", &said.stderr)
	}
	tiny.Same(t, tiny.Tree(t, pictures), before)

	// Two processes share the work, and write the same files.
	shared := filepath.Join(folder, "shared")
	succeed(t, "sample", file, "--rows", "2", "--png", shared, "--results", filepath.Join(folder, "apart"), "--devices", "cpu,cpu")
	tiny.Same(t, tiny.Tree(t, shared), before)

	// Several rows, of more images: a folder each.
	both := filepath.Join(folder, "both")
	succeed(t, "sample", file, "samples=7", "--png", both, "--results", results)
	for _, row := range []string{"s=0-*", "s=0.5-*"} {
		if found, _ := filepath.Glob(filepath.Join(both, row, "??????.png")); len(found) != 7 {
			t.Errorf("%s: %d pictures", row, len(found))
		}
	}
	succeed(t, "sample", file, "samples=7", "--rows", "2", "--png", pictures, "--results", results)
	for name, data := range before {
		if now, err := os.ReadFile(filepath.Join(pictures, name)); err != nil || tiny.Tree(t, pictures)[name] != data {
			t.Errorf("%s is another file beside more of them: %v, %d bytes", name, err, len(now))
		}
	}
}

// What is there and is something else is told, and stays.
func TestSampleReplacesNothing(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "samples: 8", "samples: 2", "steps: 2", "steps: 1", "metrics: [fid, sfid, is, precision, recall]", "metrics: []")
	results, pictures := filepath.Join(folder, "results"), filepath.Join(folder, "pictures")
	args := []string{"sample", file, "--rows", "1", "--png", pictures, "--results", results}
	succeed(t, args...)
	first := filepath.Join(pictures, "000000.png")
	whole, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	var small, grey bytes.Buffer
	if err := png.Encode(&small, image.NewGray(image.Rect(0, 0, 3, 3))); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&grey, image.NewGray(image.Rect(0, 0, 32, 32))); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte("tEXtseed"))
	text := append(bytes.Clone(whole[:at-4]), whole[at-4+12+int(binary.BigEndian.Uint32(whole[at-4:])):]...)
	for content, want := range map[string]string{
		"":                            "cannot be read as an image",
		"no image":                    "cannot be read as an image",
		string(whole[:200]):           "cannot be read as an image",
		small.String():                "has 3×3 pixels, where 32×32 are to be written",
		grey.String():                 "has other pixels than are to be written",
		string(text):                  "has the same pixels, and other texts (seed) than are to be written",
		strings.Repeat("a", 2e6):      "is larger than this image can be",
		string(whole[:len(whole)-20]): "cannot be read as an image",
	} {
		tiny.Write(t, first, content)
		message, status := failed(t, args...)
		if now, err := os.ReadFile(first); status != statusFailed || err != nil || string(now) != content || !strings.Contains(message, first+" is there and "+want) {
			t.Errorf("%.20q: status %d, kept %v, no %q in %s", content, status, string(now) == content, want, message)
		}
	}
	tiny.Write(t, first, string(whole))
	if message := fail(t, "sample", file, "--rows", "2", "--png", pictures, "--results", results); !strings.Contains(message, "is there and has ") {
		t.Error(message)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sample", file, "--png", file}, "--png: " + file + " is a file, expected a folder"},
		{[]string{"sample", file, "--png", ""}, "is empty, expected a path"},
		{[]string{"sample", file, "--names", "file"}, "--names names the files of --png DIR, which is not given"},
		{[]string{"sample", file, "--png", pictures, "--names", "prompt"}, `--names is "prompt", expected index or file`},
		{[]string{"sample", file, "--png", pictures, "--names", "file"}, "its prompts have no file names"},
		{[]string{"sample", tiny.Reference()}, "--png DIR writes them to files"},
		{[]string{"sample", tiny.Reference(), "samples=3", "--png", pictures}, "accepts 1 arg"},
		{[]string{"sample", tiny.Reference(), "--rows", "1", "--png", pictures}, "--rows is of what draws an experiment"},
		{[]string{"sample", tiny.Reference(), "--names", "file", "--png", pictures}, "has no names of files"},
		{[]string{"sample", file, "labels=[10]", "--results", results}, "labels: class 10 is none of the network's, which are 0 to 9"},
		{[]string{"plan", file, "labels={0: 1, 1: 2}"}, "asks for 3 images of 2 classes together, and samples is 2"},
	} {
		if message, status := failed(t, c.args...); status != statusMisuse || !strings.Contains(message, c.want) {
			t.Errorf("%v: status %d, no %q in %s", c.args, status, c.want, message)
		}
	}
}

// An .npz file is written to PNG files without drawing anything.
func TestArrayToFiles(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "samples: 8", "samples: 5", "steps: 2", "steps: 1", "sweep: {guidance.sag.scale: [0, 0.5]}\n", "labels: {3: 2, 8: 3}\n")
	results, pictures := filepath.Join(folder, "results"), filepath.Join(folder, "pictures")
	succeed(t, "sample", file, "--results", results)
	samples := globOne(t, filepath.Join(results, "tiny", "*", "samples", "*.npz"))
	succeed(t, "sample", samples, "--png", pictures)
	all, labels := drawnPixels(t, filepath.Join(results, "tiny"), ""), drawnLabels(t, samples)
	counts := map[int64]int{}
	for i, label := range labels {
		counts[label]++
		pixels, texts := pictureAt(t, filepath.Join(pictures, fmt.Sprintf("%06d.png", i)))
		if size := 32 * 32 * 3; !bytes.Equal(pixels, all[i*size:(i+1)*size]) {
			t.Errorf("picture %d has other pixels than the array", i)
		}
		if want := fmt.Sprintf("map[image:%d label:%d source:%s]", i, label, filepath.Base(samples)); fmt.Sprint(texts) != want {
			t.Errorf("picture %d tells %v, want %s", i, texts, want)
		}
	}
	if fmt.Sprint(counts) != "map[3:2 8:3]" {
		t.Errorf("images of each class: %v", counts)
	}
	if found, _ := filepath.Glob(filepath.Join(pictures, "*")); len(found) != 5 {
		t.Errorf("%d files", len(found))
	}
	if message := fail(t, "sample", file[:len(file)-5]+".npz", "--png", pictures); !strings.Contains(message, "no such file") {
		t.Error(message)
	}
	plan := succeed(t, "plan", file, "labels=random", "samples=40", "--results", results).stdout.String()
	if !strings.Contains(plan, "labels: random, with replacement: ") {
		t.Errorf("the plan does not tell of labels:\n%s", plan)
	}
	if plan = succeed(t, "plan", file, "--results", results).stdout.String(); !strings.Contains(plan, "labels: so many images of each class: 3 of class 8, 2 of class 3") {
		t.Errorf("the plan of what is drawn does not tell of labels:\n%s", plan)
	}
}

// Labels are those of the images whatever the batch, and however often a run is killed.
func TestLabelsOfRuns(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "samples: 8", "samples: 7", "steps: 2", "steps: 1", "sweep: {guidance.sag.scale: [0, 0.5]}\n", "sweep: {labels: [random, balanced, [7, 3, 3]]}\n")
	want := ""
	for _, batch := range []string{"3", "7"} {
		results := filepath.Join(folder, "batch"+batch)
		if batch == "3" {
			interrupted(t, os.Kill, results, 2, "sample", file, "batch=3").status(t)
		}
		succeed(t, "sample", file, "batch="+batch, "--results", results)
		got := ""
		for _, row := range []string{"labels=random-*", "labels=balanced-*", "labels=-7,-3,-3-*"} {
			got += fmt.Sprint(drawnLabels(t, filepath.Join(results, "tiny", row, "samples", "*.npz")), drawnPixels(t, filepath.Join(results, "tiny"), strings.TrimSuffix(row, "-*")))
		}
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "[0 1 2 3 4 5 6]") || !strings.Contains(got, "[7 3 3 7 3 3 7]") {
			t.Errorf("batch %s: other labels or pixels", batch)
		}
	}
	more := filepath.Join(folder, "batch7") // more images go on with the same run
	succeed(t, "run", file, "metrics=[]", "samples=9", "--rows", "2", "--results", more)
	if got := fmt.Sprint(drawnLabels(t, filepath.Join(more, "tiny", "labels=balanced-*", "samples", "*.npz"))); got != "[0 1 2 3 4 5 6 7 8]" {
		t.Errorf("balanced labels of 9 images: %s", got)
	}
}

// The transformer draws so many images of each class, the same ones whatever the batch.
func TestCountedLabelsOfDiT(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "dit.yaml")
	tiny.Write(t, file, strings.ReplaceAll(`name: dit
samples: 5
metrics: []
model: {family: dit, checkpoint: ROOT/dit.pt, depth: 6, hidden_size: 128, input_size: 16, learn_sigma: true, num_classes: 10,
  num_heads: 4, patch_size: 2, vae: ROOT/sd/vae, vae_scaling_factor: 1.049873}
sampler: {ddpm: {steps: 1}}
guidance: {cfg: {scale: 1.5, channels: 3}}
labels: {2: 3, 9: 2}
`, "ROOT", tiny.Root()+"/models/pretrained"))
	var want []uint8
	for _, batch := range []string{"1", "3"} {
		results := filepath.Join(folder, batch)
		said := succeed(t, "sample", file, "batch="+batch, "--results", results)
		if !strings.Contains(said.stderr.String(), "labels: so many images of each class: 3 of class 2, 2 of class 9") {
			t.Errorf("nothing about labels in\n%s", &said.stderr)
		}
		labels := drawnLabels(t, filepath.Join(results, "dit", "*", "samples", "*.npz"))
		if got := fmt.Sprint(labels); got != "[2 9 2 9 2]" {
			t.Errorf("labels %s", got)
		}
		pixels := drawnPixels(t, filepath.Join(results, "dit"), "")
		if want == nil {
			want = pixels
		}
		if !bytes.Equal(pixels, want) {
			t.Errorf("batch %s: other pixels", batch)
		}
	}
	plan := succeed(t, "plan", file, "labels=balanced").stdout.String()
	if !strings.Contains(plan, "1 of each of classes 0 to 4, none of the other 5") {
		t.Errorf("the plan does not tell of classes without images:\n%s", plan)
	}
}

// Images that are drawn from COCO's captions are called as COCO's, and tell which caption
// they are of; their scores are those of the row.
func TestCaptionsToFiles(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "captioned.yaml")
	captions := filepath.Join(folder, "captions.json")
	tiny.Write(t, captions, `{"images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}, {"id": 73, "file_name": "COCO_val2014_000000000073.jpg"}, {"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}],
"annotations": [{"id": 1, "image_id": 42, "caption": "a photo of a bag"}, {"id": 2, "image_id": 73, "caption": "a photo of a größer coat"}, {"id": 3, "image_id": 9, "caption": "a photo of a dress"}]}`)
	tiny.Write(t, file, `name: captioned
samples: 4
batch: 3
metrics: [fid]
reference: `+tiny.Reference()+`
inception: {checkpoint: `+tiny.Root()+`/models/pretrained/inception.pt, input_size: 107}
model: {family: sd, checkpoint: `+tiny.Root()+`/models/pretrained/sd}
sampler: {ddpm: {steps: 1}}
guidance: {cfg: {scale: 3}}
prompts_file: captions.json
prompts_draw: {number: 3, seed: 2}
negative_prompt: dark
`)
	results, pictures := filepath.Join(folder, "results"), filepath.Join(folder, "pictures")
	const drawn = "prompts: 3 drawn from 3 images, of each one caption, in captions.json (sha256 "
	if plan := succeed(t, "plan", file, "--results", results).stdout.String(); !strings.Contains(plan, drawn) {
		t.Errorf("the plan does not tell of the draw:\n%s", plan)
	}
	succeed(t, "run", file, "--results", results)
	succeed(t, "sample", file, "--results", results, "--png", pictures, "--names", "file")
	run := filepath.Dir(globOne(t, filepath.Join(results, "captioned", "*", "metrics.json")))
	if data, err := os.ReadFile(filepath.Join(run, "metrics.json")); err != nil || !strings.Contains(string(data), drawn) || !strings.Contains(string(data), `"prompts_draw":`) {
		t.Errorf("the result does not tell of the draw: %v\n%s", err, data)
	}
	all := drawnPixels(t, filepath.Join(results, "captioned"), "")
	lines := strings.Split(strings.TrimSpace(string(mustRead(t, filepath.Join(run, "prompts.jsonl")))), "\n")
	if len(lines) != 3 {
		t.Errorf("prompts.jsonl: %q", lines)
	}
	for i := range 4 {
		var line struct {
			Prompt   string
			Negative string `json:"negative_prompt"`
			FileName string `json:"file_name"`
		}
		if err := json.Unmarshal([]byte(lines[i%3]), &line); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(line.FileName, ".jpg")
		if i == 3 {
			name += "-1"
		}
		pixels, texts := pictureAt(t, filepath.Join(pictures, name+".png"))
		if size := len(all) / 4; !bytes.Equal(pixels, all[i*size:(i+1)*size]) {
			t.Errorf("%s is not image %d", name, i)
		}
		if texts["image"] != strconv.Itoa(i) || texts["prompt"] != line.Prompt || texts["negative_prompt"] != "dark" || line.Negative != "dark" || texts["file_name"] != line.FileName {
			t.Errorf("%s tells %q, want %+v", name, texts, line)
		}
	}
	// Away from the file of prompts the scores cannot be computed again, which is told and no fault.
	if said := succeed(t, "verify", results).stdout.String(); !strings.Contains(said, "scores not computed again: ") || !strings.Contains(said, "captions.json: no such file") {
		t.Error(said)
	}
	// What a run was drawn from is a file of prompts.
	again := filepath.Join(folder, "again")
	succeed(t, "sample", file, "prompts_draw=null", "prompts_file="+filepath.Join(run, "prompts.jsonl"), "negative_prompt=null", "--results", again)
	if !bytes.Equal(drawnPixels(t, filepath.Join(again, "captioned"), ""), all) {
		t.Error("from prompts.jsonl other images are drawn")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A process that is killed leaves whole files, and the next one writes the others.
func TestKilledWhileWriting(t *testing.T) {
	folder := t.TempDir()
	const n = 600
	pixels := make([]uint8, n*32*32*3)
	for i := range pixels {
		pixels[i] = uint8(i * i >> 7)
	}
	array, want, pictures := filepath.Join(folder, "array.npz"), filepath.Join(folder, "want"), filepath.Join(folder, "pictures")
	if err := tiny.WriteImages(array, pixels, n, 32, 32); err != nil {
		t.Fatal(err)
	}
	succeed(t, "sample", array, "--png", want)
	p := program("sample", array, "--png", pictures)
	p.start(t)
	there := func() int {
		found, _ := filepath.Glob(filepath.Join(pictures, "??????.png"))
		return len(found)
	}
	for deadline := time.Now().Add(time.Minute); there() < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no 20 files after a minute")
		}
	}
	p.Process.Kill()
	p.status(t)
	left := there()
	whole := tiny.Tree(t, want)
	for name, sum := range tiny.Tree(t, pictures) {
		if !strings.HasPrefix(name, ".") && whole[name] != sum {
			t.Errorf("%s is not whole", name)
		}
	}
	said := succeed(t, "sample", array, "--png", pictures).stderr.String()
	if !strings.Contains(said, fmt.Sprintf("600 pictures in %s, %d of which were there", pictures, left)) {
		t.Errorf("%d were there: %s", left, said)
	}
	tiny.Same(t, tiny.Tree(t, pictures), whole)
}
