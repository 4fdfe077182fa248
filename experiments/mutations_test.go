package main

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/inspect"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
)

// Ten thousand small valid files with a few bytes changed are read or refused, in
// few words, by a process of 1 GB.
func TestMutations(t *testing.T) {
	if os.Getenv(dataLimit) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestMutations$")
		c.Env = append(os.Environ(), dataLimit+"=1000000000")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %.4000s", err, out)
		}
		return
	}
	kinds := validFiles(t)
	const each = 10_000
	dice := rand.New(rand.NewPCG(13, 1))
	folder := t.TempDir()
	for i := range each {
		k := kinds[i%len(kinds)]
		data := mutated(dice, k.data)
		path := filepath.Join(folder, k.name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.read(path); err != nil && len(err.Error()) > 2400 {
			t.Errorf("%s, change %d: a message of %d bytes: %.1000s", k.name, i, len(err.Error()), err)
		}
	}
}

// mutated changes one to four places: a byte, a run of bytes cut out or repeated, a
// number replaced by a large one.
func mutated(dice *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + dice.IntN(4) {
		at := dice.IntN(len(data))
		end := min(len(data), at+1+dice.IntN(16))
		switch dice.IntN(5) {
		case 0:
			data[at] ^= 1 << dice.IntN(8)
		case 1:
			data[at] = byte(dice.IntN(256))
		case 2:
			if len(data) > 32 {
				data = slices.Delete(data, at, end)
			}
		case 3:
			data = slices.Insert(data, at, data[at:end]...)
		default:
			digit := slices.IndexFunc(data[at:], func(b byte) bool { return b >= '0' && b <= '9' })
			if digit >= 0 {
				data = slices.Insert(data, at+digit, []byte(strings.Repeat("9", 1+dice.IntN(18)))...)
			}
		}
	}
	return data
}

// A validFile is a small file of one kind and its reader.
type validFile struct {
	name string
	data []byte
	read func(path string) error
}

func validFiles(t *testing.T) []validFile {
	folder := t.TempDir()
	bytesOf := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	made := func(name string, write func(path string) error) []byte {
		path := filepath.Join(folder, name)
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		return bytesOf(path)
	}
	picture := func(encode func(io.Writer, image.Image) error) func(string) error {
		return func(path string) error {
			im := image.NewRGBA(image.Rect(0, 0, 9, 7))
			for i := range 63 {
				im.Set(i%9, i/9, color.RGBA{uint8(i), uint8(3 * i), 99, 255})
			}
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			defer f.Close()
			return encode(f, im)
		}
	}
	pngImage := made("a.png", picture(png.Encode))
	jpegImage := made("a.jpg", picture(func(w io.Writer, im image.Image) error { return jpeg.Encode(w, im, nil) }))
	tensors := checkpoint.StateDict{"a.weight": checkpoint.FromFloat32([]float32{1, 2, 3, 4}, 2, 2), "a.bias": checkpoint.FromFloat32([]float32{1, 2}, 2)}
	pixels := make([]byte, 3*3*4*4)
	inspected := func(path string) error { return inspect.Files(io.Discard, []string{path}, false, true) }
	return []validFile{
		{"e.yaml", bytesOf(tiny.Experiment(t, folder)), func(path string) error { _, err := plan.Load(path, nil); return err }},
		{"s.safetensors", made("s.safetensors", func(path string) error {
			return checkpoint.WriteSafetensors(path, tensors, map[string]string{"format": "pt"})
		}), inspected},
		{"t.pt", bytesOf(smallest(t, "../models/checkpoint/testdata/*.pt")), inspected},
		{"r.npz", made("r.npz", func(path string) error { return tiny.WriteImages(path, pixels, 3, 4, 4) }), decoded},
		{"p.png.zip", zipped(t, map[string][]byte{"a.png": pngImage, "b.jpg": jpegImage}), decoded},
		{"metrics.json", fmt.Appendf(nil, `{"format": %d, "scores": [{"name": "fid", "title": "FID", "value": 1.5, "decimals": 2}]}`, store.MetricsFormat), func(path string) error {
			m, err := store.ReadMetrics(path)
			if err == nil {
				_ = m.Summary()
			}
			return err
		}},
	}
}

// smallest is the smallest of the files that a pattern matches.
func smallest(t *testing.T, pattern string) string {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return slices.MinFunc(paths, func(a, b string) int {
		x, errX := os.Stat(a)
		y, errY := os.Stat(b)
		if errX != nil || errY != nil {
			t.Fatal(errX, errY)
		}
		return int(x.Size() - y.Size())
	})
}

// decoded reads a reference batch and all of its images.
func decoded(path string) error {
	opt := images.Options{SkipBroken: true}
	r, err := eval.ReadReference(context.Background(), path, opt)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Images == nil {
		return nil
	}
	load := images.Loader[int]{Workers: 1, Prepare: func(im images.Image) (int, error) { return len(im.Pixels), nil }}
	_, err = load.Run(context.Background(), r.Images.Images(), func(int) error { return nil })
	return err
}
