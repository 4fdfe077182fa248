package run

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/models/sd"
	"sagbench/sampling"
)

// promptedExperiment draws with the embedded Stable Diffusion.
const promptedExperiment = `name: prompted
samples: 4
batch: 3
metrics: []
model: {family: sd, checkpoint: MODELS/sd}
sampler: {ddpm: {steps: 2}}
guidance: {cfg: {scale: 3}, sag: {scale: 0.5, blur_sigma: 1, blur_kernel: 5, layer: mid_block.attentions.0.transformer_blocks.0.attn1}}
prompts: [a photo of a bag, a photo of a coat]
`

// writePrompted writes the experiment into a folder, with replacements.
func writePrompted(t *testing.T, folder string, replacements ...string) string {
	t.Helper()
	pretrained := filepath.Join(tiny.Root(), "models/pretrained")
	path := filepath.Join(folder, "prompted.yaml")
	text := strings.NewReplacer(replacements...).Replace(promptedExperiment)
	tiny.Write(t, path, strings.ReplaceAll(text, "MODELS", pretrained))
	return path
}

func loadPrompted(t *testing.T, overrides ...string) *plan.Row {
	t.Helper()
	e, err := plan.Load(writePrompted(t, t.TempDir()), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e.Rows[0]
}

// An encoder counts the texts that are encoded.
type encoder struct {
	*sd.Net
	texts []string
}

func (e *encoder) Encode(ctx context.Context, prompts []string) (sampling.Cond, error) {
	e.texts = append(e.texts, prompts...)
	return e.Net.Encode(ctx, prompts)
}

func (e *encoder) EncodeNegative(ctx context.Context, prompts []string) (sampling.Cond, error) {
	e.texts = append(e.texts, prompts...)
	return e.Net.EncodeNegative(ctx, prompts)
}

// sdxl makes the experiment one of SDXL, on the network of a reference case.
func sdxl() []string {
	return []string{"model=!replace {family: sdxl, checkpoint: " + filepath.Join(tiny.Root(), "experiments/refcase/testdata/cases/sample-sdxl-cfg/model") + "}"}
}

// drawAll draws the images [0, 4) one by one, and tells which texts were encoded.
func drawAll(t *testing.T, overrides ...string) (images [][]uint8, encoded []string) {
	t.Helper()
	r := loadPrompted(t, overrides...)
	m, err := OpenNetwork(r, 0, ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	e := &encoder{Net: m.(*sd.Net)}
	n, err := Assemble(t.Context(), r, []models.Model{e})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		im, err := drawImages(context.Background(), r, n, store.Span{From: i, To: i + 1}, func(int, int) {})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, im.Pixels)
	}
	return images, e.texts
}

// Image i is drawn from prompt i mod n, and a text is encoded once.
func TestPromptsAlternate(t *testing.T) {
	both, encoded := drawAll(t)
	if want := []string{"a photo of a bag", "a photo of a coat"}; !slices.Equal(encoded, want) {
		t.Errorf("encoded %q, want %q", encoded, want)
	}
	bags, _ := drawAll(t, "prompts=[a photo of a bag]")
	coats, _ := drawAll(t, "prompts=[a photo of a coat]")
	for i, want := range [][]uint8{bags[0], coats[1], bags[2], coats[3]} {
		if !bytes.Equal(both[i], want) {
			t.Errorf("image %d is not what its prompt alone gives", i)
		}
		if bytes.Equal(bags[i], coats[i]) {
			t.Errorf("image %d is the same for both prompts", i)
		}
	}
}

// A negative prompt stands for ∅, whether the experiment or the model names it.
func TestNegativePrompt(t *testing.T) {
	for _, family := range [][]string{nil, sdxl()} {
		negativePrompt(t, family)
	}
}

// Images of a batch have negative prompts of their own: each is what it is alone, and
// what a row with that negative prompt draws.
func TestNegativePromptsOfImages(t *testing.T) {
	folder := t.TempDir()
	objects := filepath.Join(folder, "prompts.jsonl")
	tiny.Write(t, objects, `{"prompt": "a photo of a bag", "negative_prompt": "a dark shirt"}
{"prompt": "a photo of a coat"}
{"prompt": "a photo of a bag", "negative_prompt": "grey"}
{"prompt": "a photo of a coat", "negative_prompt": "a dark shirt"}
`)
	for _, family := range [][]string{nil, sdxl()} {
		plain, _ := drawAll(t, family...)
		dark, _ := drawAll(t, append(family, "negative_prompt=a dark shirt")...)
		grey, _ := drawAll(t, append(family, "negative_prompt=grey")...)
		want := [][]uint8{dark[0], plain[1], grey[2], dark[3]}
		for _, given := range [][]string{
			{"prompts=[a photo of a bag, a photo of a coat, a photo of a bag, a photo of a coat]", `negative_prompts=[a dark shirt, "", grey, a dark shirt]`},
			{"prompts=[]", "prompts_file=" + objects},
		} {
			alone, encoded := drawAll(t, append(family, given...)...)
			if texts := []string{"a photo of a bag", "a dark shirt", "a photo of a coat", "grey"}; !slices.Equal(encoded, texts) {
				t.Errorf("encoded %q, want %q", encoded, texts)
			}
			together := drawTogether(t, 4, append(family, given...)...)
			for i := range want {
				if !bytes.Equal(alone[i], want[i]) || !bytes.Equal(together[i], want[i]) {
					t.Errorf("%v: image %d: alone as with its negative prompt for all %v, in a batch %v; want both", given, i, bytes.Equal(alone[i], want[i]), bytes.Equal(together[i], want[i]))
				}
			}
		}
		if bytes.Equal(dark[0], plain[0]) || bytes.Equal(dark[0], grey[0]) {
			t.Error("negative prompts change nothing")
		}
	}
}

// drawTogether draws the first n images as one batch.
func drawTogether(t *testing.T, n int, overrides ...string) (images [][]uint8) {
	t.Helper()
	r := loadPrompted(t, overrides...)
	network, err := OpenRow(t.Context(), r, ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	all, err := drawImages(t.Context(), r, network, store.Span{To: n}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		size := len(all.Pixels) / n
		images = append(images, all.Pixels[i*size:(i+1)*size])
	}
	return images
}

// A negative prompt for which nothing asks is said to change nothing.
func TestIdleNegativePrompt(t *testing.T) {
	for guidance, idle := range map[string]bool{
		"cfg: {scale: 2}": false, "cfg: {scale: 1}": true, "": true, "apg: {cfg_scale: 3}": false,
		"sag: {preset: diffusers}": true, "sag: {preset: diffusers, condition: unconditional}": false,
	} {
		for _, setting := range []string{"negative_prompt=a shirt", "model.negative_prompt=a shirt", `negative_prompts=["", a shirt]`} {
			notes, err := idlePrompt(t.Context(), loadPrompted(t, setting, "guidance=!replace {"+guidance+"}"))
			if err != nil || len(notes) > 0 != idle {
				t.Errorf("%q, %s: %q, %v", guidance, setting, notes, err)
			}
		}
	}
	if notes, err := idlePrompt(t.Context(), loadPrompted(t, "guidance=!replace {}")); err != nil || notes != nil {
		t.Errorf("without a negative prompt: %q, %v", notes, err)
	}
}

func negativePrompt(t *testing.T, family []string) {
	plain, _ := drawAll(t, family...)
	own, encoded := drawAll(t, append(family, "negative_prompt=a dark shirt")...)
	flag, _ := drawAll(t, append(family, "model.negative_prompt=a dark shirt")...)
	if want := []string{"a photo of a bag", "a dark shirt", "a photo of a coat"}; !slices.Equal(encoded, want) {
		t.Errorf("encoded %q, want %q", encoded, want)
	}
	for i := range own {
		if bytes.Equal(own[i], plain[i]) || !bytes.Equal(own[i], flag[i]) {
			t.Errorf("image %d: that without a negative prompt %v, that with the model's %v; want false, true",
				i, bytes.Equal(own[i], plain[i]), bytes.Equal(own[i], flag[i]))
		}
	}
}

// A whole run with prompts writes the same bytes whatever the batch.
func TestPromptedRun(t *testing.T) {
	t.Run("sd", func(t *testing.T) { promptedRun(t, nil) })
	t.Run("sdxl", func(t *testing.T) {
		promptedRun(t, append(sdxl(), "model.negative_original_size=[8,8]", "model.negative_target_size=[64,64]", "negative_prompt=grey"))
	})
}

func promptedRun(t *testing.T, family []string) {
	dir := t.TempDir()
	file := writePrompted(t, dir)
	load := func(overrides ...string) *plan.Experiment {
		e, err := plan.Load(file, append(family, overrides...))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	o := Options{Results: filepath.Join(dir, "none"), Runtime: ort.Options{Threads: 1}, Progress: human.NewProgress(os.Stderr)}
	f, faults, err := Preview(t.Context(), load(), o, true)
	if err != nil || faults != nil || !strings.Contains(f.String(), "4 images in 1 rows: 24 passes") || !strings.Contains(f.String(), "time:  about") {
		t.Errorf("%v, %v, %v", f, faults, err)
	}
	trees := map[string]map[string]string{}
	for _, batch := range []string{"1", "3"} {
		results := filepath.Join(dir, "batch"+batch)
		o.Results = results
		if err := Experiment(t.Context(), load("batch="+batch), o); err != nil {
			t.Fatal(err)
		}
		images := tiny.Tree(t, results)
		for name := range images {
			if !strings.HasSuffix(name, ".npz") {
				delete(images, name) // run.yaml holds the batch
			}
		}
		trees[batch] = images
	}
	if len(trees["1"]) != 1 {
		t.Errorf("%d files of images, want 1", len(trees["1"]))
	}
	tiny.Same(t, trees["3"], trees["1"])
}

func TestPromptedRunIDs(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "captions.txt")
	tiny.Write(t, file, "\ufeffa photo of a bag\r\n\n  a photo of a coat")
	id := func(r *plan.Row) string {
		t.Helper()
		got, err := r.RunID(strings.Repeat("ab", 32))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	golden := "ec45e9ba6a"
	for _, overrides := range [][]string{nil, {"prompts=[]", "prompts_file=" + file}, {"batch=2", "samples=40"}, {`negative_prompt=""`}} {
		if got := id(loadPrompted(t, overrides...)); got != golden {
			t.Errorf("%v: run id %s, want %s", overrides, got, golden)
		}
	}
	seen := map[string]bool{golden: true}
	for _, override := range []string{"prompts=[a photo of a bag]", "prompts=[a photo of a coat, a photo of a bag]", "negative_prompt=blurry", "model.negative_prompt=blurry"} {
		got := id(loadPrompted(t, override))
		if seen[got] {
			t.Errorf("%s has a run id that was there before, %s", override, got)
		}
		seen[got] = true
	}
	for _, overrides := range [][]string{{`prompts=["true", "7", " ~", "", "a: b # c"]`, "negative_prompt=blurry"}, {"prompts=[]", "prompts_file=" + file}} {
		r := loadPrompted(t, overrides...) // run.yaml is the same run
		data, err := r.Document()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, "run.yaml")
		tiny.Write(t, path, string(data))
		again, err := plan.Load(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if got := again.Rows[0]; id(got) != id(r) || !slices.Equal(got.Prompts, r.Prompts) {
			t.Errorf("read again: prompts %q, want %q\n%s", got.Prompts, r.Prompts, data)
		}
	}
}

func TestPromptErrors(t *testing.T) {
	folder := t.TempDir()
	binary, blank := filepath.Join(folder, "binary.txt"), filepath.Join(folder, "blank.txt")
	tiny.Write(t, binary, "a bag\n\xff\xfe\n")
	tiny.Write(t, blank, "\n  \n")
	list := "prompts: [a photo of a bag, a photo of a coat]"
	adm := []string{"{family: sd, checkpoint: MODELS/sd}", "{family: adm, checkpoint: MODELS/adm-uncond.pt}"}
	for name, c := range map[string]struct {
		replace []string
		want    []string
	}{
		"none":              {[]string{list, ""}, []string{"prompted.yaml:5: model", "prompts_file"}},
		"an empty list":     {[]string{list, "prompts: []"}, []string{"prompted.yaml:5: model", "a list of texts"}},
		"both":              {[]string{list, list + "\nprompts_file: x.txt"}, []string{"prompted.yaml:9: prompts_file", "prompted.yaml:8"}},
		"no list":           {[]string{list, "prompts: a bag"}, []string{"prompted.yaml:8: prompts", "list"}},
		"no file":           {[]string{list, "prompts_file: nowhere.txt"}, []string{"prompted.yaml:8: prompts_file", "nowhere.txt", "no such file"}},
		"a folder":          {[]string{list, "prompts_file: " + folder}, []string{"prompted.yaml:8: prompts_file", "is a folder"}},
		"not UTF-8":         {[]string{list, "prompts_file: " + binary}, []string{"prompted.yaml:8: prompts_file", "binary.txt:2", "UTF-8"}},
		"blank lines":       {[]string{list, "prompts_file: " + blank}, []string{"blank.txt holds no text"}},
		"unset variable":    {[]string{list, `prompts_file: "${NOWHERE_SET}/x.txt"`}, []string{"NOWHERE_SET is not set"}},
		"two negatives":     {[]string{"MODELS/sd}", "MODELS/sd, negative_prompt: dark}", list, list + "\nnegative_prompt: blurry"}, []string{"prompted.yaml:9: negative_prompt", "model"}},
		"labels":            {adm, []string{"prompted.yaml:8: prompts", "family adm is not conditioned on text"}},
		"labels, file":      {append([]string{list, "prompts_file: x.txt"}, adm...), []string{"prompted.yaml:8: prompts_file", "family adm"}},
		"labels, negative":  {append([]string{list, "negative_prompt: dark"}, adm...), []string{"prompted.yaml:8: negative_prompt", "family adm"}},
		"a component alone": {[]string{"MODELS/sd}", "MODELS/sd, component: unet}"}, []string{"prompted.yaml:8: prompts", "family sd"}},
	} {
		_, err := plan.Load(writePrompted(t, t.TempDir(), c.replace...), nil)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in %v", name, w, err)
			}
		}
	}
}
