package report

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/store"
)

// The bands of an SVG stand where metrics.json's intervals are, read with the ticks of
// its axis; without draws there are none.
func TestPlotBands(t *testing.T) {
	for _, size := range []string{"page", "column"} {
		for _, drawn := range []bool{true, false} {
			results, out := pageResults(t, drawn), t.TempDir()
			if err := (Plots{Formats: []string{"svg"}, Size: size}).Write(new(bytes.Buffer), out, []string{results}); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(out, "e", "fid.svg"))
			if err != nil {
				t.Fatal(err)
			}
			bands := regexp.MustCompile(`<path d="([^"]*)" style="fill:#[0-9A-F]{6};fill-opacity:0\.2[^"]*"`).FindAllSubmatch(data, -1)
			if !drawn {
				if len(bands) != 0 || bytes.Contains(data, []byte("opacity")) {
					t.Errorf("%s: %d bands without draws", size, len(bands))
				}
				continue
			}
			if len(bands) != 2 {
				t.Fatalf("%s: %d bands for 2 labels", size, len(bands))
			}
			rows, err := store.FindMetrics(results)
			if err != nil {
				t.Fatal(err)
			}
			value := yAxis(t, string(data))
			for b, band := range bands {
				corners := regexp.MustCompile(`[ML][\d.]+,([\d.]+)`).FindAllSubmatch(band[1], -1)
				if len(corners) < 6 {
					t.Fatalf("%s: a band of %d corners", size, len(corners))
				}
				for i := range 3 {
					s, _ := rows[3*b+i].Score("fid")
					for corner, want := range map[int]float64{i: s.Interval.High, 5 - i: s.Interval.Low} {
						y, _ := strconv.ParseFloat(string(corners[corner][1]), 64)
						if got := value(y); math.Abs(got-want) > 0.02 {
							t.Errorf("%s: band %d, corner %d stands at %g, metrics.json says %g", size, b, corner, got, want)
						}
					}
				}
			}
		}
	}
}

// yAxis is what a height in the picture is worth, from the rules of the grid and the
// labels beside them.
func yAxis(t *testing.T, svg string) func(float64) float64 {
	t.Helper()
	var heights, values []float64
	for _, m := range regexp.MustCompile(`<path d="M[\d.]+,([\d.]+)L[\d.]+,([\d.]+)" style="fill:none;stroke:#CCCCCC`).FindAllStringSubmatch(svg, -1) {
		y, _ := strconv.ParseFloat(m[1], 64)
		if m[1] == m[2] {
			heights = append(heights, y)
		}
	}
	side := svg[strings.Index(svg, "(lower is better)"):]
	for _, m := range regexp.MustCompile(`>([\d.]+)</text>`).FindAllStringSubmatch(side, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		values = append(values, v)
	}
	if len(heights) < 2 || len(heights) != len(values) {
		t.Fatalf("%d rules, labels %v", len(heights), values)
	}
	n := len(heights) - 1
	return func(y float64) float64 {
		return values[0] + (y-heights[0])/(heights[n]-heights[0])*(values[n]-values[0])
	}
}

// Equal results give equal PDFs, at any time, with labels in any script.
func TestPlotPDF(t *testing.T) {
	results := pageResults(t, true)
	o := Plots{Formats: []string{"pdf"}, Size: "column"}
	var first []byte
	for range 2 {
		out := t.TempDir()
		if err := o.Write(new(bytes.Buffer), out, []string{results}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(out, "e", "fid.pdf"))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
			time.Sleep(1100 * time.Millisecond) // a PDF's date has seconds
		}
		if !bytes.HasPrefix(data, []byte("%PDF-")) || !bytes.Equal(data, first) {
			t.Errorf("%d bytes, then %d", len(first), len(data))
		}
	}
	// 8.4 cm × 6.2 cm in points
	if !bytes.Contains(first, []byte("/MediaBox [0 0 238.11 175.75]")) {
		t.Errorf("MediaBox: %s", regexp.MustCompile(`/MediaBox[^\n]*`).Find(first))
	}
}

// Several experiments in one plot: a line for each of their labels, and a warning where
// they were not evaluated alike.
func TestPlotTogether(t *testing.T) {
	results, out := t.TempDir(), t.TempDir()
	var printed bytes.Buffer
	draw := func(protocols ...string) string {
		t.Helper()
		for i, name := range []string{"one", "two"} {
			for j, s := range []string{"0", "1"} {
				m := scored(name, j, "ADM", s, 5+float64(j), 3, 0.8)
				m.Folder = filepath.Join(results, name, s)
				m.Config, m.Protocol = []byte(`{"inception":{"checkpoint":"`+name+`","resize":"tf"}}`), protocols[i]
				m.Inputs.Networks = map[string]store.InputFile{"inception": {SHA256: "0123456789"}}
				if err := m.Write(m.Folder); err != nil {
					t.Fatal(err)
				}
			}
		}
		printed.Reset()
		if err := (Plots{Formats: []string{"svg"}, Size: "page", Together: true}).Write(&printed, out, []string{results}); err != nil {
			t.Fatal(err)
		}
		return printed.String()
	}
	if said := draw("adm", "clean-fid"); !strings.HasSuffix(said, "the lines are not of one evaluation, and their heights do not compare: protocol (adm, clean-fid)\n") {
		t.Errorf("two protocols: %s", said)
	}
	if said := draw("adm", ""); strings.Contains(said, "evaluation") { // which older files do not name
		t.Errorf("one protocol: %s", said)
	}
	data, err := os.ReadFile(filepath.Join(out, "fid.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">one ADM<", ">two ADM<", ">one and two, "} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in the plot", want)
		}
	}
	if err := (Plots{Formats: []string{"svg"}, Size: "poster"}).Write(&printed, out, []string{results}); err == nil || !strings.Contains(err.Error(), "column, page") {
		t.Error(err)
	}
}
