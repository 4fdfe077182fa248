// Package tiny is the experiment that tests of several packages run, two rows of
// an embedded model that take a second, with the files that it reads.
package tiny

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sagbench/eval/npz"
)

// Root is the folder of the repository.
var Root = sync.OnceValue(func() string {
	folder, err := os.Getwd()
	for ; err == nil; folder = filepath.Dir(folder) {
		if _, missing := os.Stat(filepath.Join(folder, "go.mod")); missing == nil {
			return folder
		}
		if folder == filepath.Dir(folder) {
			err = errors.New("no go.mod above the working directory")
		}
	}
	panic(err)
})

// scratch is a folder for the time of the tests, "" where Main is not used.
var scratch string

// Main runs a package's tests with a cache folder of their own, which holds the
// ONNX Runtime that is installed.
func Main(m *testing.M) int {
	installed, err := os.UserCacheDir()
	if err == nil {
		scratch, err = os.MkdirTemp("", "sagbench-test-")
	}
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	own := filepath.Join(scratch, "sagbench")
	if err := os.Mkdir(own, 0o755); err != nil {
		panic(err)
	}
	runtimes, err := filepath.Glob(filepath.Join(installed, "sagbench", "onnxruntime-*"))
	if err != nil {
		panic(err)
	}
	for _, r := range runtimes {
		if err := os.Symlink(r, filepath.Join(own, filepath.Base(r))); err != nil {
			panic(err)
		}
	}
	os.Setenv("XDG_CACHE_HOME", scratch)
	return m.Run()
}

// Reference is a reference batch of 48 embedded images, made once where Main is
// used.
var Reference = sync.OnceValue(func() string {
	path := filepath.Join(scratch, "reference.npz")
	if scratch != "" {
		if err := WriteReference(path, 48); err != nil {
			panic(err)
		}
	}
	return path
})

// WriteReference writes the first n images of the embedded reference batch.
func WriteReference(path string, n int) error {
	f, err := npz.Open(filepath.Join(Root(), "models/pretrained/reference.npz"))
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := f.Array("arr_0")
	if err != nil {
		return err
	}
	defer a.Close()
	pixels := make([]uint8, n*a.RowLen())
	if _, err := npz.ReadRows(a, pixels); err != nil {
		return err
	}
	return WriteImages(path, pixels, n, a.Shape[1], a.Shape[2])
}

// WriteImages writes an .npz of images, arr_0 [n,h,w,3].
func WriteImages(path string, pixels []uint8, n, h, w int) error {
	out, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := npz.WriteArray(out, "arr_0", pixels, n, h, w, 3); err != nil {
		return err
	}
	return out.Commit()
}

// experiment are two rows of the embedded conditional model.
const experiment = `name: tiny
samples: 8
seed: 3
batch: 2
model: {family: adm, checkpoint: MODELS/adm-cond.pt, class_cond: true, num_classes: 10,
  image_size: 32, num_channels: 64, num_res_blocks: 1, channel_mult: "1,1,2",
  attention_resolutions: "16,8", num_heads: 4, num_head_channels: 32,
  use_scale_shift_norm: true, resblock_updown: true, learn_sigma: true}
sampler: {ddpm: {steps: 2}}
guidance: {sag: {scale: 0.5, blur_sigma: 1.5, blur_kernel: 9, layer: output_blocks.1.1}}
reference: REFERENCE
inception: {checkpoint: MODELS/inception.pt, input_size: 107}
metrics: [fid, sfid, is, precision, recall]
sweep: {guidance.sag.scale: [0, 0.5]}
`

// Experiment writes the experiment into a folder, with replacements old, new, old,
// new …, and returns the path of the file.
func Experiment(t testing.TB, folder string, replacements ...string) string {
	t.Helper()
	text := strings.NewReplacer(replacements...).Replace(experiment)
	text = strings.NewReplacer("MODELS", filepath.Join(Root(), "models/pretrained"), "REFERENCE", Reference()).Replace(text)
	path := filepath.Join(folder, "tiny.yaml")
	Write(t, path, text)
	return path
}

// Write writes a file.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Tree maps the files below a folder to hashes of their content.
func Tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		files[name] = fmt.Sprintf("%x", sha256.Sum256(data))[:16]
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// Same compares two trees.
func Same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: content %q, want %q", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s: a file that was not expected", name)
		}
	}
}

// Nest writes a torch.save of {"model": weights, "ema": {"decay": 1,
// "shadow": weights}} with the weights of a file that holds them alone, or under
// "state_dict" at its end.
func Nest(t testing.TB, from, to string) {
	t.Helper()
	r, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range r.File {
		in, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name, "/data.pkl") {
			key := func(k string) string { return "X" + string([]byte{byte(len(k)), 0, 0, 0}) + k }
			body := string(data[2 : len(data)-1]) // without protocol and stop
			if _, after, lightning := strings.Cut(body, key("state_dict")); lightning {
				body = after[2 : len(after)-1] // without the memo of the key, and the end of the outer dict
			}
			data = []byte("\x80\x02}(" + key("model") + body + key("ema") + "}(" + key("decay") + "K\x01" + key("shadow") + body + "uu.")
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.Name, Method: zip.Store})
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	Write(t, to, out.String())
}
