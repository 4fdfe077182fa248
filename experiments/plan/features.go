package plan

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/features"
	"sagbench/sampling"
)

// A NetworkBlock holds the keys that the block of every feature network has,
// beside the network's own.
type NetworkBlock struct {
	Checkpoint string          `yaml:"checkpoint" doc:"the network's file"`
	WeightSet  string          `yaml:"weights" doc:"which of several sets of weights in the file, as inspect names them; empty = the usual one"`
	Resize     features.Resize `yaml:"resize" doc:"how images come to the network's size: tf (ADM's evaluator, torch-fidelity), torch (pytorch-fid), clean (clean-fid), pil (torchvision, dgm-eval), edm2 (EDM2), clip (transformers' CLIP: short side, then the centre), openai (openai/CLIP, OpenCLIP) or cmmd (the centre's square, then its size)"`
}

// Validate implements configs.Validator.
func (b *NetworkBlock) Validate() error {
	if _, ok := features.Resizes[b.Resize]; !ok {
		return fmt.Errorf("resize is %q, expected %s", b.Resize, features.ResizeNames)
	}
	return nil
}

// A FeatureNetwork is a network that images are compared with, as an experiment
// or the command line describes it.
type FeatureNetwork struct {
	features.Network
	NetworkBlock
	Flags   features.Flags
	Weights sampling.File
	set     string          // of the weights, where it is not the one that lies nearest in the file
	own     bool            // the resize is that of metrics, and not that of the network's block
	block   features.Resize // that of the block, where own is set
}

// Label tells the network from the same one with another resize, which metrics ask for
// (eval.Resized): its name, or clip-cmmd.
func (n FeatureNetwork) Label() string {
	if n.own {
		return n.Name + "-" + string(n.Resize)
	}
	return n.Name
}

// OwnResize tells whether the resize is that of metrics, and not that of the network's block.
func (n FeatureNetwork) OwnResize() bool { return n.own }

// OfSquares is the network for images that are all square, of which CLIP's ways to crop
// make the same pixels: features are computed, kept and found by one of them.
func (n FeatureNetwork) OfSquares() FeatureNetwork {
	if n.Resize == features.OpenAICrop || n.Resize == features.CMMDCrop {
		n.Resize = features.CLIPCrop
		n.own = n.own && n.block != features.CLIPCrop
	}
	return n
}

// NewFeatureNetwork is a network with the defaults of its block under a protocol.
func NewFeatureNetwork(n features.Network, p eval.Protocol) FeatureNetwork {
	out := FeatureNetwork{Network: n, Flags: n.New()}
	out.Resize = out.Flags.Resize()
	if n.FollowsProtocol && p.Resize != "" {
		out.Resize = features.Resize(p.Resize)
	}
	return out
}

// decodeFeatureNetwork reads the block of a network; a block that is not there
// stands for the defaults.
func decodeFeatureNetwork(n features.Network, b configs.Block, p eval.Protocol) (FeatureNetwork, error) {
	out := NewFeatureNetwork(n, p)
	if err := b.Only("checkpoint", "resize", "weights").Decode(&out.NetworkBlock); err != nil {
		return out, err
	}
	out.Weights = fileAt(b, "checkpoint")
	err := b.Without("checkpoint", "resize", "weights").Decode(out.Flags)
	out.adopt()
	return out, err
}

// adopt takes from the network's file what the flags leave to it.
func (n *FeatureNetwork) adopt() {
	if s, ok := n.Flags.(features.Sized); ok {
		s.Adopt(n.Weights.Path, n.WeightSet)
	}
	n.set = chosenSet(n.Weights.Path, n.WeightSet)
}

// Open prepares the network.
func (n FeatureNetwork) Open(ctx context.Context, opt models.Options) (features.Extractor, error) {
	opt.Weights = n.WeightSet
	return n.Flags.Extractor(ctx, n.Weights.Path, opt)
}

// Set sets flags of the network by their keys to values as they are typed. An
// unknown key or a bad value is an error, and so is an unknown resize. What is not
// set and lies in the network's file is taken from there.
func (n *FeatureNetwork) Set(values map[string]string) error {
	typed := map[string]any{}
	for key, value := range values {
		typed[key] = value
		if _, err := strconv.ParseFloat(value, 64); err == nil && json.Valid([]byte(value)) {
			typed[key] = json.Number(value) // without quotes
		}
	}
	data, err := json.Marshal(typed)
	if err != nil {
		return err
	}
	b, err := configs.Parse("--network", data)
	if err != nil {
		return err
	}
	err = configs.Join(b.Decode(n.Flags), n.NetworkBlock.Validate())
	n.adopt()
	return err
}

// networkNames lists the feature networks.
func networkNames() []string {
	var names []string
	for _, n := range features.Networks {
		names = append(names, n.Name)
	}
	return names
}

// Hash is the sha256 of the network's file, in hexadecimal; h keeps it. A file
// whose name holds the start of another hash is an error. Where the file has others
// beside it (models.FileLister), it is the hash of all their hashes.
func (n FeatureNetwork) Hash(h store.Hashes) (string, error) {
	var sum string
	info, err := os.Stat(n.Weights.Path)
	folder := err == nil && n.Folder && info.IsDir() // whose other files do not count
	if !folder {
		sum, err = h.Of(n.Weights.Path)
	}
	if err == nil && !folder {
		err = checkpoint.CheckName(n.Weights.Path, sum)
	}
	if _, ok := n.Flags.(models.FileLister); ok && err == nil {
		sum, err = hashFiles(n.Flags, n.Weights.Path, h)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.Name, err)
	}
	return sum, nil
}

// Input is the network's file or folder, as results hold it.
func (n FeatureNetwork) Input(h store.Hashes) (store.InputFile, error) {
	file := store.InputFile{Name: filepath.Base(n.Weights.Path)}
	var err error
	if n.Folder {
		file.SHA256, err = n.Hash(h)
	} else {
		file.SHA256, err = h.Of(n.Weights.Path)
	}
	return file, err
}

// Key tells features apart: two networks with equal keys compute the same. sha256
// is the hash of the file.
func (n FeatureNetwork) Key(sha256 string) string {
	key := fmt.Sprintf("%s %s %s %+v", n.Name, sha256, n.Resize, n.Flags)
	if n.set != "" {
		key += " weights " + n.set
	}
	return key
}

// Settings are the resize and the flags by their names, as JSON, and the set of
// weights where one was asked for, or it is not the one that lies nearest in the file.
func (n FeatureNetwork) Settings() (map[string]json.RawMessage, error) {
	all, err := Fields(n.Flags)
	if err == nil {
		all["resize"], err = configs.Canonical(n.Resize)
	}
	if set := cmp.Or(n.WeightSet, n.set); err == nil && set != "" {
		all["weights"], err = configs.Canonical(set)
	}
	return all, err
}

// A Comparison is the part of an evaluation that takes one network: the metrics
// that compare its features.
type Comparison struct {
	FeatureNetwork
	metrics []configs.Named[eval.Metric]
}

// ComparisonsOf groups metrics by network and resize, in the order in which these first
// occur. A metric that names no network of its own (eval.NetworkOf) takes main, one
// that names no resize (eval.ResizeOf) that of the network's block.
func ComparisonsOf(metrics []configs.Named[eval.Metric], networks map[string]FeatureNetwork, main string) []Comparison {
	var all []Comparison
	for _, m := range metrics {
		name := eval.NetworkOf(m.Value)
		if name == "" {
			name = main
		}
		n := networks[name]
		if own := features.Resize(eval.ResizeOf(m.Value)); own != "" && own != n.Resize {
			n.Resize, n.own, n.block = own, true, n.Resize
		}
		i := slices.IndexFunc(all, func(c Comparison) bool { return c.Label() == n.Label() })
		if i < 0 {
			i = len(all)
			all = append(all, Comparison{FeatureNetwork: n})
		}
		all[i].metrics = append(all[i].metrics, m)
	}
	return all
}

// CheckOutputs is an error where the opened network lacks an output that its
// metrics compare.
func (c Comparison) CheckOutputs(x features.Extractor) error {
	_, classifies := x.(features.Classifying)
	has := eval.Parts{
		Spatial: slices.Contains(x.Outputs(), features.Spatial),
		Logits:  classifies || slices.Contains(x.Outputs(), features.Logits),
		Outputs: strings.Join(x.Outputs(), " "),
	}
	err := eval.CheckOutputs(filepath.Base(c.Weights.Path), has, c.Metrics()...)
	if _, known := features.Resizes[c.Resize]; !known {
		err = errors.Join(err, fmt.Errorf("%s: resize is %q, expected %s", c.MetricNames(), c.Resize, features.ResizeNames))
	}
	if form := c.TextForm(); form != "" && err == nil {
		t, texts := x.(features.Texting)
		if !texts {
			return fmt.Errorf("%s embeds no texts, which %s needs", filepath.Base(c.Weights.Path), c.MetricNames())
		}
		err = t.CheckTexts()
	}
	return err
}

// TextForm is how the metrics that compare images with captions have these handed to the
// network; "" where there is none. All that take one resize of a network have one form.
func (c Comparison) TextForm() string {
	for _, m := range c.metrics {
		if form := eval.TextFormOf(m.Value); form != "" {
			return form
		}
	}
	return ""
}

// Metrics are the metrics that compare the network's features.
func (c Comparison) Metrics() []eval.Metric {
	var all []eval.Metric
	for _, m := range c.metrics {
		all = append(all, m.Value)
	}
	return all
}

// Needs are the parts of features that the metrics compare.
func (c Comparison) Needs() eval.Needs { return eval.NeedsOf(c.Metrics()...) }

// MetricNames lists the metrics: "fid, sfid".
func (c Comparison) MetricNames() string {
	var all []string
	for _, m := range c.metrics {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}

// metricRegistry reads metrics whose defaults are a protocol's.
func metricRegistry(p eval.Protocol) configs.Registry[eval.Metric] {
	return configs.Registry[eval.Metric](p.Metrics)
}

// DescribeProtocol names a protocol with all settings of the main network n and of
// the metrics that differ from it: "adm", or "adm with resize=torch, is.splits=10".
func DescribeProtocol(p eval.Protocol, n FeatureNetwork, metrics []configs.Named[eval.Metric]) (string, error) {
	var others []string
	switch {
	case !n.FollowsProtocol:
		others = append(others, "network="+n.Name)
	case string(n.Resize) != p.Resize:
		others = append(others, fmt.Sprintf("resize=%s", n.Resize))
	}
	for _, m := range metrics {
		own, err := Fields(m.Value)
		if err != nil {
			return "", err
		}
		usual, err := Fields(p.Metrics[m.Name]())
		if err != nil {
			return "", err
		}
		for _, field := range slices.Sorted(maps.Keys(own)) {
			if !bytes.Equal(own[field], usual[field]) {
				others = append(others, fmt.Sprintf("%s.%s=%s", m.Name, field, strings.Trim(string(own[field]), `"`)))
			}
		}
	}
	if len(others) == 0 {
		return p.Name, nil
	}
	return p.Name + " with " + strings.Join(others, ", "), nil
}

// ForeignMetrics is a line about the metrics that the protocol's program does not
// have; none where it has all. Metrics with a network of their own do not count:
// they have a protocol of their own.
func ForeignMetrics(p eval.Protocol, metrics []configs.Named[eval.Metric]) []string {
	var names []string
	for _, m := range metrics {
		if !slices.Contains(p.Own, m.Name) && eval.NetworkOf(m.Value) == "" {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: not a metric of %s; computed as docs/evaluation.md says, from the same features", strings.Join(names, ", "), p.Name)}
}

// ParseMetrics reads the list of metrics of the command line: "fid, is: {splits: 10}".
func ParseMetrics(p eval.Protocol, list string) ([]configs.Named[eval.Metric], error) {
	b, err := configs.Parse("--metrics", []byte("metrics: ["+list+"]"))
	if err != nil {
		return nil, err
	}
	at, _ := b.At("metrics")
	chosen, err := metricRegistry(p).Many(at)
	if err == nil && len(chosen) == 0 {
		err = errors.New("--metrics names no metric")
	}
	return chosen, err
}
