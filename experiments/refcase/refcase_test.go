package refcase

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
)

// TestReferenceCases runs every case of testdata at its tolerance.
func TestReferenceCases(t *testing.T) {
	dirs, err := filepath.Glob("testdata/cases/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no reference cases", err)
	}
	var nodes []onnx.Node
	o := Options{Runtime: ort.Options{Opened: func(m *onnx.Model) { nodes = append(nodes, m.Nodes...) }}}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var out bytes.Buffer
			ok, err := checkCase(context.Background(), &out, dir, o)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				t.Error(out.String())
			}
		})
	}
	checkOperators(t, nodes)
}

// README counts the cases that the repository holds.
func TestReadmeCountsTheCases(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(tiny.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	cases, err := filepath.Glob("testdata/cases/*")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := filepath.Glob(filepath.Join(tiny.Root(), "eval/testdata/*"))
	if err != nil {
		t.Fatal(err)
	}
	all := len(cases) + len(metrics)
	words := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{fmt.Sprintf("%d of %d reference cases pass", all, all), fmt.Sprintf("The outputs of %d of them", len(cases)), fmt.Sprintf("The other %d hold the metrics", len(metrics))} {
		if !strings.Contains(words, want) {
			t.Errorf("README.md does not say %q", want)
		}
	}
}

// An absolute path in a case is that path.
func TestAbsolutePath(t *testing.T) {
	source, err := filepath.Abs("testdata/cases/adm-legacy-attention")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"case.yaml", "io.safetensors"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.ReplaceAll(data, []byte("checkpoint: model.pt"), []byte("checkpoint: "+filepath.Join(source, "model.pt")))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if ok, err := checkCase(t.Context(), &out, dir, Options{}); !ok || err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// A compressed checkpoint is unpacked up to a size, and leaves nothing behind.
func TestUnpackIsBounded(t *testing.T) {
	defer func(n int64) { maxUnpacked = n }(maxUnpacked)
	maxUnpacked = 1 << 16
	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch)
	path := filepath.Join(t.TempDir(), "model.pt")
	for size, fits := range map[int]bool{1 << 16: true, 1<<16 + 1: false} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(make([]byte, size)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".gz", b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		folder, _, err := unpack(path)
		os.RemoveAll(folder)
		if left, _ := os.ReadDir(scratch); (err == nil) != fits || len(left) > 0 || !fits && !strings.Contains(err.Error(), "model.pt.gz: is unpacked to more than 65536 bytes") {
			t.Errorf("%d bytes: %v, %d files are left", size, err, len(left))
		}
	}
}

// TestCheckFails spoils a case: check has to notice.
func TestCheckFails(t *testing.T) {
	const source = "testdata/cases/adm-legacy-attention"
	spoil := func(t *testing.T, change func(dir string)) (string, bool, error) {
		dir := t.TempDir()
		for _, name := range []string{"case.yaml", "io.safetensors", "model.pt"} {
			b, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		change(dir)
		var out bytes.Buffer
		ok, err := checkCase(context.Background(), &out, dir, Options{Quiet: true})
		return out.String(), ok, err
	}
	replace := func(old, new string) func(string) {
		return func(dir string) {
			path := filepath.Join(dir, "case.yaml")
			b, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(b, []byte(old)) {
				t.Fatalf("%s: %v", old, err)
			}
			os.WriteFile(path, bytes.ReplaceAll(b, []byte(old), []byte(new)), 0o644)
		}
	}
	t.Run("numbers", func(t *testing.T) {
		out, ok, err := spoil(t, func(dir string) {
			path := filepath.Join(dir, "io.safetensors")
			f, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v, err := f.Tensors["out.model"].Float32()
			if err != nil {
				t.Fatal(err)
			}
			v[17] += 1e-3
			all := checkpoint.StateDict{}
			for k, x := range f.Tensors {
				all[k] = x
			}
			all["out.model"] = checkpoint.FromFloat32(v, f.Tensors["out.model"].Shape...)
			if err := checkpoint.WriteSafetensors(path, all, nil); err != nil {
				t.Fatal(err)
			}
		})
		if ok || err != nil || !strings.Contains(out, "FAIL  out.model") || strings.Contains(out, "out.attention") {
			t.Errorf("ok %v, error %v\n%s", ok, err, out)
		}
	})
	for _, c := range []struct{ old, new, want string }{
		{"kind: forward", "kind: backward", `unknown kind "backward"`},
		{"  image_size: 16", "  image_sice: 16", `did you mean "image_size"`},
		{"  num_channels: 32", "  num_channels: 64", "its shapes suggest num_channels: 32 (not 64)"},
		{"layer: output_blocks.1.1", "layer: output_blocks.9.1", "is no attention layer"},
		{"checkpoint: model.pt", "checkpoint: other.pt", "other.pt.gz is there"},
		{"tolerance:", "tolerances:", "tolerance is missing; found kind, source, tolerances"},
	} {
		t.Run(c.new, func(t *testing.T) {
			if _, ok, err := spoil(t, replace(c.old, c.new)); ok || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ok %v, error %v, want %s", ok, err, c.want)
			}
		})
	}
}
