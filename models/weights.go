package models

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// weights are the tensors of one network, in one file or in shards that lie in
// one folder.
type weights struct {
	path    string // the file, or the index of the shards; for messages
	tensors checkpoint.StateDict
	files   []*checkpoint.File
	names   map[string]string // the file's own names by those of tensors, where they differ
}

// fault is what is wrong with the network of these weights, with the path, and
// with the names that the file gives its tensors.
func (w *weights) fault(err error) error {
	var e *onnx.MismatchError
	if w.names == nil || !errors.As(err, &e) {
		return fmt.Errorf("models: %s: %w", w.path, err)
	}
	own := func(key *string) {
		if name, ok := w.names[*key]; ok {
			*key = name
		}
	}
	for i := range e.Unexpected {
		own(&e.Unexpected[i].Key)
	}
	for i := range e.Misshaped {
		own(&e.Misshaped[i].Key)
	}
	if len(e.Missing) > 0 {
		e.Hint = "what is missing is named as diffusers names it"
	}
	return fmt.Errorf("models: %s: %w", w.path, err)
}

// fileWeights are those of one file.
func fileWeights(path string) (*weights, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	return &weights{path: path, tensors: f.Tensors, files: []*checkpoint.File{f}}, nil
}

// stems are what the names of a part's weight files begin with.
type stems struct{ safetensors, bin string }

var (
	diffusersStems    = stems{"diffusion_pytorch_model", "diffusion_pytorch_model"}
	transformersStems = stems{"model", "pytorch_model"}
)

// The endings of weight files, the preferred first.
const (
	safetensorsEnd = ".safetensors"
	shardsEnd      = ".safetensors.index.json"
	binEnd         = ".bin"
)

var weightEnds = []string{safetensorsEnd, shardsEnd, binEnd}

func (s stems) of(end string) string {
	if end == binEnd {
		return s.bin
	}
	return s.safetensors
}

// file is the name of a file of weights: stem.safetensors, or
// stem.VARIANT.safetensors.
func (s stems) file(variant, end string) string {
	if variant == "" {
		return s.of(end) + end
	}
	return s.of(end) + "." + variant + end
}

// folderWeights finds the weights in a folder as diffusers and transformers
// save them: stem.safetensors, stem.bin, or shards listed in
// stem.safetensors.index.json; with a variant, stem.VARIANT.safetensors and so
// on. Safetensors are preferred, as there. Without a variant, a folder that
// holds one variant alone is taken at its word.
func folderWeights(folder string, stem stems, variant string) (*weights, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	name, err := chooseWeights(names, stem, variant)
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", folder, err)
	}
	path := filepath.Join(folder, name)
	if strings.HasSuffix(name, ".index.json") {
		return shardedWeights(path)
	}
	return fileWeights(path)
}

func chooseWeights(names []string, stem stems, variant string) (string, error) {
	if name, ok := weightsOf(names, stem, variant); ok {
		return name, nil
	}
	variants := map[string]bool{}
	for _, n := range names {
		for _, end := range weightEnds {
			rest, ok := strings.CutPrefix(n, stem.of(end)+".")
			if v, is := strings.CutSuffix(rest, end); ok && is && !strings.Contains(v, ".") && !strings.Contains(v, "-of-") {
				variants[v] = true
			}
		}
	}
	if variant == "" && len(variants) == 1 {
		for v := range variants {
			name, _ := weightsOf(names, stem, v)
			return name, nil
		}
	}
	for _, n := range names {
		if strings.HasPrefix(n, stem.bin+".bin.index.") {
			return "", fmt.Errorf("%s lists shards of pickles, which are not supported; save the weights as .safetensors (save_pretrained(..., safe_serialization=True)) or in one .bin file", n)
		}
	}
	wanted := stem.file(variant, safetensorsEnd) + " or " + stem.file(variant, binEnd)
	if len(names) == 0 {
		return "", fmt.Errorf("the folder is empty; expected config.json and %s", wanted)
	}
	return "", fmt.Errorf("the weights are missing: expected %s; the folder holds %s", wanted, strings.Join(names, ", "))
}

func weightsOf(names []string, stem stems, variant string) (string, bool) {
	for _, end := range weightEnds {
		if end == shardsEnd && variant != "" { // stem.safetensors.index.fp16.json
			if alt := stem.safetensors + ".safetensors.index." + variant + ".json"; slices.Contains(names, alt) {
				return alt, true
			}
		}
		if n := stem.file(variant, end); slices.Contains(names, n) {
			return n, true
		}
	}
	return "", false
}

// shardedWeights opens every file that an index names. Each tensor must lie in
// the file that the index says, and nowhere else.
func shardedWeights(index string) (*weights, error) {
	data, err := os.ReadFile(index)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	var listed struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &listed); err != nil {
		return nil, fmt.Errorf("models: %s: %w", index, err)
	}
	if len(listed.WeightMap) == 0 {
		return nil, fmt.Errorf("models: %s: weight_map is missing or empty; expected tensor names with the file that holds each", index)
	}
	w := &weights{path: index, tensors: checkpoint.StateDict{}}
	var errs []error
	for _, name := range shardNames(listed.WeightMap) {
		if filepath.Base(name) != name {
			errs = append(errs, fmt.Errorf("models: %s: shard %q lies in another folder", index, name))
			continue
		}
		f, err := checkpoint.Open(filepath.Join(filepath.Dir(index), name))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("models: %s: shard %s is missing; download it again", index, name)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w.files = append(w.files, f)
		for key, t := range f.Tensors {
			if listed.WeightMap[key] != name {
				errs = append(errs, fmt.Errorf("models: %s: tensor %s lies in %s, the index says %q", index, key, name, listed.WeightMap[key]))
			}
			w.tensors[key] = t
		}
	}
	if err := errors.Join(errs...); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func shardNames(weightMap map[string]string) []string {
	var names []string
	for _, n := range weightMap {
		names = append(names, n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SHA256 identifies the content: the file's hash, or a hash of the shards'.
func (w *weights) SHA256() (string, error) {
	if len(w.files) == 1 {
		return w.files[0].SHA256()
	}
	h := sha256.New()
	for _, f := range w.files {
		sum, err := f.SHA256()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, sum)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// Close unmaps the files.
func (w *weights) Close() {
	for _, f := range w.files {
		f.Close()
	}
}
