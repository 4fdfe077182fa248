package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
)

// An Experiment is an experiment file's vocabulary: one row of its table after
// include, sweep and rows are done with. docs/configuration.md is generated
// from it.
type Experiment struct {
	Name      string        `yaml:"name" doc:"name of the experiment and of its folder below --results"`
	Samples   int           `yaml:"samples" doc:"images a row; asking for more later goes on where the run stopped"`
	Seed      uint64        `yaml:"seed" doc:"of all noise and labels; image i depends on the seed and on i alone, so rows are paired"`
	Batch     int           `yaml:"batch" doc:"images that are drawn together, and a file while a row is sampled; a network call takes each once for every condition that it is predicted under (with cfg twice)"`
	Model     configs.Block `yaml:"model" doc:"family, checkpoint, and the family's flags as its authors spell them"`
	Prompting `yaml:",inline"`
	Sampler   configs.Block     `yaml:"sampler" doc:"one sampler with its options: {ddpm: {steps: 250}}"`
	Guidance  configs.Block     `yaml:"guidance" doc:"any number of guidances with their options, in the order in which they are applied: {sag: {scale: 0.5, layer: output_blocks.8.1}}"`
	Reference string            `yaml:"reference" doc:"reference batch in the layout of ADM's evaluator (.npz with arr_0 and, as a rule, mu, sigma, mu_s, sigma_s), or images: a folder, .zip or .npy"`
	Network   string            `yaml:"network" doc:"whose features the metrics compare: inception, dinov2 or onnx, described by the block of that name; fd_dinov2 is of dinov2 whatever this is"`
	Inception Inception         `yaml:"inception" doc:"the network that images are compared with"`
	DINOv2    DINOv2            `yaml:"dinov2" doc:"the network that fd_dinov2 compares images with, and all metrics with network: dinov2"`
	ONNX      ONNX              `yaml:"onnx" doc:"a feature network of your own, for network: onnx"`
	Protocol  string            `yaml:"protocol" doc:"whose numbers: adm, pytorch-fid, torch-fidelity or clean-fid; sets the defaults of inception.resize and of the metrics' options"`
	Bootstrap int               `yaml:"bootstrap" doc:"times that the images are drawn again for a 95 % interval of each metric, and for compare; 0: none"`
	Metrics   configs.Block     `yaml:"metrics" doc:"list of metrics; none: images are drawn and not evaluated"`
	Published Published         `yaml:"published" doc:"the authors' values, shown beside ours: {fid: 26.21}, or a list with one value (or null) for each row of the sweep: {fid: [26.21, 20.31]}"`
	Sources   map[string]Source `yaml:"sources" doc:"where the authors publish the files, by file name; shown when one is missing"`
}

// defaults is an experiment before its file is read.
func defaults() Experiment {
	e := Experiment{Samples: 50_000, Batch: 16, Protocol: eval.DefaultProtocol}
	e.defaultNetworks()
	return e
}

// An Inception is the block of the network that images are compared with.
type Inception struct {
	Checkpoint       string        `yaml:"checkpoint" doc:"FID Inception with pytorch-fid's names (pt_inception-2015-12-05-6726825d.pth)"`
	Resize           models.Resize `yaml:"resize" doc:"how images come to input_size: tf (ADM's evaluator, torch-fidelity), torch (pytorch-fid), clean (clean-fid), pil or edm2"`
	models.Inception `yaml:",inline"`
}

// A Source says where a file comes from.
type Source struct {
	Page string `yaml:"page" doc:"the page on which its authors publish the file"`
	Size string `yaml:"size" doc:"its size, for people: 2.1 GB"`
}

var folderName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// maxBatch bounds a network call against a mistyped number.
const maxBatch = 4096

// Validate implements configs.Validator.
func (e *Experiment) Validate() error {
	var faults []error
	fault := func(is bool, format string, args ...any) {
		if is {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!folderName.MatchString(e.Name), "name is %q, expected letters, digits, '.', '_' and '-': it names the folder of the results", e.Name)
	fault(e.Samples < 1, "samples is %d, expected at least 1", e.Samples)
	fault(e.Bootstrap != 0 && e.Bootstrap < eval.MinReplicates, "bootstrap is %d, expected 0 or at least %d", e.Bootstrap, eval.MinReplicates)
	fault(e.Batch < 1 || e.Batch > maxBatch, "batch is %d, expected 1 to %d", e.Batch, maxBatch)
	_, err := eval.ProtocolOf(e.Protocol)
	return configs.Join(append(faults, err, e.checkNetwork())...)
}

// Validate implements configs.Validator.
func (c *Inception) Validate() error {
	return checkResize(c.Resize)
}

// Published are the authors' values by the metric's name: one value, or one for
// each row of the sweep; nil where the authors give none.
type Published map[string]publishedValues

type publishedValues struct {
	values []*float64
	list   bool
	at     configs.Block
}

// UnmarshalBlock implements configs.Unmarshaler.
func (p *publishedValues) UnmarshalBlock(b configs.Block) error {
	p.at, p.list = b, b.IsList()
	if p.list {
		return b.Decode(&p.values)
	}
	p.values = make([]*float64, 1)
	return b.Decode(&p.values[0])
}

// row is what the values say for row i of n.
func (p Published) row(i, n int, overridden bool) (map[string]float64, error) {
	var faults []error
	out := map[string]float64{}
	for name, v := range p {
		at := i
		switch {
		case !v.list && n == 1:
			at = 0
		case len(v.values) == n && v.list:
		case overridden: // the command line asks for other rows than the authors'
			continue
		default:
			faults = append(faults, v.at.Errorf("%d values for the %d rows of the sweep; give a list of %d, with null where the authors give none", len(v.values), n, n))
			continue
		}
		if v.values[at] != nil {
			out[name] = *v.values[at]
		}
	}
	return out, configs.Join(faults...)
}

// MarshalJSON implements json.Marshaler: the form that the file has.
func (p publishedValues) MarshalJSON() ([]byte, error) {
	if p.list {
		return json.Marshal(p.values)
	}
	return json.Marshal(p.values[0])
}

// describe names a row by what tells it from the others.
func describe(label string, settings []configs.Setting) string {
	var parts []string
	if label != "" {
		parts = append(parts, label)
	}
	for i, name := range settingNames(settings) {
		parts = append(parts, name+"="+settings[i].Value)
	}
	if len(parts) == 0 {
		return "run"
	}
	return strings.Join(parts, " ")
}

// settingNames are the last keys of the paths, with as many keys before them as
// it takes to tell them apart.
func settingNames(settings []configs.Setting) []string {
	names := make([]string, len(settings))
	for i, s := range settings {
		keys := strings.Split(s.Path, ".")
		for n := 1; n <= len(keys); n++ {
			names[i] = strings.Join(keys[len(keys)-n:], ".")
			same := 0
			for _, other := range settings {
				if other.Path == names[i] || strings.HasSuffix(other.Path, "."+names[i]) {
					same++
				}
			}
			if same == 1 {
				break
			}
		}
	}
	for i, s := range settings { // as the paper calls it
		if s.Path == "guidance.sag.scale" && names[i] == "scale" && !slices.Contains(names, "s") {
			names[i] = "s"
		}
	}
	return names
}
