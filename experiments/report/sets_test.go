package report

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// evaluatedSamples is an evaluation of two metrics whose draws are about their values.
func evaluatedSamples(name, names string, n int, fid, recall float64, draws []float64) *store.Evaluation {
	about := func(value, scale float64) (out []float64) {
		for _, d := range draws {
			out = append(out, value+scale*d)
		}
		return out
	}
	return &store.Evaluation{
		Format: store.EvaluationFormat, Protocol: "adm", Samples: n,
		Settings: store.EvaluationSettings{Protocol: "adm", Network: "inception", Resize: "tf", InputSize: 299, Device: "cpu", Bootstrap: len(draws),
			Metrics: []map[string]any{{"fid": map[string]any{"offset": 0}}, {"recall": map[string]any{"k": 3}}}},
		Scores: []store.Score{
			{Name: "fid", Title: "FID", Value: fid, Direction: store.LowerIsBetter, Decimals: 2},
			{Name: "recall", Title: "Recall", Value: recall, Direction: store.HigherIsBetter, Decimals: 2},
		},
		Inputs: map[string]store.Input{
			"reference": {InputFile: store.InputFile{Name: "ref.npz", SHA256: "11"}}, "network": {InputFile: store.InputFile{Name: "inception.pt", SHA256: "22"}},
			"samples": {InputFile: store.InputFile{Name: name, SHA256: "of " + name}},
		},
		Versions: map[string]string{"sagbench": "1"},
		Draws:    &store.EvaluationDraws{Images: n, Names: names, Values: map[string][]float64{"fid": about(fid, 1), "recall": about(recall, 0.01)}},
	}
}

// normal are draws of a normal distribution.
func normal(seed uint64, n int) (out []float64) {
	dice := rand.New(rand.NewPCG(seed, 1))
	for range n {
		out = append(out, dice.NormFloat64())
	}
	return out
}

// writtenSets writes evaluations to files of the names, one each.
func writtenSets(t *testing.T, all ...*store.Evaluation) (paths []string) {
	t.Helper()
	folder := t.TempDir()
	for i, e := range all {
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(folder, fmt.Sprintf("%d.json", i)))
		tiny.Write(t, paths[i], string(data))
	}
	return paths
}

// Two sets of the same file names with the same noise differ by little more than nothing,
// and are told apart; of other names their own noise hides it.
func TestCompareSets(t *testing.T) {
	noise, own := normal(1, 199), normal(2, 199)
	shifted := make([]float64, len(noise))
	for i := range noise {
		shifted[i] = noise[i] + 0.01*own[i]
	}
	a, b := evaluatedSamples("a", "same", 500, 14.1, 0.60, noise), evaluatedSamples("b", "same", 500, 13.9, 0.60, shifted)
	var out strings.Builder
	compare := func(o DifferenceOptions, paths ...string) string {
		t.Helper()
		out.Reset()
		if err := Differences(&out, paths, o); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	terminal := DifferenceOptions{Format: "terminal"}
	got := compare(terminal, writtenSets(t, a, b)...)
	for _, want := range []string{"b is better than a in FID: 13.900 against 14.100, difference −0.200 [", "], p < 0.0001 after Holm over 2 comparisons, paired by file name, 500 images each\n",
		"no difference between b and a is seen in Recall: ", "│ p (Holm) │", "│ < 0.0001 │", "199 draws count no p-value below 0.005 before the correction; in 1 of 2 comparisons none of them is beyond"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	b.Draws.Names = "others"
	got = compare(terminal, writtenSets(t, a, b)...)
	if !strings.Contains(got, "no difference between b and a is seen in FID: ") || !strings.Contains(got, ", unpaired, 500 images each\n") {
		t.Errorf("sets that do not pair:\n%s", got)
	}
	one := compare(DifferenceOptions{Format: "terminal", Metrics: []string{"fid"}}, writtenSets(t, a, b)...)
	if !strings.Contains(one, ", p = ") || strings.Contains(one, "Holm") {
		t.Errorf("one comparison is not corrected:\n%s", one)
	}

	c := evaluatedSamples("c", "same", 400, 20, 0.5, own[:100])
	c.Versions, c.Settings.Device = map[string]string{"sagbench": "2"}, "cuda:0"
	got = compare(DifferenceOptions{Format: "terminal", Baseline: "a", Rows: []string{"3"}}, writtenSets(t, a, b, c)...)
	for _, want := range []string{"c is worse than a in FID: 20.000 against 14.100", ", unpaired, 400 images against 500\n",
		"warning: c has 400 images, a 500: FID, sFID, IS, recall and coverage change with the number", "by different versions", "on different devices (cuda:0, cpu)", "c has 100 draws, a 199: the first 100 of both are compared"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "b and a") {
		t.Errorf("--rows is not heard:\n%s", got)
	}
	csv := compare(DifferenceOptions{Format: "csv"}, writtenSets(t, a, a)...)
	if !strings.HasPrefix(csv, "experiment,row,baseline,metric,value,difference,low,high,verdict,p,p_holm,comparisons,pairs,images,baseline_images\n,1.json: a,0.json: a,fid,14.1,0,0,0,no difference seen,1,1,2,file name,500,500\n") {
		t.Errorf("a set with itself:\n%s", csv)
	}
}

// What was evaluated in different ways is not compared, and the message names in which.
func TestCompareSetsRefuses(t *testing.T) {
	a := evaluatedSamples("a", "same", 500, 14.1, 0.60, normal(1, 40))
	for want, change := range map[string]func(e *store.Evaluation){
		"content of the reference (99…, 11…)": func(e *store.Evaluation) {
			e.Inputs["reference"] = store.Input{InputFile: store.InputFile{Name: "other.npz", SHA256: "99"}}
		},
		"content of the network (99…, 22…)": func(e *store.Evaluation) {
			e.Inputs["network"] = store.Input{InputFile: store.InputFile{Name: "inception.pt", SHA256: "99"}}
		},
		"network (dinov2, inception)":           func(e *store.Evaluation) { e.Settings.Network = "dinov2" },
		"protocol (clean-fid, adm)":             func(e *store.Evaluation) { e.Protocol = "clean-fid" },
		"resize (clean, tf); input size (107, ": func(e *store.Evaluation) { e.Settings.Resize, e.Settings.InputSize = "clean", 107 },
		`options of fid ({"offset":1}, {"off`:   func(e *store.Evaluation) { e.Settings.Metrics[0] = map[string]any{"fid": map[string]any{"offset": 1}} },
		"1.json holds no draws of b: make it anew with `sagbench eval … --bootstrap 200": func(e *store.Evaluation) { e.Draws = nil },
		"or no metric in common; there is nothing to compare":                            func(e *store.Evaluation) { e.Scores = nil },
	} {
		b := evaluatedSamples("b", "same", 500, 13, 0.60, normal(1, 40))
		change(b)
		paths := writtenSets(t, a, b)
		var out strings.Builder
		if err := Differences(&out, paths, DifferenceOptions{Format: "terminal"}); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%v, want %s", err, want)
		}
	}
	paths := writtenSets(t, a)
	for want, c := range map[string]struct {
		paths []string
		o     DifferenceOptions
	}{
		"compare one kind at a time":                                    {append(paths, t.TempDir()), DifferenceOptions{}},
		"no set beside the baseline":                                    {paths, DifferenceOptions{}},
		`there is no row "7"; there are 1: 0.json: a; 2: 0.json: a (2)`: {append(paths, paths...), DifferenceOptions{Baseline: "7"}},
		`there is no metric "kid" in both; known: fid, recall`:          {append(paths, paths...), DifferenceOptions{Metrics: []string{"kid"}}},
	} {
		c.o.Format = "terminal"
		if err := Differences(&strings.Builder{}, c.paths, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Images that are needed: of pairs by the error of the difference, of others by both errors.
func TestNeededOfSets(t *testing.T) {
	up, down := make([]float64, 100), make([]float64, 100) // standard deviation 1.00504
	for i := range up {
		up[i] = float64(1 - i%2*2)
		down[i] = up[i] * 0.9
	}
	a, b := evaluatedSamples("a", "same", 100, 5, 0.5, up), evaluatedSamples("b", "same", 100, 6, 0.5, down)
	var out strings.Builder
	o := DifferenceOptions{Format: "csv", Metrics: []string{"fid"}}
	if err := Needed(&out, writtenSets(t, a, b), o, 0.1); err != nil {
		t.Fatal(err)
	}
	// In pairs (2.801585·0.100504/0.1)²·100 = 792.8; unpaired (2.801585/0.1)²·(1+0.81)·1.010101·100 = 143500.
	if got := out.String(); !strings.Contains(got, ",b,a,fid,100,0.1005") || !strings.HasSuffix(got, ",0.1,793,143500\n") {
		t.Error(got)
	}
	out.Reset()
	b = evaluatedSamples("b", "", 50, 6, 0.5, down)
	if err := Needed(&out, writtenSets(t, a, b), o, 0.1); err != nil {
		t.Fatal(err)
	}
	// (2.801585/0.1)²·(100·1+50·0.81)·1.010101 = 111391.
	if got := out.String(); !strings.HasSuffix(got, ",0.1,111391,111391\n") {
		t.Error(got)
	}
	out.Reset()
	o.Format = "terminal"
	if err := Needed(&out, writtenSets(t, a, b), o, 0.1); err != nil || !strings.Contains(out.String(), "│               – │         111,391 │") {
		t.Error(err, out.String())
	}
}

// Pilot rows tell what more images would tell: the error falls with their root.
func TestTold(t *testing.T) {
	folder := t.TempDir()
	noise := normal(3, 100)
	drawnRow(t, folder, 0, "0", 25, make([]float64, 100))
	m := drawnRow(t, folder, 1, "0.5", 24, noise)
	var out strings.Builder
	if err := Told(&out, folder, map[string]int{"0": 400, "1": 400}); err != nil {
		t.Fatal(err)
	}
	sd := 0.0
	interval := eval.NewInterval(0, noise) // of a normal distribution: 3.92 standard deviations wide
	sd = interval.Half() / 1.96
	var told float64
	if _, err := fmt.Sscanf(out.String(), "tell:  with 400 images a row, differences from %f in FID on, by", &told); err != nil || told < 1.2*sd || told > 1.6*sd {
		t.Errorf("%v, %g for a standard deviation of about %g: half of 2.8 of these\n%s", err, told, sd, &out)
	}
	if !strings.Contains(out.String(), "from 100 draws of the 100 images that are scored, the largest over one pair of rows") {
		t.Error(out.String())
	}
	for what, wanted := range map[string]map[string]int{"one row": {"1": 400}, "others": {"7": 1, "8": 1}, "none": nil} {
		out.Reset()
		if err := Told(&out, folder, wanted); err != nil || out.Len() > 0 {
			t.Errorf("%s: %v, %s", what, err, &out)
		}
	}
	m.Bootstrap = 0
	if err := m.Write(m.Folder); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := Told(&out, folder, map[string]int{"0": 400, "1": 400}); err != nil || out.Len() > 0 {
		t.Errorf("without draws: %v, %s", err, &out)
	}
	if err := Told(&out, filepath.Join(folder, "none"), map[string]int{"0": 1}); err != nil || out.Len() > 0 {
		t.Error(err, &out)
	}
}

// The table of several sets has a row for each, and tells what its cells leave out.
func TestTableOfSets(t *testing.T) {
	a, b := evaluatedSamples("a", "", 1500, 14.1, 0.6, normal(1, 40)), evaluatedSamples("b", "", 400, 13, 0.5, normal(1, 40))
	a.Scores[0].Interval, a.Scores[0].Note, b.Scores[0].Note = &eval.Interval{Low: 13, High: 15}, "k = 3, 1500 images", "k = 3, 400 images"
	b.Scores = b.Scores[:1]
	all := &store.Evaluations{Evaluations: []*store.Evaluation{a, b}}
	var out strings.Builder
	if err := PrintEvaluations(&out, all, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"│ a   │  1,500 │ 14.1000 ± 1.0000 │   0.6000 │\n", "│ b   │    400 │          13.0000 │        – │\n", "\nFID: k = 3\n", "\n±: half the width of the 95 % interval, from 40 draws"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	for _, room := range []int{80, 40} {
		terminal := &narrow{columns: room}
		if err := PrintEvaluations(terminal, all, false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(terminal.String(), "\n") {
			if n := len([]rune(line)); n > room {
				t.Errorf("%d columns in %d: %s", n, room, line)
			}
		}
	}
	csv, err := EvaluationCSV(all, false)
	if err != nil || strings.Count(string(csv), "\n") != 4 || !slices.Contains(strings.Split(string(csv), "\n"), "fid,13,,,,lower,adm,400,ref.npz,11,b,of b") {
		t.Errorf("%v\n%s", err, csv)
	}
}

// A table of classes shows the worst, and all where that is asked for.
func TestTableOfClasses(t *testing.T) {
	e := evaluatedSamples("a", "", 1500, 14.1, 0.6, normal(1, 40))
	e.PerClass = &store.PerClass{}
	for i := range 30 {
		scores := []store.Score{{Name: "fid", Title: "FID", Value: float64(i), Direction: store.LowerIsBetter, Decimals: 2}}
		if i == 29 {
			scores = nil
		}
		e.PerClass.Add(fmt.Sprintf("class %d", i), 50, 1000, scores, nil)
	}
	e.PerClass.Sort()
	all := &store.Evaluations{Evaluations: []*store.Evaluation{e}}
	for verbose, want := range map[bool]string{false: "and 10 classes more: all are in --json and --csv, and here with --verbose\n", true: "│ class 29 │      50 │     1,000 │       – │\n"} {
		var out strings.Builder
		if err := PrintEvaluations(&out, all, verbose); err != nil || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "by class: a, the worst FID first\n") || !strings.Contains(out.String(), "│ class 28 │      50 │     1,000 │ 28.0000 │\n") {
			t.Errorf("%v\n%s", err, &out)
		}
	}
	csv, err := EvaluationCSV(all, true)
	if err != nil || !strings.Contains(string(csv), "sample_sha256,class,class_reference\nfid,14.1,") || !strings.Contains(string(csv), "\nfid,28,,,,lower,adm,50,ref.npz,11,a,of a,class 28,1000\n") {
		t.Errorf("%v\n%s", err, csv)
	}
}

// The same file is no pair where other images of it were chosen; the same images are,
// whatever lies around them.
func TestPairsOfContent(t *testing.T) {
	set := func(content string, seed uint32, file string) evaluatedSet {
		e := evaluatedSamples("s.npz", "", 40, 1, 0.5, normal(1, 40))
		e.Settings.Random, e.Settings.SubsetSeed = 40, seed
		in := store.Input{InputFile: store.InputFile{Name: "s.npz", SHA256: file}}
		if content != "" {
			in.Images = &store.ImagesRead{Count: 40, Content: content}
		}
		e.Inputs["samples"] = in
		return evaluatedSet{Evaluation: e, name: fmt.Sprint(content, seed, file)}
	}
	for _, c := range []struct {
		a, b evaluatedSet
		want string
	}{
		{set("x", 0, "f"), set("y", 1, "f"), ""},
		{set("", 0, "f"), set("", 1, "f"), ""},
		{set("", 1, "f"), set("", 1, "f"), byContent},
		{set("x", 0, "f"), set("x", 0, "g"), byContent},
	} {
		if got := c.a.pairs(c.b); got != c.want {
			t.Errorf("%s and %s are paired by %q, want %q", c.a.name, c.b.name, got, c.want)
		}
		if told := strings.Contains(strings.Join(c.a.remarks(c.b), "\n"), "have the same content"); told != (c.want != "") {
			t.Errorf("%s and %s: %q", c.a.name, c.b.name, c.a.remarks(c.b))
		}
	}
}
