package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

// TestYouUsed runs every command of the table of docs/evaluation.md for users of
// other programs, in its order, on small files of the names that it uses.
func TestYouUsed(t *testing.T) {
	page, err := os.ReadFile("../docs/evaluation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## You used another program\n")
	section, _, _ = strings.Cut(section, "\n## ")
	commands := regexp.MustCompile("(?m)^\\| [^|]* \\| `sagbench ([^`]+)` \\|").FindAllStringSubmatch(section, -1)
	if !found || len(commands) < 20 || len(commands) != strings.Count(section, "`sagbench ") {
		t.Fatalf("docs/evaluation.md: %d commands in the table, %d in the section", len(commands), strings.Count(section, "`sagbench "))
	}
	folder := t.TempDir()
	for _, set := range []string{"real", "fake"} {
		writePNGs(t, filepath.Join(folder, set), 60)
	}
	for name, file := range map[string]string{"inception.pth": tiny.Root() + "/models/pretrained/inception.pt", "dinov2.pth": tinyDINOv2(t)} {
		if err := os.Symlink(file, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ref.npz", "samples.npz"} {
		if err := tiny.WriteReference(filepath.Join(folder, name), 60); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range commands {
		out, err := exec.Command("sh", "-c", "printf '%s\\n' "+c[1]).Output() // as a shell splits it
		if err != nil {
			t.Fatal(err)
		}
		p := program(strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")...)
		p.Dir = folder
		p.start(t)
		if status := p.status(t); status != 0 {
			t.Errorf("sagbench %s: exit status %d\n%s", c[1], status, &p.stderr)
		}
	}
}

// writePNGs writes n images of noise.
func writePNGs(t *testing.T, folder string, n int) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(len(folder)), 5))
	for i := range n {
		p := image.NewNRGBA(image.Rect(0, 0, 12, 12))
		for at := range 144 {
			p.Set(at%12, at/12, color.NRGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(i), 255})
		}
		f, err := os.Create(filepath.Join(folder, fmt.Sprintf("%03d.png", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, p), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// The table of contents of docs/evaluation.md names every section, in its order.
func TestContentsOfEvaluation(t *testing.T) {
	page, err := os.ReadFile("../docs/evaluation.md")
	if err != nil {
		t.Fatal(err)
	}
	contents, _, _ := strings.Cut(string(page), "\n## ")
	var listed, sections []string
	for _, m := range regexp.MustCompile(`\[([^]]+)\]\(#([^)]+)\)`).FindAllStringSubmatch(contents[strings.Index(contents, "\n- "):], -1) {
		listed = append(listed, m[1]+" #"+m[2])
	}
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(page), -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		sections = append(sections, m[1]+" #"+strings.ReplaceAll(anchor, " ", "-"))
	}
	if len(sections) < 10 || !slices.Equal(listed, sections) {
		t.Errorf("docs/evaluation.md: the contents are\n%s\nthe sections\n%s", strings.Join(listed, "\n"), strings.Join(sections, "\n"))
	}
}
