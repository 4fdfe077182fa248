package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/inspect"
	"sagbench/experiments/refcase"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/features"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/sd"
	"sagbench/sampling/tensor"
)

// A validFile is a small file of some kind, beside what else is needed to read it, its
// reader, and the command that reads it.
type validFile struct {
	path string
	data []byte
	read func() error
	args []string
}

// validFiles are files of all kinds that the program reads.
func validFiles(t *testing.T) []validFile {
	var all []validFile
	add := func(path string, read func() error, args ...string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, validFile{path, data, read, args})
	}
	file := func(name string, write func(path string) error) string {
		path := filepath.Join(t.TempDir(), name)
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := func(from string) string {
		path := t.TempDir()
		if err := os.CopyFS(path, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		return path
	}

	experiment := tiny.Experiment(t, t.TempDir())
	add(experiment, func() error { _, err := (&globals{}).loadExperiment([]string{experiment}); return err }, "plan", experiment)

	tensors := checkpoint.StateDict{"a.weight": checkpoint.FromFloat32([]float32{1, 2, 3, 4}, 2, 2), "a.bias": checkpoint.FromFloat32([]float32{1, 2}, 2)}
	safetensors := file("s.safetensors", func(path string) error {
		return checkpoint.WriteSafetensors(path, tensors, map[string]string{"format": "pt"})
	})
	pickles := folder("../models/checkpoint/testdata")
	for _, path := range []string{safetensors, filepath.Join(pickles, "parallel.pt"), filepath.Join(pickles, "views-legacy.pt")} {
		add(path, func() error { return inspect.Files(io.Discard, []string{path}, false, true) }, "inspect", path)
	}

	pipeline := folder("refcase/testdata/cases/unet2d-cifar-tiny/model")
	add(filepath.Join(pipeline, "config.json"), func() error {
		m, err := (&sd.UNet2D{}).Open(pipeline, models.Options{})
		if err == nil {
			m.Close()
		}
		return err
	}, "plan", experiment, "model=!replace {family: unet2d, checkpoint: "+pipeline+"}", "guidance.sag.layer=mid_block.attentions.0")

	set := func(path, set string) {
		add(path, func() error { return decoded(set) }, append(slices.Concat([]string{"eval"}, embeddedInception), "--metrics", "fid", tiny.Reference(), set)...)
	}
	batch := file("r.npz", func(path string) error { return tiny.WriteImages(path, make([]byte, 3*3*4*4), 3, 4, 4) })
	set(batch, batch)
	pictures := picturesOf(t)
	archive := file("p.zip", func(path string) error { return os.WriteFile(path, zipped(t, pictures), 0o600) })
	set(archive, archive)
	for _, name := range []string{"a.png", "b.jpg"} {
		images := t.TempDir()
		for name, data := range pictures {
			tiny.Write(t, filepath.Join(images, name), string(data))
		}
		set(filepath.Join(images, name), images)
	}

	metrics := file(store.MetricsFile, func(path string) error {
		return os.WriteFile(path, fmt.Appendf(nil, `{"format": %d, "scores": [{"name": "fid", "title": "FID", "value": 1.5, "decimals": 2}]}`, store.MetricsFormat), 0o600)
	})
	add(metrics, func() error {
		m, err := store.ReadMetrics(metrics)
		if err == nil {
			_ = m.Summary()
		}
		return err
	}, "table", filepath.Dir(metrics))

	traced := t.TempDir()
	copyFile(t, metrics, filepath.Join(traced, store.MetricsFile))
	trace := filepath.Join(traced, store.TraceFile)
	step := store.TraceStep{XStart: make([]uint8, 12), Degraded: make([]uint8, 12), Guided: make([]uint8, 12), Mask: tensor.New(1, 1, 2, 2), Attention: tensor.New(1, 4)}
	if err := (&store.Trace{Key: "key", Images: 1, Height: 2, Width: 2, Steps: []store.TraceStep{step}}).Write(trace); err != nil {
		t.Fatal(err)
	}
	add(trace, func() error { _, err := store.ReadTrace(trace); return err }, "grid", "--trace", traced, "-o", filepath.Join(t.TempDir(), "trace.png"))

	graph := file("f.onnx", func(path string) error {
		m, err := onnx.Build(nil, func(m *onnx.Module) {
			m.Output("mean", m.Mean(m.Input("x", checkpoint.F32, onnx.Batch, 3, 4, 4), 2, 3))
		})
		if err != nil {
			return err
		}
		return os.WriteFile(path, m.Proto, 0o600)
	})
	add(graph, func() error {
		x, err := (&features.ONNXFile{Range: features.UnitRange}).Extractor(t.Context(), graph, models.Options{Options: ort.Options{Threads: 1}})
		if err == nil {
			x.Close()
		}
		return err
	}, "eval", "--network", graph, "--range", "unit", "--metrics", "fid", tiny.Reference(), tiny.Reference())

	refCase := folder("refcase/testdata/cases/schedule-dpm2m")
	for _, name := range []string{"case.yaml", "io.safetensors", "scheduler_config.json"} {
		add(filepath.Join(refCase, name), func() error {
			var out bytes.Buffer
			if err := refcase.Check(context.Background(), &out, []string{refCase}, refcase.Options{Runtime: ort.Options{Threads: 1}, Quiet: true}); err != nil {
				return fmt.Errorf("%s%w", &out, err)
			}
			return nil
		}, "check", "--quiet", refCase)
	}
	return all
}

// picturesOf are small images by their names.
func picturesOf(t *testing.T) map[string][]byte {
	im := image.NewRGBA(image.Rect(0, 0, 9, 7))
	for i := range 63 {
		im.Set(i%9, i/9, color.RGBA{uint8(i), uint8(3 * i), 99, 255})
	}
	var p, j bytes.Buffer
	if err := png.Encode(&p, im); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&j, im, nil); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"a.png": p.Bytes(), "b.jpg": j.Bytes()}
}

// decoded reads a set of images.
func decoded(path string) error {
	r, err := eval.ReadReference(context.Background(), path, images.Options{})
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
