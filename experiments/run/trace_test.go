package run

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/internal/tiny"
	"sagbench/models/ort"
)

// A trace changes no byte of what is drawn, is there for rows that are guided and no
// others, and shows what the method says: where the mask is 0, x̂0 stays; at the last
// step of DDIM the guided x̂0 is the image.
func TestTrace(t *testing.T) {
	drawInto := func(results string, overrides ...string) (folder string, runs []*plan.Run) {
		e, err := plan.Load(filepath.Join(tiny.Root(), "configs/table1-fashion.yaml"), append(overrides,
			"rows=[{model: {checkpoint: "+filepath.Join(tiny.Root(), "models/pretrained/adm-uncond.pt")+"}, sweep: {guidance.sag.scale: [0, 0.5]}}]",
			"sampler={ddim: {steps: 4}}", "samples=3", "batch=2", "metrics=[]"))
		if err != nil {
			t.Fatal(err)
		}
		devnull, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer devnull.Close()
		o := Options{Results: results, Runtime: ort.Options{Threads: 1}, Progress: human.NewProgress(devnull), Work: work.Defaults()}
		if err := Experiment(t.Context(), e, o); err != nil {
			t.Fatal(err)
		}
		folder = filepath.Join(results, e.Name)
		runs, err = e.Identify(folder, store.Hashes{})
		if err != nil {
			t.Fatal(err)
		}
		return folder, runs
	}
	draw := func(overrides ...string) (folder string, runs []*plan.Run) {
		return drawInto(t.TempDir(), overrides...)
	}
	plain, _ := draw("trace=null")
	traced, runs := draw("trace={images: 2, steps: 4}")
	want, got := tiny.Tree(t, plain), tiny.Tree(t, traced)
	name := filepath.Join(filepath.Base(runs[1].Folder), store.TraceFile)
	if _, there := got[name]; !there {
		t.Fatalf("no %s among %d files", name, len(got))
	}
	delete(got, name)
	tiny.Same(t, got, want)

	trace, err := store.ReadTrace(filepath.Join(traced, name))
	if err != nil {
		t.Fatal(err)
	}
	if len(trace.Steps) != 4 || trace.Images != 2 || trace.Height != 32 || trace.Steps[3].Index != 0 || trace.Steps[0].Attention.Shape[1] != 64 {
		t.Fatalf("%d steps of %d images %d×%d", len(trace.Steps), trace.Images, trace.Height, trace.Width)
	}
	blurred := 0
	for _, s := range trace.Steps {
		for n := range trace.Images {
			for at, m := range s.Mask.Row(n) {
				i := n*32*32*3 + 3*at
				same := bytes.Equal(s.XStart[i:i+3], s.Degraded[i:i+3])
				if m == 0 && !same {
					t.Fatalf("step %d, image %d, pixel %d: changed outside the mask", s.Index, n, at)
				}
				if !same {
					blurred++
				}
			}
		}
	}
	if blurred == 0 {
		t.Error("nothing is blurred")
	}
	if err := runs[1].Images.Scan(3, true, func(note string) { t.Error(note) }); err != nil {
		t.Fatal(err)
	}
	image := 0
	err = runs[1].Images.Each(t.Context(), store.Span{To: 2}, func(pixels []uint8) error {
		if !bytes.Equal(pixels, trace.Steps[3].Guided[image*len(pixels):][:len(pixels)]) {
			t.Errorf("image %d is not the guided x̂0 of the last step", image)
		}
		image++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// Of rows that are finished: what is damaged is made anew, what is asked for later
	// as well. Where guidance is off at the steps, there is nothing to show.
	results, path := filepath.Dir(traced), filepath.Join(traced, name)
	want = tiny.Tree(t, traced)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	tiny.Write(t, path, string(data))
	drawInto(results, "trace={images: 2, steps: 4}")
	tiny.Same(t, tiny.Tree(t, traced), want)
	drawInto(results, "trace={images: 1, steps: 2}")
	if fewer, err := store.ReadTrace(path); err != nil || fewer.Images != 1 || len(fewer.Steps) != 2 {
		t.Errorf("another trace: %+v, %v", fewer, err)
	}
	folder, runs := draw("trace={images: 1, steps: 1}", "guidance.sag.start=1")
	empty, err := store.ReadTrace(filepath.Join(folder, filepath.Base(runs[1].Folder), store.TraceFile))
	if err != nil || len(empty.Steps) != 0 || empty.Key == "" {
		t.Errorf("a step without guidance: %+v, %v", empty, err)
	}
}

// Families in continuous time have traces too: at the last step the guided x̂0 is the
// image. An adaptive solver has steps of one image's own.
func TestTraceInContinuousTime(t *testing.T) {
	cases := filepath.Join(tiny.Root(), "experiments/refcase/testdata/cases")
	const (
		edm = "{family: edm, checkpoint: CASES/edm-adm-tiny/model.pkl}"
		sit = "{family: sit, checkpoint: CASES/sample-sit-sag/model.pt, input_size: 8, patch_size: 2, in_channels: 4, hidden_size: 48, depth: 3, num_heads: 4, num_classes: 10, learn_sigma: true, vae: {family: vae, checkpoint: CASES/sample-sit-sag/vae}}"
	)
	for _, c := range []struct{ model, layer, sampler string }{
		{edm, "model.dec.4x4_in0", "{edm: {steps: 3, sigma_min: 0.02}}"},
		{sit, "blocks.1.attn", "{ode: {steps: 4, sampling_method: euler}}"},
		{sit, "blocks.1.attn", "{ode: {steps: 3, sampling_method: dopri5}}"},
	} {
		file := filepath.Join(t.TempDir(), "traced.yaml")
		tiny.Write(t, file, strings.ReplaceAll("name: traced\nsamples: 2\nmetrics: []\nmodel: "+c.model+"\nsampler: "+c.sampler+"\nguidance: {sag: {scale: 0.5, blur_sigma: 1, blur_kernel: 9, layer: "+c.layer+"}}\n", "CASES", cases))
		images := 2
		if strings.Contains(c.sampler, "dopri5") {
			if _, err := plan.Load(file, []string{"trace={images: 2, steps: 9}"}); err == nil || !strings.Contains(err.Error(), "traced.yaml:5: ") || !strings.Contains(err.Error(), "trace.images is 2, expected 1") {
				t.Errorf("two images of %s: %v", c.sampler, err)
			}
			images = 1
		}
		o := options(t, t.TempDir())
		if err := Experiment(t.Context(), load(t, file, fmt.Sprintf("trace={images: %d, steps: 64}", images)), o); err != nil {
			t.Errorf("%s: %v", c.sampler, err)
			continue
		}
		folders, err := filepath.Glob(filepath.Join(o.Results, "traced", "run-*"))
		if err != nil || len(folders) != 1 {
			t.Fatal(folders, err)
		}
		trace, err := store.ReadTrace(filepath.Join(folders[0], store.TraceFile))
		if err != nil {
			t.Fatal(err)
		}
		last := trace.Steps[len(trace.Steps)-1]
		if trace.Images != images || len(trace.Steps) < 2 || last.Index != 0 || bytes.Equal(last.XStart, last.Degraded) {
			t.Fatalf("%s: %d images, %d steps, the last one %d", c.sampler, trace.Images, len(trace.Steps), last.Index)
		}
		if images == 1 { // whose last call is not at its end
			continue
		}
		drawn, err := store.OpenImages(filepath.Join(folders[0], "samples", fmt.Sprintf("samples_2x%dx%dx3.npz", trace.Height, trace.Width)))
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		err = drawn.Each(t.Context(), store.Span{To: 2}, func(pixels []uint8) error {
			if !bytes.Equal(pixels, last.Guided[at:at+len(pixels)]) {
				t.Errorf("%s: an image is not the guided x̂0 of the last step", c.sampler)
			}
			at += len(pixels)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
