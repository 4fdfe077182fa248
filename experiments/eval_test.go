package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/npz"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// A classed set is an array of images and their classes.
type classed struct {
	side   int
	pixels []uint8 // [N,side,side,3]
	labels []int64
}

// embedded are the first images of the embedded reference.
func embedded(t *testing.T, n int) classed {
	t.Helper()
	f, err := npz.Open(filepath.Join(tiny.Root(), "models/pretrained/reference.npz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := classed{side: 32}
	a, err := f.Array("arr_0")
	if err != nil {
		t.Fatal(err)
	}
	s.pixels = make([]uint8, n*32*32*3)
	if _, err := npz.ReadRows(a, s.pixels); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if a, err = f.Array("arr_1"); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	all, err := npz.ReadAll[int64](a, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	s.labels = all[:n]
	return s
}

// of are the images whose numbers and classes a test holds for.
func (s classed) of(choose func(i int, class int64) bool) classed {
	out, size := classed{side: s.side}, s.side*s.side*3
	for i, class := range s.labels {
		if choose(i, class) {
			out.pixels = append(out.pixels, s.pixels[i*size:(i+1)*size]...)
			out.labels = append(out.labels, class)
		}
	}
	return out
}

// noisy are the images with a pattern on them.
func (s classed) noisy() classed {
	out := classed{side: s.side, pixels: slices.Clone(s.pixels), labels: s.labels}
	seed := uint32(1)
	for i := range out.pixels {
		seed = 1664525*seed + 1013904223
		out.pixels[i] ^= uint8(seed >> 27)
	}
	return out
}

// write writes an .npz, with labels or without.
func (s classed) write(t *testing.T, path string, labels bool) string {
	t.Helper()
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := npz.WriteArray(w, "arr_0", s.pixels, len(s.labels), s.side, s.side, 3); err != nil {
		t.Fatal(err)
	}
	if labels {
		if err := npz.WriteArray(w, "arr_1", s.labels, len(s.labels)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return path
}

// folder writes the images as PNG, and name says below which path.
func (s classed) folder(t *testing.T, path string, name func(i int, class int64) string) string {
	t.Helper()
	for i, class := range s.labels {
		im := image.NewNRGBA(image.Rect(0, 0, s.side, s.side))
		for p := range s.side * s.side {
			v := s.pixels[(i*s.side*s.side+p)*3:]
			im.SetNRGBA(p%s.side, p/s.side, color.NRGBA{v[0], v[1], v[2], 255})
		}
		var out bytes.Buffer
		if err := png.Encode(&out, im); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, filepath.FromSlash(name(i, class)))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// readJSON decodes a file.
func readJSON[T any](t *testing.T, path string) (out T) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// classImages is how many images of the embedded reference TestPerClass takes; with the
// build tag slow all of them.
var classImages = 600

// The scores of single classes are those of separate calls, to the last digit.
func TestPerClass(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	all := embedded(t, classImages)
	ref, gen := all, all.of(func(i int, _ int64) bool { return i%3 > 0 }).noisy()
	paths := []string{ref.write(t, in("ref.npz"), true), gen.write(t, in("gen.npz"), true)}
	if classImages == 10_000 {
		paths[0] = filepath.Join(tiny.Root(), "models/pretrained/reference.npz") // whose statistics are of all classes
	}
	options := append(slices.Clone(embeddedInception), "--metrics", "fid,sfid,precision,recall,is")
	p := succeed(t, slices.Concat([]string{"eval", "--per-class", "--json", in("all.json"), "--csv", in("all.csv")}, paths, options)...)
	e := readJSON[store.Evaluation](t, in("all.json"))
	if len(e.PerClass.Classes) != 10 || len(e.Scores) != 5 {
		t.Fatalf("%d classes, %d scores\n%s", len(e.PerClass.Classes), len(e.Scores), &p.stderr)
	}
	if !strings.Contains(p.stdout.String(), "by class: gen.npz, the worst FID first") || !strings.Contains(strings.Join(e.Notes, "\n"), "by class there is no IS, which does not look at the reference") {
		t.Errorf("%s\n%q", &p.stdout, e.Notes)
	}
	lines, err := os.ReadFile(in("all.csv"))
	if err != nil || strings.Count(string(lines), "\n") != 1+5+4*10 {
		t.Errorf("%v\n%s", err, lines)
	}
	for k, c := range e.PerClass.Classes {
		if k > 0 && c.Scores[0].Value > e.PerClass.Classes[k-1].Scores[0].Value {
			t.Errorf("class %s is worse than the one before it", c.Class)
		}
		own := func(_ int, class int64) bool { return fmt.Sprint(class) == c.Class }
		r, g := ref.of(own).write(t, in("r"+c.Class+".npz"), false), gen.of(own).write(t, in("g"+c.Class+".npz"), false)
		alone := evaluated(t, slices.Concat([]string{r, g}, options)...)
		if alone.Samples != c.Samples || alone.Inputs["reference"].Images.Count != c.Reference {
			t.Errorf("class %s: %d and %d images, alone %d", c.Class, c.Samples, c.Reference, alone.Samples)
		}
		for i, name := range []string{"fid", "sfid", "precision", "recall"} {
			if c.Scores[i].Name != name || alone.Scores[i].Name != name || c.Scores[i].Value != alone.Scores[i].Value {
				t.Errorf("class %s: %s %v, alone %s %v", c.Class, c.Scores[i].Name, c.Scores[i].Value, alone.Scores[i].Name, alone.Scores[i].Value)
			}
		}
	}
}

// Classes are folders as well; those that one side lacks are named; few images are told.
func TestPerClassOfFolders(t *testing.T) {
	folder := t.TempDir()
	all := embedded(t, 120)
	ref := all.write(t, filepath.Join(folder, "ref.npz"), true)
	name := func(i int, class int64) string {
		if class == 9 {
			return fmt.Sprintf("nine/%03d.png", i)
		}
		return fmt.Sprintf("%d/%03d.png", class, i)
	}
	some := all.of(func(_ int, class int64) bool { return class >= 7 || class == 1 }).noisy().folder(t, filepath.Join(folder, "gen"), name)
	out := filepath.Join(folder, "e.json")
	p := succeed(t, slices.Concat([]string{"eval", ref, some, "--per-class", "--metrics", "fid, precision, kid: {subset_size: 25}", "--json", out}, embeddedInception)...)
	e := readJSON[store.Evaluation](t, out)
	var classes []string
	for _, c := range e.PerClass.Classes {
		classes = append(classes, c.Class)
		if len(c.Failed) != 1 || c.Failed[0].Metric != "kid" || !strings.Contains(c.Failed[0].Reason, "images on either side") {
			t.Errorf("%+v", c)
		}
	}
	slices.Sort(classes)
	if got := strings.Join(classes, " "); got != "1 7 8" || strings.Join(e.PerClass.OnlySamples, " ") != "nine" || strings.Join(e.PerClass.OnlyReference, " ") != "0 2 3 4 5 6 9" {
		t.Errorf("classes %s, %+v", got, e.PerClass)
	}
	for _, want := range []string{"classes of ref.npz alone (7), which have no scores: 0, 2, 3, 4, 5, 6, 9", "classes of gen alone (1), which have no scores: nine", "3 of 3 classes have no more images, on one side, than the 256 features"} {
		if !strings.Contains(strings.Join(e.Notes, "\n"), want) || !strings.Contains(p.stderr.String(), want) {
			t.Errorf("no %q in %q", want, e.Notes)
		}
	}
	plain := all.write(t, filepath.Join(folder, "plain.npz"), false)
	if message := fail(t, slices.Concat([]string{"eval", ref, plain, "--per-class", "--metrics", "fid"}, embeddedInception)...); !strings.Contains(message, "plain.npz: says nothing of classes: they are the array arr_1") {
		t.Error(message)
	}
}

// Several sets are evaluated as each of them alone; one that fails does not take the
// others with it.
func TestSeveralSets(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	all := embedded(t, 200)
	for _, name := range []string{"1", "2", "3"} {
		if err := os.Mkdir(in(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ref := all.write(t, in("ref.npz"), false)
	a := all.of(func(i int, _ int64) bool { return i < 90 }).noisy().write(t, in("1/samples.npz"), false)
	b := all.of(func(i int, _ int64) bool { return i >= 130 }).noisy().write(t, in("2/samples.npz"), false)
	tiny.Write(t, in("3/broken.npz"), "no archive")
	options := slices.Concat(embeddedInception, []string{"--metrics", "fid,precision", "--bootstrap", "40"})
	p := program(slices.Concat([]string{"eval", ref, a, in("3/broken.npz"), b, "--json", in("all.json"), "--csv", in("all.csv")}, options)...)
	p.start(t)
	if status := p.status(t); status != statusFailed || !strings.Contains(p.stderr.String(), "broken.npz") {
		t.Errorf("exit status %d\n%s", status, &p.stderr)
	}
	found := readJSON[store.Evaluations](t, in("all.json"))
	if len(found.Evaluations) != 2 || len(found.Failed) != 1 || found.Failed[0].Set != "broken.npz" || strings.Contains(found.Failed[0].Reason, folder) {
		t.Fatalf("%+v", found)
	}
	if want := "1/samples.npz 90, 2/samples.npz 70"; len(found.Notes) != 1 || !strings.HasSuffix(found.Notes[0], want) || !strings.Contains(p.stderr.String(), want) {
		t.Errorf("notes %q\n%s", found.Notes, &p.stderr)
	}
	if got := p.stdout.String(); !strings.Contains(got, "│ 1/samples.npz │     90 │") || !strings.Contains(got, "│ 2/samples.npz │     70 │") {
		t.Error(got)
	}
	for i, path := range []string{a, b} {
		succeed(t, slices.Concat([]string{"eval", ref, path, "--json", in("one.json")}, options)...)
		one := readJSON[store.Evaluation](t, in("one.json"))
		own := found.Evaluations[i]
		input := one.Inputs["samples"]
		input.Name = own.Inputs["samples"].Name
		one.Inputs["samples"] = input
		one.Checksum = "" // of the file
		mine, _ := json.Marshal(own)
		alone, _ := json.Marshal(one)
		if !bytes.Equal(mine, alone) {
			t.Errorf("among others:\n%s\nalone:\n%s", mine, alone)
		}
	}
	compared := succeed(t, "compare", in("all.json"), "--metric", "fid").stdout.String()
	if !strings.Contains(compared, "2/samples.npz ") || !strings.Contains(compared, ", unpaired, 70 images against 90\n") || !strings.Contains(compared, "warning: 2/samples.npz has 70 images, 1/samples.npz 90") {
		t.Error(compared)
	}

	before, err := os.ReadFile(in("all.csv"))
	if err != nil || bytes.Count(before, []byte("\n")) != 5 {
		t.Fatalf("%v\n%s", err, before)
	}
	plain := slices.Concat([]string{"eval", ref, b}, embeddedInception, []string{"--metrics", "fid", "--csv", in("all.csv"), "--append"})
	succeed(t, plain...)
	after, err := os.ReadFile(in("all.csv"))
	if err != nil || !bytes.HasPrefix(after, before) || bytes.Count(after, []byte("\n")) != 6 {
		t.Errorf("%v\n%s", err, after)
	}
	tiny.Write(t, in("all.csv"), "other,head\n")
	if message := fail(t, plain...); !strings.Contains(message, `its first line is "other,head", expected "metric,value,`) {
		t.Error(message)
	}
	for want, args := range map[string][]string{
		"is given twice as SAMPLES":         {"eval", ref, a, b, a},
		"--append adds to a file: name it":  {"eval", ref, a, "--append"},
		"two or more: the reference batch":  {"eval", ref},
		"name it with -o FILE.png":          {"eval", ref, a, "--neighbours", "3"},
		"takes one set of SAMPLES, and 2":   {"eval", ref, a, b, "--neighbours", "3", "-o", in("n.png")},
		"are about the picture of":          {"eval", ref, a, "-o", in("n.png")},
		"expected a whole number from 0 to": {"eval", ref, a, "--neighbours", "101", "-o", in("n.png")},
		"expected a name that ends in .png": {"eval", ref, a, "--neighbours", "1", "-o", in("n.jpg")},
	} {
		if message, status := failed(t, append(args, embeddedInception...)...); status != statusMisuse || !strings.Contains(message, want) {
			t.Errorf("exit status %d, %s; want %s", status, message, want)
		}
	}
}

// Sets whose files have the same names are compared in pairs, whatever they lie in; JSON
// goes through a pipe.
func TestComparePairs(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	all := embedded(t, 150)
	ref := all.write(t, in("ref.npz"), false)
	name := func(i int, _ int64) string { return fmt.Sprintf("%03d.png", i) }
	few := all.of(func(i int, _ int64) bool { return i < 60 })
	a, b := few.folder(t, in("a"), name), few.noisy().folder(t, in("b"), name)
	other := few.noisy().folder(t, in("c"), func(i int, _ int64) string { return fmt.Sprintf("x%03d.png", i) })
	options := slices.Concat(embeddedInception, []string{"--metrics", "fid", "--bootstrap", "60"})
	p := program(slices.Concat([]string{"eval", ref, a, b, other, "--json", "-"}, options)...).within(t, `"$0" "$@" | cat > '`+in("piped.json")+`'`)
	p.start(t)
	if status := p.status(t); status != 0 {
		t.Fatal(status, &p.stderr)
	}
	got := succeed(t, "compare", in("piped.json")).stdout.String()
	for _, want := range []string{"b is worse than a in FID: ", ", p < 0.0001 after Holm over 2 comparisons, paired by file name, 60 images each\n", "c is worse than a in FID: ", ", unpaired, 60 images each\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if message := fail(t, "compare", in("piped.json"), ref); !strings.Contains(message, "ref.npz: not a JSON file of `sagbench eval --json`") {
		t.Error(message)
	}
}

// A copy of a reference image among the samples comes first, at the distance 0, and its
// pixels are those of the files.
func TestNeighbours(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	all := embedded(t, 120)
	ref := all.of(func(i int, _ int64) bool { return i < 100 }).write(t, in("ref.npz"), false)
	rest := all.of(func(i int, _ int64) bool { return i >= 100 }).noisy()
	size := 32 * 32 * 3
	copy(rest.pixels[7*size:8*size], all.pixels[42*size:43*size])
	gen := rest.folder(t, in("gen"), func(i int, _ int64) string { return fmt.Sprintf("%02d.png", i) })
	options := slices.Concat(embeddedInception, []string{"--metrics", "fid", "--neighbours", "3", "--closest", "2", "-o", in("n.png"), "--json", in("n.json")})
	p := succeed(t, slices.Concat([]string{"eval", ref, gen}, options)...)
	e := readJSON[store.Evaluation](t, in("n.json"))
	if e.Near == nil || e.Near.Network != "inception" || e.Near.Reference != 100 || len(e.Near.Samples) != 2 || len(e.Near.Samples[1].Nearest) != 3 {
		t.Fatalf("%+v", e.Near)
	}
	first := e.Near.Samples[0]
	if first.Name != "07.png" || first.Index != 7 || first.Nearest[0].Index != 42 || first.Nearest[0].Name != "image 42" || first.Nearest[0].Distance != 0 || first.Nearest[1].Distance <= 0 {
		t.Errorf("%+v, %+v", first.Picture, first.Nearest)
	}
	if want := "1 of 20 samples have exactly the features of a reference image"; !strings.Contains(strings.Join(e.Notes, "\n"), want) || !strings.Contains(p.stdout.String(), "│ 07.png │ image 42 │") {
		t.Errorf("%q\n%s", e.Notes, &p.stdout)
	}
	file, err := os.Open(in("n.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	picture, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	// Both thumbnails, somewhere: every pixel of the image is a square of 2×2.
	found := 0
	bounds := picture.Bounds()
	for y := 0; y+64 <= bounds.Dy(); y++ {
		for x := 0; x+64 <= bounds.Dx(); x++ {
			same := true
			for k := 0; k < 64*64 && same; k++ {
				r, g, b, _ := picture.At(x+k%64, y+k/64).RGBA()
				v := all.pixels[42*size+(k/64/2*32+k%64/2)*3:]
				same = uint8(r>>8) == v[0] && uint8(g>>8) == v[1] && uint8(b>>8) == v[2]
			}
			if same {
				found++
			}
		}
	}
	if found != 2 {
		t.Errorf("the image is %d times in the picture of %v, expected twice", found, bounds)
	}
	statistics := in("statistics.npz")
	succeed(t, slices.Concat([]string{"reference", ref, "-o", statistics, "--images", "0"}, embeddedInception)...)
	if message := fail(t, slices.Concat([]string{"eval", statistics, gen}, options)...); !strings.Contains(message, "statistics.npz: holds statistics or features, and --neighbours shows images") {
		t.Error(message)
	}
	if message := fail(t, slices.Concat([]string{"eval", gen, ref}, options, []string{"--neighbours", "30"})...); !strings.Contains(message, "gen has 20 images, fewer than the 30 neighbours") {
		t.Error(message)
	}
}
