package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sagbench/internal/tiny"
)

func onePNG(path string) *PNGFile {
	p := &PNGFile{Path: path, Height: 3, Width: 5, Texts: []PNGText{{"run", "abc"}, {"prompt", "größer\nals\x00x"}, {"lines", "a\nb"}}}
	for i := range 3 * 5 * 3 {
		p.Pixels = append(p.Pixels, uint8(7*i))
	}
	return p
}

// Many processes may write a file at once: one does, the others find it.
func TestPNGWrittenOnce(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a.png")
	var all sync.WaitGroup
	var first atomic.Int64
	for i := range 8 {
		all.Go(func() {
			kept, err := onePNG(path).Write(string(rune('0' + i)))
			if err != nil {
				t.Error(err)
			}
			if !kept {
				first.Add(1)
			}
		})
	}
	all.Wait()
	if tree := tiny.Tree(t, folder); first.Load() != 1 || len(tree) != 1 {
		t.Errorf("%d wrote the file, %d files are there", first.Load(), len(tree))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tEXtrun\x00abc", "iTXtprompt\x00\x00\x00\x00\x00größer\nals\ufffdx", "tEXtlines\x00a\nb"}
	var got []string
	for _, c := range textChunks(data) {
		got = append(got, string(c))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for name, change := range map[string]func(*PNGFile){
		"other pixels":      func(p *PNGFile) { p.Pixels[7]++ },
		"3×5 pixels":        func(p *PNGFile) { p.Height, p.Width = 5, 3 },
		"other texts (run)": func(p *PNGFile) { p.Texts[0].Value = "abd" },
		"(more)":            func(p *PNGFile) { p.Texts = append(p.Texts, PNGText{"more", ""}) },
		"other texts than":  func(p *PNGFile) { p.Texts = p.Texts[:2] },
	} {
		p := onePNG(path)
		change(p)
		if _, err := p.Write("x"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("no %q in %v", name, err)
		}
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the file was changed: %v", err)
	}
	if err := os.Mkdir(filepath.Join(folder, "b.png"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := onePNG(filepath.Join(folder, "b.png")).Write("x"); err == nil || !strings.Contains(err.Error(), "b.png is there and is no file") {
		t.Error(err)
	}
	if _, err := onePNG(filepath.Join(folder, "none/c.png")).Write("x"); err == nil || !strings.Contains(err.Error(), "c.png cannot be written") {
		t.Error(err)
	}
}

// Whatever is at the place of a picture, it is the picture or an error.
func FuzzPNG(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed.png")
	if _, err := onePNG(path).Write("x"); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:60])
	f.Add(append(bytes.Clone(whole[:8]), 0xff, 0xff, 0xff, 0xff, 't', 'E', 'X', 't', 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := onePNG(filepath.Join(t.TempDir(), "a.png"))
		if err := os.WriteFile(p.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := p.Write("x")
		if !kept {
			t.Error("a file that was there was written")
		}
		size := 0
		for _, c := range textChunks(data) {
			size += len(c)
		}
		if size > len(data) || err == nil && size == 0 {
			t.Errorf("%d bytes of texts in a file of %d", size, len(data))
		}
	})
}
