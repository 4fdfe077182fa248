package sd

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
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

// snapshot is the folder of a checkpoint in the cache of a Hugging Face hub, where
// path is the cache's folder of a repository (models--ORG--NAME): the snapshot that
// refs/main names, or the only one. Any other path is itself.
func snapshot(path string) (string, error) {
	snapshots := filepath.Join(path, "snapshots")
	entries, err := os.ReadDir(snapshots)
	if err != nil || isFile(filepath.Join(path, "model_index.json")) {
		return path, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if main, err := readSmall(filepath.Join(path, "refs", "main")); err == nil {
		if name := strings.TrimSpace(string(main)); slices.Contains(names, name) {
			return filepath.Join(snapshots, name), nil
		}
	}
	if len(names) == 1 {
		return filepath.Join(snapshots, names[0]), nil
	}
	return "", fmt.Errorf("models: %s is the cache of a hub with %d snapshots, and refs/main names none of them; give the folder of one: %s", path, len(names), examples(names))
}

// fileWeights are those of one file, the set of that name if there is one.
func fileWeights(path, set string) (*weights, error) {
	f, err := checkpoint.OpenSet(path, set)
	if err != nil {
		return nil, err
	}
	return &weights{path: path, tensors: f.Tensors, files: []*checkpoint.File{f}}, nil
}

// loadPart opens the network of a part: open makes it of the folder's config.json
// and weights, whose keys are compared at once.
func loadPart[C componentConfig, N any](folder string, config C, variant string, open func(C, *weights, models.Options) (N, error), opt models.Options) (n N, err error) {
	if opt.Weights != "" {
		return n, fmt.Errorf("models: %s: weights %q: a folder of diffusers holds one set of weights; leave weights out, or choose its files by variant", folder, opt.Weights)
	}
	f := config.format()
	if len(opt.Taps) > 0 && f.untapped != "" {
		return n, fmt.Errorf("models: %s: layer %q: the attention maps of %s cannot be tapped", folder, opt.Taps[0].Layer, f.untapped)
	}
	if folder, err = snapshot(folder); err != nil {
		return n, err
	}
	if err := readConfig(folder, config); err != nil {
		return n, err
	}
	w, err := folderWeights(folder, f.stems, variant)
	if err != nil {
		return n, err
	}
	if n, err = open(config, w, opt); err != nil {
		w.Close()
	}
	return n, err
}

// stems are what the names of weight files begin with that a library saves.
type stems struct{ library, safetensors, bin string }

var (
	diffusersStems    = stems{"diffusers", "diffusion_pytorch_model", "diffusion_pytorch_model"}
	transformersStems = stems{"transformers", "model", "pytorch_model"}
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
	return fileWeights(path, "")
}

func chooseWeights(names []string, stem stems, variant string) (string, error) {
	if name := weightsOf(names, stem, variant); name != "" {
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
			return weightsOf(names, stem, v), nil
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

// weightsOf is the name of the file with the weights of a variant, "" where there
// is none.
func weightsOf(names []string, stem stems, variant string) string {
	for _, name := range []string{
		stem.file(variant, safetensorsEnd), stem.safetensors + ".safetensors.index." + variant + ".json", stem.file(variant, shardsEnd), stem.file(variant, binEnd),
	} {
		if slices.Contains(names, name) {
			return name
		}
	}
	return ""
}

// shardedWeights opens every file that an index names. Each tensor must lie in
// the file that the index says, and nowhere else.
func shardedWeights(index string) (*weights, error) {
	data, err := readSmall(index)
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
	for _, name := range slices.Compact(slices.Sorted(maps.Values(listed.WeightMap))) {
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

// sessions are those of a network with some of the weights: build describes its
// graph for inputs of a size.
func sessions[K comparable](w *weights, tensors checkpoint.StateDict, opt models.Options, build func(*onnx.Module, K) error) *models.Sessions[K] {
	opt.Content = w.SHA256
	return models.NewSessions(tensors, func(size K) (*ort.Session, error) {
		m, err := models.BuildHalf(tensors, opt.Half(), func(m *onnx.Module) error { return build(m, size) })
		if err != nil {
			return nil, fmt.Errorf("models: %s: %w", w.path, err)
		}
		return ort.Open(m, opt.Options)
	})
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

// readScheduler reads a scheduler_config.json.
func readScheduler(path string) (*sampling.SchedulerConfig, error) {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("models: %s is missing; it says which process the U-Net was trained on", path)
	}
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	c, err := sampling.ParseSchedulerConfig(data)
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return c, nil
}

// compVisScheduler is the process of Stable Diffusion 1.x, which its single-file
// checkpoints leave to the code, visited as the published folders say.
func compVisScheduler() *sampling.SchedulerConfig {
	return &sampling.SchedulerConfig{
		ClassName: "DDIMScheduler", NumTrainTimesteps: new(1000), BetaStart: new(0.00085), BetaEnd: new(0.012), BetaSchedule: new("scaled_linear"),
		PredictionType: new("epsilon"), TimestepSpacing: new("leading"), StepsOffset: new(1), SetAlphaToOne: new(false), ClipSample: new(false),
	}
}

// componentFiles are the files of a part of a diffusers folder.
func componentFiles(folder string, stem stems, variant string) ([]string, error) {
	folder, err := snapshot(folder)
	if err != nil {
		return nil, err
	}
	w, err := folderWeights(folder, stem, variant)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	files := []string{filepath.Join(folder, "config.json")}
	for _, f := range w.files {
		files = append(files, f.Path)
	}
	return files, nil
}
