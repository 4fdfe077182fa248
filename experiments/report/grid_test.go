package report

import (
	"bytes"
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

// writeImages makes an .npz of n images of side×side pixels; pixel (x, y) of
// image i is (base+i, x, y).
func writeImages(t *testing.T, path string, from, n, side, base int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	a, err := w.Array("arr_0", npz.Uint8, n, side, side, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		for y := range side {
			for x := range side {
				if err := npz.WriteRows(a, []uint8{uint8(base + from + i), uint8(x), uint8(y)}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// gridFolder holds two runs, one of them in shards, and a reference batch.
func gridFolder(t *testing.T) string {
	results := t.TempDir()
	for i, scale := range []string{"0", "0.8"} {
		m := scored("x", i, "a label of several words, long enough for two lines ×", scale, 1, 2, 3)
		folder := filepath.Join(results, "x", m.Run)
		if err := m.Write(folder); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			writeImages(t, filepath.Join(folder, "samples", "samples_5x4x4x3.npz"), 0, 5, 4, 100)
		} else {
			writeImages(t, filepath.Join(folder, "samples", "000000-000001.npz"), 0, 2, 4, 200)
			writeImages(t, filepath.Join(folder, "samples", "000002-000004.npz"), 2, 3, 4, 200)
		}
	}
	writeImages(t, filepath.Join(results, "ref.npz"), 0, 9, 2, 10)
	return results
}

// runGrid is the command grid with its arguments, of which each flag has a value.
func runGrid(t *testing.T, args ...string) error {
	g, path := Grid{Images: 8}, ""
	numbers := map[string]*int{"--images": &g.Images, "--first": &g.First, "--columns": &g.Columns, "--scale": &g.Scale}
	var inputs []string
	for i := 0; i < len(args); i++ {
		switch to := numbers[args[i]]; {
		case args[i] == "-o":
			i++
			path = args[i]
		case to != nil:
			i++
			if _, err := fmt.Sscan(args[i], to); err != nil {
				t.Fatal(err)
			}
		default:
			inputs = append(inputs, args[i])
		}
	}
	return g.Write(t.Context(), inputs, path)
}

func readPNG(t *testing.T, path string) image.Image {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

func TestGrid(t *testing.T) {
	results := gridFolder(t)
	path := filepath.Join(results, "grid.png")
	args := []string{results, filepath.Join(results, "ref.npz"), "-o", path, "--images", "3", "--first", "1", "--columns", "2", "--scale", "10"}
	if err := runGrid(t, args...); err != nil {
		t.Fatal(err)
	}
	picture := readPNG(t, path)
	// two images of 4×4 pixels a line, each ten times as large; a label of 22
	// letters; a row is two lines of images high
	const left, cell, row = 22*7 + 2*gridMargin, 40 + gridGap, 2*(40+gridGap) + gridRowGap
	if got := picture.Bounds(); got != image.Rect(0, 0, left+2*cell, 3*row) {
		t.Fatal(got)
	}
	for _, c := range []struct {
		x, y int
		want color.RGBA
	}{
		{left, gridRowGap / 2, color.RGBA{101, 0, 0, 255}},
		{left + 39, gridRowGap/2 + 9, color.RGBA{101, 3, 0, 255}},
		{left + cell, gridRowGap / 2, color.RGBA{102, 0, 0, 255}},
		{left + 10, gridRowGap/2 + cell + 20, color.RGBA{103, 1, 2, 255}},
		{left + cell, gridRowGap/2 + cell, color.RGBA{255, 255, 255, 255}}, // there is no fourth
		{left + 40, gridRowGap / 2, color.RGBA{255, 255, 255, 255}},
		{left, row + gridRowGap/2, color.RGBA{201, 0, 0, 255}},
		{left + cell, row + gridRowGap/2, color.RGBA{202, 0, 0, 255}}, // from the second shard
		{left + 19, 2*row + gridRowGap/2 + cell + 19, color.RGBA{13, 1, 1, 255}},
		{left + 20, 2*row + gridRowGap/2, color.RGBA{255, 255, 255, 255}}, // smaller images
	} {
		if got := picture.At(c.x, c.y); got != c.want {
			t.Errorf("pixel %d, %d: %v, want %v", c.x, c.y, got, c.want)
		}
	}
	for i, lines := range []int{4, 4, 1} { // of text in front of each row
		for line := range 5 {
			if got := dark(picture, image.Rect(0, i*row+gridRowGap/2+13*line, left, i*row+gridRowGap/2+13*line+11)); got != (line < lines) {
				t.Errorf("row %d, line %d of the label: text %v", i, line, got)
			}
		}
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := runGrid(t, args...); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(first, again) {
		t.Error("the picture changed", err)
	}
}

func dark(picture image.Image, in image.Rectangle) bool {
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X; x < in.Max.X; x++ {
			if picture.At(x, y) == (color.RGBA{0, 0, 0, 255}) {
				return true
			}
		}
	}
	return false
}

// Without --scale and --columns images are 64 pixels wide or more, on one line.
func TestGridDefaults(t *testing.T) {
	results := gridFolder(t)
	path := filepath.Join(results, "grid.png")
	if err := runGrid(t, filepath.Join(results, "ref.npz"), "-o", path); err != nil {
		t.Fatal(err)
	}
	want := image.Rect(0, 0, 3*7+2*gridMargin+8*(64+gridGap), 64+gridGap+gridRowGap)
	if got := readPNG(t, path).Bounds(); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestGridMessages(t *testing.T) {
	results := gridFolder(t)
	bad := filepath.Join(results, "bad.npz")
	if err := os.WriteFile(bad, []byte("PK no zip"), 0o644); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(results, "grid.png")
	if err := os.WriteFile(output, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{results, "--images", "8"}, `grid: ` + filepath.Join(results, "x", "aaaaaaaaaa", "samples") + `: has no image 5; choose fewer with --images`},
		{[]string{results, "--images", "-1"}, "grid: --images is -1, expected 0 or more"},
		{[]string{results, "--first", "90"}, "has no image 90"},
		{[]string{results, "--first", "-1"}, "grid: --first is -1, expected 0 or more"},
		{[]string{results, "--columns", "-1"}, "grid: --columns is -1, expected 0 or more"},
		{[]string{results, "--scale", "65"}, "grid: --scale is 65, expected 0 to 64"},
		{[]string{filepath.Join(results, "none")}, "no such file"},
		{[]string{filepath.Join(results, "none.npz")}, "no such file"},
		{[]string{bad}, bad},
	} {
		if err := runGrid(t, append(c.args, "-o", output)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("grid %q: %v", c.args, err)
		}
	}
	if err := os.WriteFile(filepath.Join(results, "x", "bbbbbbbbbb", "samples", "000002-000004.npz"), []byte("PK cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := runGrid(t, results, "--images", "3", "-o", output); err == nil || !strings.Contains(err.Error(), "000002-000004.npz") {
		t.Error(err)
	}
	if data, err := os.ReadFile(output); err != nil || string(data) != "before" {
		t.Errorf("%q %v", data, err)
	}
	huge := Grid{Images: 1 << 20, Columns: 1 << 10, Scale: 64, rows: []gridRow{{height: 32, width: 32}}}
	if _, err := huge.draw(); err == nil || !strings.Contains(err.Error(), "choose fewer images") {
		t.Error(err)
	}
}

// The rows of a picture are told apart: runs that are not scored yet by what their
// run.yaml says, those of several experiments by its name, files by their paths.
func TestGridTellsRowsApart(t *testing.T) {
	results := t.TempDir()
	for i, steps := range []string{"4", "8"} {
		folder := filepath.Join(results, "y", fmt.Sprintf("cat-s=0-%010d", i))
		writeImages(t, filepath.Join(folder, "samples", "samples_1x4x4x3.npz"), 0, 1, 4, 100)
		tiny.Write(t, filepath.Join(folder, store.RunFile), "label: cat\nsampler: {ddpm: {steps: "+steps+"}}\nguidance: [{cfg: {scale: 1}}, {sag: {scale: 0}}]\n")
		writeImages(t, filepath.Join(results, "files", steps, "ref.npz"), 0, 1, 4, 1)
	}
	m := scored("x", 0, "", "0.5", 1, 2, 3)
	m.Folder = filepath.Join(results, "x", m.Run)
	if err := m.Write(m.Folder); err != nil {
		t.Fatal(err)
	}
	writeImages(t, filepath.Join(m.Folder, "samples", "samples_1x4x4x3.npz"), 0, 1, 4, 100)
	files := []string{filepath.Join(results, "files/4/ref.npz"), filepath.Join(results, "files/8/ref.npz")}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{filepath.Join(results, "y")}, "[cat-s=0 steps = 4] [cat-s=0 steps = 8]"},
		{[]string{filepath.Join(results, "y", "cat-s=0-0000000000")}, "[cat-s=0]"},
		{[]string{results}, "[x s = 0.5] [y cat-s=0 steps = 4] [y cat-s=0 steps = 8]"},
		{files, "[" + files[0] + "] [" + files[1] + "]"},
		{files[:1], "[ref]"},
	} {
		g := Grid{}
		if err := g.read(t.Context(), c.args); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range g.rows {
			got = append(got, fmt.Sprint(r.text))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
	tiny.Write(t, filepath.Join(results, "y", "cat-s=0-0000000000", store.RunFile), "a: [")
	if err := (&Grid{}).read(t.Context(), []string{results}); err == nil || !strings.Contains(err.Error(), "run.yaml") {
		t.Errorf("a run.yaml that is none: %v", err)
	}
}

// Of folders the chosen rows are shown, of files all; a run that is not scored has no
// number, and is called as its folder is.
func TestGridRows(t *testing.T) {
	results := gridFolder(t)
	writeImages(t, filepath.Join(results, "x", "s=0.9-cccccccccc", "samples", "000000-000004.npz"), 0, 5, 4, 50)
	for rows, want := range map[string][]string{"2": {"bbbbbbbbbb", ""}, "s=0,s=0.9": {"aaaaaaaaaa", "cccccccccc", ""}} {
		g := Grid{Rows: []string{rows}}
		files, runs, err := g.find([]string{results, "ref.npz"})
		var got []string
		for _, m := range runs {
			if m == nil {
				m = &store.Metrics{}
			}
			got = append(got, m.Run)
		}
		if err != nil || !slices.Equal(got, want) || files[len(files)-1] != "ref.npz" {
			t.Errorf("%s: %q of %q, %v; want %q", rows, got, files, err, want)
		}
	}
	g := Grid{Rows: []string{"3"}}
	if _, _, err := g.find([]string{results}); err == nil || !strings.HasSuffix(err.Error(), "; s=0.9") {
		t.Error(err)
	}
}
