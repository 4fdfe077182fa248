package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// swept are rows of four labels at five values of one path, in metrics.json's form.
func swept(t *testing.T, results string) {
	t.Helper()
	labels := []string{"ADM", "IDDPM", "DiT <S/2> & co", "SD"}
	for i, label := range labels {
		for j, scale := range []string{"0", "0.1", "0.3", "0.50", "0.8"} {
			s := float64(j) / 5
			scores := fmt.Sprintf(`{"name": "fid", "title": "FID", "value": %g, "direction": "lower", "decimals": 2}`, 12+3*float64(i)+9*(s-0.3)*(s-0.2*float64(i)))
			if i != 1 { // IDDPM has no IS
				scores += fmt.Sprintf(`, {"name": "is", "title": "IS", "value": %g, "direction": "higher", "decimals": 2}`, 4+s-0.2*float64(i))
			}
			text := fmt.Sprintf(`{"format": 1, "experiment": "sweep", "run": "%02d", "row": %d, "label": %q, "settings": [{"path": "guidance.sag.scale", "value": %q}],
				"samples": 1288, "evaluation": "e", "scores": [%s], "inputs": {"checkpoint": {"name": "", "sha256": ""}, "reference": {"name": "", "sha256": ""}, "inception": {"name": "", "sha256": ""}}, "versions": {}, "config": {}}`,
				5*i+j, 5*i+j, label, scale, scores)
			folder := filepath.Join(results, "sweep", fmt.Sprintf("%s-%s", label[:2], scale))
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, store.MetricsFile), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// plots draws into a folder and returns what it printed.
func plots(results, folder string, formats ...string) (string, error) {
	var out bytes.Buffer
	err := Plots{Formats: formats, Size: usualSize}.Write(&out, folder, []string{results})
	return out.String(), err
}

// An svgPicture is what a test looks at in an SVG file.
type svgPicture struct {
	lines map[string]int // colour → corners of the line of that colour
	texts []string
	fonts []string
}

var thickLine = regexp.MustCompile(`stroke:#([0-9A-F]{6}).*stroke-width:1\.8\b`)

func readSVG(t *testing.T, data []byte) svgPicture {
	t.Helper()
	p := svgPicture{lines: map[string]int{}}
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		at, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		attr := map[string]string{}
		for _, a := range at.Attr {
			attr[a.Name.Local] = a.Value
		}
		switch at.Name.Local {
		case "path":
			if m := thickLine.FindStringSubmatch(attr["style"]); m != nil {
				p.lines[m[1]] = max(p.lines[m[1]], 1+strings.Count(attr["d"], "L"))
			}
		case "text":
			var text string
			if err := d.DecodeElement(&text, &at); err != nil {
				t.Fatal(err)
			}
			p.texts = append(p.texts, text)
			p.fonts = append(p.fonts, attr["style"])
		}
	}
}

// content is a file of the experiment's.
func content(t *testing.T, results, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(results, "sweep", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPlot(t *testing.T) {
	results, out := t.TempDir(), t.TempDir()
	swept(t, results)
	printed, err := plots(results, out, "svg", "png")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range []string{"fid.svg", "fid.png", "is.svg", "is.png"} {
		want = append(want, filepath.Join(out, "sweep", name))
	}
	if got := strings.Fields(printed); !slices.Equal(got, want) {
		t.Fatalf("wrote %q, want %q", got, want)
	}
	first := tiny.Tree(t, out)
	for _, c := range []struct {
		name, yLabel string
		lines        map[string]int
	}{
		{"fid", "FID ↓ (lower is better)", map[string]int{"0072B2": 5, "D55E00": 5, "009E73": 5, "CC79A7": 5}},
		{"is", "IS ↑ (higher is better)", map[string]int{"0072B2": 5, "009E73": 5, "CC79A7": 5}}, // the colours stay the families'
	} {
		got := readSVG(t, content(t, out, c.name+".svg"))
		if fmt.Sprint(got.lines) != fmt.Sprint(c.lines) {
			t.Errorf("%s: lines %v, want %v", c.name, got.lines, c.lines)
		}
		labels := []string{"sweep, 1,288 images a point", "SAG scale s", c.yLabel, "0", "0.1", "0.3", "0.50", "0.8", "ADM", "DiT <S/2> & co", "SD"}
		for _, text := range labels {
			if !slices.Contains(got.texts, text) {
				t.Errorf("%s: no text %q in %q", c.name, text, got.texts)
			}
		}
		if slices.Contains(got.texts, "IDDPM") != (c.name == "fid") {
			t.Errorf("%s: legend %q", c.name, got.texts)
		}
		for _, style := range got.fonts {
			if !strings.HasPrefix(style, "font-family:Liberation Sans,Arial,Helvetica,sans-serif;") {
				t.Errorf("%s: %s", c.name, style)
			}
		}
		image, err := png.Decode(bytes.NewReader(content(t, out, c.name+".png")))
		if err != nil {
			t.Fatal(err)
		}
		if size := image.Bounds(); size.Dx() < 1000 || size.Dy() < 600 {
			t.Errorf("%s: %v", c.name, size)
		}
	}
	if _, err := plots(results, out, "svg", "png"); err != nil {
		t.Fatal(err)
	}
	tiny.Same(t, tiny.Tree(t, out), first)

	if printed, err := plots(filepath.Join(results, "sweep"), results, "svg"); err != nil || strings.Count(printed, "\n") != 2 {
		t.Errorf("%q, %v", printed, err)
	}
	if !bytes.Equal(content(t, results, "fid.svg"), content(t, out, "fid.svg")) {
		t.Error("other bytes beside the tables")
	}
}

// Rows that make no line plot: why is told.
func TestNoPlot(t *testing.T) {
	nan := math.NaN()
	two := func(first, second string) []*store.Metrics {
		return []*store.Metrics{scored("x", 0, "a", first, 1, 2, nan), scored("x", 1, "a", second, 3, nan, 4)}
	}
	both := two("0", "1")
	for i, m := range both {
		m.Settings = append(m.Settings, store.Setting{Path: "seed", Value: fmt.Sprint(i)})
	}
	for want, rows := range map[string][]*store.Metrics{
		"no setting is swept":                                                 {scored("x", 0, "a", "0.5", 1, 2, 3), scored("x", 1, "b", "0.5", 1, 2, 3)},
		"guidance.sag.scale is swept over one value":                          two("0.5", "0.50"),
		"several settings are swept: guidance.sag.scale, seed":                both,
		`is swept over "[0, 1]", which is no number`:                          two("0.5", "[0, 1]"),
		`is swept over "nan", which is no number`:                             two("0.5", "nan"),
		`is swept over "1e300", which is no number`:                           two("0.5", "1e300"),
		"no metric has values at two values":                                  {scored("x", 0, "a", "0", 1, nan, nan), scored("x", 1, "a", "1", nan, 2, nan)},
		`runs bbbbbbbbbb and cccccccccc are both "a" at guidance.sag.scale=1`: append(two("0", "1"), scored("x", 2, "a", "1.0", 5, 6, 7)),
		`its name is no folder's: "../x"`:                                     {scored("../x", 0, "a", "0", 1, 2, 3), scored("../x", 1, "a", "1", 1, 2, 3)},
	} {
		figures, err := figuresOf(rows)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d figures, %v; want %q", len(figures), err, want)
		}
		folder := t.TempDir()
		if err := writePlots(folder, rows); err != nil {
			t.Error(err)
		}
		if got := tiny.Tree(t, folder); len(got) != 0 {
			t.Errorf("%s: wrote %d files", want, len(got))
		}
		var out bytes.Buffer
		if err := (Plots{Formats: []string{"svg"}, Size: usualSize}).each(&out, folder, rows); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("plot: %v, want %q", err, want)
		}
	}
	for _, formats := range [][]string{{"eps"}, nil} {
		if _, err := plots("x", "out", formats...); err == nil || !strings.Contains(err.Error(), "expected one of pdf, png, svg") {
			t.Errorf("%q: %v", formats, err)
		}
	}

	// One experiment that makes plots is enough; the other is mentioned.
	var out bytes.Buffer
	rows := append([]*store.Metrics{scored("alone", 0, "a", "0.5", 1, 2, 3)}, two("0", "1")...)
	if err := (Plots{Formats: []string{"svg"}, Size: usualSize}).each(&out, t.TempDir(), rows); err != nil || !strings.Contains(out.String(), "plot: alone: no setting") || !strings.Contains(out.String(), "fid.svg") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// No picture holds a coordinate that is no number, whatever the values.
func TestPlotValues(t *testing.T) {
	nan := math.NaN()
	long := strings.Repeat("a label that is too long ", 9)
	for name, rows := range map[string][]*store.Metrics{
		"equal":    {scored("x", 0, "", "0", 5, 1, 0), scored("x", 1, "", "1", 5, 1, 0)},
		"missing":  {scored("x", 0, "a", "0", 5, nan, 1), scored("x", 1, "a", "1", 6, 2, 1), scored("x", 2, "b", "0", nan, 3, 1)},
		"extreme":  {scored("x", 0, "a", "-1e99", 1e99, -1e99, 1e-300), scored("x", 1, "a", "1e99", -1e99, 1e98, 2e-300), scored("x", 2, "b", "0", 1e200, math.Inf(1), 0)},
		"close":    {scored("x", 0, "a", "1", 1, 1e9, 1e-9), scored("x", 1, "a", "1.0000000000000002", 1.0000000000000002, 1e9+1, 2e-9)},
		"negative": {scored("x", 0, long, "-0", -1, -1e-3, -1000), scored("x", 1, long, "1", 1, 1e-3, 12345678)},
	} {
		figures, err := figuresOf(rows)
		if err != nil || len(figures) == 0 {
			t.Errorf("%s: %d figures, %v", name, len(figures), err)
		}
		for _, f := range figures {
			data, err := f.svg()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte("NaN")) || bytes.Contains(data, []byte("Inf")) {
				t.Errorf("%s, %s: a coordinate is no number:\n%s", name, f.metric, data)
			}
			if got := readSVG(t, data); slices.ContainsFunc(got.texts, func(s string) bool { return len(s) > 90 }) {
				t.Errorf("%s, %s: %q", name, f.metric, got.texts)
			}
			if _, err := f.png(); err != nil {
				t.Errorf("%s, %s: %v", name, f.metric, err)
			}
		}
	}
}
