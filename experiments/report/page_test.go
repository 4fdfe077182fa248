package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/experiments/store"
)

// pageResults writes an experiment of two labels and three settings with draws
// and images, and a label whose text is hostile.
func pageResults(t *testing.T, drawn bool) string {
	t.Helper()
	results := t.TempDir()
	for i, label := range []string{"ADM", `<img src=x onerror="alert(1)">`} {
		for j, s := range []string{"0", "0.5", "0.8"} {
			row := 3*i + j
			m := scored("e", row, label, s, 5+float64(row)/4, 3-float64(j)/10, 0.8)
			m.Run, m.Samples, m.Evaluation = fmt.Sprintf("%010d", row), 100, "same"
			m.Folder = filepath.Join(results, "e", fmt.Sprintf("row%d-%s", row, m.Run))
			m.Config = []byte(`{"seed":0,"model":{"family":"adm"},"sampler":{"ddim":{"steps":10}},"guidance":{"sag":{"scale":` + s + `,"blur_sigma":3}}}`)
			m.Scores = append(m.Scores, store.Score{Name: "recall", Title: "Recall", Value: 0.7 - float64(j)/20, Direction: store.HigherIsBetter, Decimals: 2})
			if drawn {
				m.Bootstrap = 50
				r := &store.Replicates{Values: map[string][]float64{}}
				for k := range m.Scores {
					draws := make([]float64, 50)
					for b := range draws {
						draws[b] = m.Scores[k].Value + float64(b*17%50-25)/100
					}
					interval := eval.NewInterval(m.Scores[k].Value, draws)
					m.Scores[k].Interval = &interval
					r.Names = append(r.Names, m.Scores[k].Name)
					r.Values[m.Scores[k].Name] = draws
				}
				if err := r.Write(m.Folder); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Write(m.Folder); err != nil {
				t.Fatal(err)
			}
			writeImages(t, filepath.Join(m.Folder, "samples", "samples_100x8x8x3.npz"), 0, 100, 8, row)
		}
	}
	return results
}

// The page holds everything in itself, is the same bytes each time, and shows
// hostile labels as text.
func TestPage(t *testing.T) {
	results := pageResults(t, true)
	paths, err := Page(t.Context(), []string{results}, PageOptions{})
	if err != nil || len(paths) != 1 || paths[0] != filepath.Join(results, "e", PageFile) {
		t.Fatal(paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.html")
	if _, err := Page(t.Context(), []string{filepath.Join(results, "e")}, PageOptions{Output: again}); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(again); !bytes.Equal(data, second) {
		t.Error("two pages of the same results differ")
	}
	if len(data) > 5<<20 {
		t.Errorf("%d bytes", len(data))
	}
	for _, bad := range []string{"<img src=x", "ZgotmplZ", ">NaN", `"NaN`} {
		if bytes.Contains(data, []byte(bad)) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, address := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllSubmatch(data, -1) {
		if a := string(address[1]); !strings.HasPrefix(a, "data:") && !strings.HasPrefix(a, "#") {
			t.Errorf("the page refers to %q", a)
		}
	}
	for _, want := range []string{"s = 0.5 changes FID by", "Differences are to s = 0", `alt="image 7, ADM s=0.8"`, `class="band"`, "from seed 0 by ddim (steps 10)", "hong2023improving", `download="table.csv"`} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// Without draws the page makes no statement, and draws no band; without images it
// says so.
func TestPageWithoutDraws(t *testing.T) {
	results := pageResults(t, false)
	for _, found := range []string{"row0-0000000000"} {
		if err := os.RemoveAll(filepath.Join(results, "e", found, "samples")); err != nil {
			t.Fatal(err)
		}
	}
	output := filepath.Join(t.TempDir(), "page.html")
	if _, err := Page(t.Context(), []string{results}, PageOptions{Output: output}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(output)
	for _, bad := range []string{`class="band"`, "changes FID", "▲ better"} {
		if bytes.Contains(data, []byte(bad)) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, want := range []string{"Nothing can be said about differences", "bootstrap=200", "The images are not shown"} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// The band of a panel stands where metrics.json's interval is, read with the ticks
// of the axis.
func TestPageBands(t *testing.T) {
	results := pageResults(t, true)
	rows, err := store.FindMetrics(results)
	if err != nil {
		t.Fatal(err)
	}
	data, err := pageOf(t.Context(), rows, false)
	if err != nil {
		t.Fatal(err)
	}
	svg := regexp.MustCompile(`(?s)<svg.*?</svg>`).Find(data) // FID of ADM
	var ticks [][2]float64                                    // pixel, value
	for _, m := range regexp.MustCompile(`<text x="42.0" y="([\d.]+)" class="quiet" text-anchor="end">([\d.]+)</text>`).FindAllSubmatch(svg, -1) {
		y, _ := strconv.ParseFloat(string(m[1]), 64)
		v, _ := strconv.ParseFloat(string(m[2]), 64)
		ticks = append(ticks, [2]float64{y - 3.5, v})
	}
	if len(ticks) < 2 {
		t.Fatalf("%d ticks in %s", len(ticks), svg)
	}
	a, b := ticks[0], ticks[len(ticks)-1]
	value := func(y float64) float64 { return a[1] + (y-a[0])/(b[0]-a[0])*(b[1]-a[1]) }
	band := regexp.MustCompile(`class="band" d="([^"]*)"`).FindSubmatch(svg)
	if band == nil {
		t.Fatalf("no band in %s", svg)
	}
	var heights []float64
	for _, m := range regexp.MustCompile(`[ML][\d.]+ ([\d.]+)`).FindAllSubmatch(band[1], -1) {
		y, _ := strconv.ParseFloat(string(m[1]), 64)
		heights = append(heights, value(y))
	}
	if len(heights) != 6 {
		t.Fatalf("%d corners", len(heights))
	}
	for i, m := range rows[:3] {
		s, _ := m.Score("fid")
		if high := heights[i]; math.Abs(high-s.Interval.High) > 0.02 {
			t.Errorf("row %d: the band ends at %g, metrics.json says %g", i, high, s.Interval.High)
		}
		if low := heights[5-i]; math.Abs(low-s.Interval.Low) > 0.02 {
			t.Errorf("row %d: the band begins at %g, metrics.json says %g", i, low, s.Interval.Low)
		}
	}
}

// A page is of one experiment.
func TestPageOfSeveral(t *testing.T) {
	results := t.TempDir()
	for _, name := range []string{"a", "b"} {
		m := scored(name, 0, "", "0", 5, 3, 0.8)
		m.Folder = filepath.Join(results, name, "row")
		m.Config = []byte("{}")
		if err := m.Write(m.Folder); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Page(t.Context(), []string{results}, PageOptions{Output: filepath.Join(t.TempDir(), "x.html")}); err == nil || !strings.Contains(err.Error(), "2 experiments") {
		t.Error(err)
	}
	if paths, err := Page(t.Context(), []string{results}, PageOptions{}); err != nil || len(paths) != 2 {
		t.Error(paths, err)
	}
}
