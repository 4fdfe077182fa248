package plan

import (
	"fmt"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/models/features"
)

// Settings are an experiment file's vocabulary: one row of its table after
// include, sweep and rows are done with. docs/configuration.md is generated from
// them. The blocks of the feature networks stand beside them.
type Settings struct {
	Name           string        `yaml:"name" doc:"name of the experiment and of its folder below --results"`
	Samples        int           `yaml:"samples" min:"1" max:"10000000" doc:"images of each row; asking for more later goes on where the run stopped"`
	Seed           uint64        `yaml:"seed" min:"0" max:"18446744073709551615" doc:"of all noise and labels; image i depends on the seed and on i alone, so rows are paired"`
	Batch          int           `yaml:"batch" min:"1" max:"4096" doc:"images that are drawn together and, while a row is sampled, lie in one file; a network call takes an image once for each condition that it is predicted under (with cfg twice)"`
	ModelBlock     configs.Block `yaml:"model" doc:"family, checkpoint, and the family's flags as its authors spell them; weights: which of several sets of weights in the checkpoint, as inspect names them, absent: an average (EMA) where there is one; precision: float32 (exact; the default), tf32, bfloat16 or float16, of those that the device has: docs/devices.md"`
	Labels         Labels        `yaml:"labels" type:"name, list or mapping" doc:"the class of each image, of a network that is conditioned on classes: random (absent: the same), drawn for each image as a function of the seed and its number, with replacement; balanced, image i has class i mod K; [207, 360], image i has the class of place i mod n of the n; {207: 500, 360: 500}, so many images of each class, which are samples together"`
	Prompting      `yaml:",inline"`
	SamplerBlock   configs.Block     `yaml:"sampler" type:"name or block" doc:"one sampler with its options: {ddpm: {steps: 250}}"`
	GuidanceBlock  configs.Block     `yaml:"guidance" type:"block, or list of blocks" doc:"any number of guidances with their options, in the order in which they are applied: {sag: {scale: 0.5, layer: output_blocks.8.1}}"`
	ReferencePath  string            `yaml:"reference" doc:"reference batch in the layout of ADM's evaluator (.npz with arr_0 and, as a rule, mu, sigma, mu_s, sigma_s), or images: a folder, .zip, .tar, .parquet or .npy"`
	Network        string            `yaml:"network" doc:"whose features the metrics compare: inception, dinov2 or onnx, described by the block of that name; fd_dinov2 is of dinov2 whatever this is"`
	ProtocolName   string            `yaml:"protocol" doc:"whose numbers: adm, pytorch-fid, torch-fidelity or clean-fid; sets the defaults of inception.resize and of the metrics' options"`
	Bootstrap      int               `yaml:"bootstrap" min:"0" max:"100000" doc:"times that the images are drawn again for a 95 % interval of each metric, and for compare: at least 40, or 0 for none"`
	Search         Search            `yaml:"search" doc:"finds the best rows of the sweep with few images, round by round, in place of drawing samples: of each: {metric: fid, budget: 60000}; sets bootstrap to 200 where it is 0: docs/search.md"`
	Trace          Trace             `yaml:"trace" doc:"what self-attention guidance does at a few steps of the first images, drawn again beside the results for report and grid --trace: {images: 4, steps: 3}; changes no image and no score"`
	MetricsBlock   configs.Block     `yaml:"metrics" type:"list of metrics" doc:"by name, or with options: [fid, is: {splits: 10}]; none: images are drawn and not evaluated"`
	PublishedBlock Published         `yaml:"published" type:"mapping of metrics to numbers, or to lists of them" doc:"the authors' values, shown beside ours: {fid: 26.21}, or a list with one value (or null) for each row of the sweep: {fid: [26.21, 20.31]}"`
	Sources        map[string]Source `yaml:"sources" doc:"where the authors publish the files, by file name; shown when one is missing"`
}

// defaults is an experiment before its file is read.
func defaults() Settings {
	return Settings{Samples: 50_000, Batch: 16, ProtocolName: eval.DefaultProtocol, Network: features.Networks[0].Name, Search: defaultSearch()}
}

// A Trace says of how many images, and at how many of their steps, what guidance does
// is kept; none of both for no trace.
type Trace struct {
	Images int `yaml:"images" min:"0" max:"64" doc:"the first so many images of each row that self-attention guidance guides"`
	Steps  int `yaml:"steps" min:"0" max:"64" doc:"evenly spread over the sampler's steps"`
}

// Validate is an error where one of both numbers is missing.
func (t *Trace) Validate() error {
	if (t.Images > 0) != (t.Steps > 0) {
		return fmt.Errorf("images is %d and steps is %d, expected both, such as {images: 4, steps: 3}, or none", t.Images, t.Steps)
	}
	return nil
}

// A Source says where a file comes from.
type Source struct {
	Page string `yaml:"page" doc:"the page on which its authors publish the file"`
	Size string `yaml:"size" doc:"its size, for people: 2.1 GB"`
}

// maxBatch bounds a network call against a mistyped number.
const maxBatch = 4096

// maxName is the longest name of an experiment, in bytes: file systems take 255, and
// a folder that is being written has a longer name for a while.
const maxName = 200

// Validate implements configs.Validator.
func (e *Settings) Validate() error {
	var faults []error
	fault := func(is bool, format string, args ...any) {
		if is {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!store.FolderName.MatchString(e.Name), "name is %q, expected letters, digits, '.', '_' and '-': it names the folder of the results", e.Name)
	fault(len(e.Name) > maxName, "name has %d letters, expected at most %d: it names the folder of the results", len(e.Name), maxName)
	fault(e.Samples < 1, "samples is %d, expected at least 1", e.Samples)
	fault(e.Batch < 1 || e.Batch > maxBatch, "batch is %d, expected 1 to %d", e.Batch, maxBatch)
	err := eval.CheckDraws(e.Bootstrap)
	fault(err != nil, "%w", err)
	_, err = eval.ProtocolOf(e.ProtocolName)
	fault(err != nil, "%w", err)
	fault(!slices.Contains(networkNames(), e.Network), "network is %q, expected %s", e.Network, strings.Join(networkNames(), ", "))
	return configs.Join(faults...)
}

// Published are the authors' values by the metric's name: one value, or one for
// each row of the sweep; nil where the authors give none.
type Published map[string]publishedValues

type publishedValues struct {
	values []*float64
	at     configs.Block
}

// UnmarshalBlock implements configs.Unmarshaler.
func (p *publishedValues) UnmarshalBlock(b configs.Block) error {
	p.at = b
	if b.IsList() {
		return b.Decode(&p.values)
	}
	p.values = make([]*float64, 1)
	return b.Decode(&p.values[0])
}

// row is the values for row i of n. overridden tells that the command line set
// something, so that a list of another length than n is no mistake.
func (p Published) row(i, n int, overridden bool) (map[string]float64, error) {
	var faults []error
	out := map[string]float64{}
	for name, v := range p {
		switch {
		case len(v.values) == n && v.values[i] != nil:
			out[name] = *v.values[i]
		case len(v.values) != n && !overridden:
			faults = append(faults, v.at.Errorf("%d values for the %d rows of the sweep; give a list of %d, with null where the authors give none", len(v.values), n, n))
		}
	}
	return out, configs.Join(faults...)
}
