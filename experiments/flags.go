package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// globals are the flags of every command.
type globals struct {
	device   string
	threads  int
	results  string
	quiet    bool
	fallback bool

	precision string // of the commands that have computes
}

func (g *globals) register(f *pflag.FlagSet) {
	g.device = "cpu"
	f.Var(deviceFlag{&g.device}, "device", "where networks run: cpu, cuda[:N], webgpu[:N], openvino[:CPU|GPU[.N]|NPU] or tensorrt-rtx[:N]; `sagbench devices` lists what is here")
	boundedInt(f, &g.threads, "threads", 0, 0, 4096, "threads of a network call; 0 for all cores")
	g.results = "results"
	f.Var((*named)(&g.results), "results", "folder of the results")
	f.BoolVar(&g.fallback, "allow-fallback", false, "accept that nodes with weights run elsewhere than on the device, which is an error otherwise")
	f.BoolVar(&g.quiet, "quiet", false, "no progress, only what is out of the ordinary")
}

// A named is the value of a flag for a file or a folder, which may not be empty: that
// is most often a variable of the shell that is not set.
type named string

func (n *named) String() string { return string(*n) }

func (*named) Type() string { return "string" }

// Set implements pflag.Value.
func (n *named) Set(text string) error {
	if text == "" {
		return errors.New("is empty, expected a path")
	}
	*n = named(text)
	return nil
}

// A boundedFlag is a whole number that a flag sets, with both ends of its range.
type boundedFlag struct {
	to       *int
	low, top int
}

// boundedInt is IntVar for a number from low to top.
func boundedInt(f *pflag.FlagSet, to *int, name string, value, low, top int, usage string) {
	*to = value
	f.Var(&boundedFlag{to, low, top}, name, usage)
}

func (b *boundedFlag) String() string { return strconv.Itoa(*b.to) }

func (*boundedFlag) Type() string { return "int" }

// Set implements pflag.Value.
func (b *boundedFlag) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < b.low || n > b.top {
		return fmt.Errorf("expected a whole number from %d to %d", b.low, b.top)
	}
	*b.to = n
	return nil
}

// A stringValue is a flag's value that help calls a string.
type stringValue struct{ pflag.Value }

func (stringValue) Type() string { return "string" }

// runOptions are the flags for what runs an experiment.
func (g *globals) runOptions() run.Options {
	return run.Options{Results: g.results, Runtime: g.runtime(), Progress: g.progress()}
}

// progress is how the work is reported.
func (g *globals) progress() *human.Progress {
	p := human.NewProgress(os.Stderr)
	p.Quiet = g.quiet
	return p
}

// runtime is how networks are run.
func (g *globals) runtime() ort.Options {
	return ort.Options{Device: g.device, Threads: g.threads, AllowFallback: g.fallback}
}

// networkFlags are the flags of the command line that choose feature networks,
// made from the table of them.
type networkFlags struct {
	network, resize string
	weights         string
	inputSize       int
	files           map[string]*string            // --NAME of those that are published
	arguments       map[string]*map[string]string // values of a network's own flags by key
}

func (n *networkFlags) register(f *pflag.FlagSet) {
	n.files, n.arguments = map[string]*string{}, map[string]*map[string]string{}
	var published, sizes []string
	for _, row := range features.Networks {
		sizes = append(sizes, row.Size)
		if row.Usage != "" {
			published = append(published, row.Name)
			n.files[row.Name] = f.String(row.Name, "", row.Usage)
		}
		for _, a := range row.Arguments {
			n.arguments[a.Flag] = &map[string]string{}
			if len(a.Keys) > 1 {
				f.StringToStringVar(n.arguments[a.Flag], a.Flag, nil, a.Usage)
				continue
			}
			f.Func(a.Flag, a.Usage, func(value string) error {
				(*n.arguments[a.Flag])[a.Keys[0]] = value
				return nil
			})
			f.Lookup(a.Flag).Value = stringValue{f.Lookup(a.Flag).Value}
		}
	}
	last := len(sizes) - 1
	f.StringVar(&n.network, "network", features.Networks[0].Name, "whose features the metrics compare: "+strings.Join(published, ", ")+", or an .onnx file of your own")
	boundedInt(f, &n.inputSize, "input-size", 0, 0, 4096, "height and width that images are resized to; 0 = "+strings.Join(sizes[:last], ", ")+", or "+sizes[last])
	f.StringVar(&n.weights, "weights", "", "which of several sets of weights in the network's file, as inspect names them; the usual one if absent")
	f.StringVar(&n.resize, "resize", "", "how: tf (ADM's evaluator), torch (pytorch-fid), clean (clean-fid), pil (dgm-eval) or edm2; the protocol's for inception, pil for others if absent")
}

// comparisons are the networks that the metrics take, and the name of the main one.
func (n *networkFlags) comparisons(f *pflag.FlagSet, p eval.Protocol, metrics []configs.Named[eval.Metric]) (all []plan.Comparison, main string, err error) {
	networks, chosen, err := n.networks(f, p)
	if err != nil {
		return nil, "", err
	}
	all = plan.ComparisonsOf(metrics, networks, chosen)
	main = all[0].Name
	for _, c := range all {
		if err := checkFile(c.FeatureNetwork); err != nil {
			return nil, "", fmt.Errorf("%s: %w", c.MetricNames(), err)
		}
		if c.Name == chosen {
			main = c.Name
		}
	}
	return all, main, nil
}

// main is the main network alone.
func (n *networkFlags) main(f *pflag.FlagSet, p eval.Protocol) (plan.FeatureNetwork, error) {
	networks, chosen, err := n.networks(f, p)
	if err != nil {
		return plan.FeatureNetwork{}, err
	}
	return networks[chosen], checkFile(networks[chosen])
}

// checkFile reports that the flag of a network's file is missing.
func checkFile(n plan.FeatureNetwork) error {
	if n.Weights.Path != "" {
		return nil
	}
	own := ""
	if n.Name == features.Networks[0].Name {
		own = "; or models/pretrained/inception.pt of the repository, a network of an eighth of the width whose scores compare with each other only; or another network: --network dinov2 --dinov2 FILE, --network FILE.onnx --output pool=NAME --range RANGE"
	}
	return human.Misusef("--%s is missing: the weights of the %s, published as %s at %s%s", n.Name, n.Title, n.File, plan.PublishedFiles[n.File].Page, own)
}

// networks are the feature networks as the flags describe them, and the name of
// the main one, whose resize and size the flags set.
func (n *networkFlags) networks(f *pflag.FlagSet, p eval.Protocol) (all map[string]plan.FeatureNetwork, main string, err error) {
	all = map[string]plan.FeatureNetwork{}
	var expected []string
	for _, row := range features.Networks {
		one, path := plan.NewFeatureNetwork(row, p), ""
		if file := n.files[row.Name]; file != nil {
			path = *file
			expected = append(expected, row.Name)
		}
		isMain := row.Suffix == "" && n.network == row.Name || row.Suffix != "" && strings.HasSuffix(strings.ToLower(n.network), row.Suffix)
		if isMain && row.Suffix != "" {
			path = n.network
		}
		one.Checkpoint, one.Weights.Path = path, path
		values, err := n.values(f, row, isMain)
		if err != nil {
			return nil, "", err
		}
		if isMain {
			main, one.WeightSet = row.Name, n.weights
			if n.resize != "" {
				one.Resize = features.Resize(n.resize)
			}
			if n.inputSize != 0 {
				values["input_size"] = fmt.Sprint(n.inputSize)
			}
		}
		if err := one.Set(values); err != nil {
			return nil, "", human.Misuse{Err: err}
		}
		all[row.Name] = one
	}
	if main == "" {
		return nil, "", human.Misusef("--network is %q, expected %s or the path of an .onnx file", n.network, strings.Join(expected, ", "))
	}
	return all, main, nil
}

// values are the keys of a network's block that its own flags set.
func (n *networkFlags) values(f *pflag.FlagSet, row features.Network, isMain bool) (map[string]string, error) {
	values := map[string]string{}
	for _, a := range row.Arguments {
		if f.Changed(a.Flag) && !isMain {
			return nil, human.Misusef("--%s is for --network FILE%s", a.Flag, row.Suffix)
		}
		for key, value := range *n.arguments[a.Flag] {
			if !slices.Contains(a.Keys, key) {
				last := len(a.Keys) - 1
				return nil, human.Misusef("--%s %s=%s: expected %s=NAME or %s=NAME", a.Flag, key, value, strings.Join(a.Keys[:last], "=NAME, "), a.Keys[last])
			}
			values[key] = value
		}
	}
	return values, nil
}
