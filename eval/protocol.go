package eval

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/eval/neighbours"
)

// A Protocol is how a published program resizes images and computes metrics. The
// numbers of two programs differ by resizing, arithmetic and order of images; a
// result names its protocol.
type Protocol struct {
	Name   string
	Source string // the program whose numbers these are
	Resize string // how images come to the network's size: tf, torch or clean
	Flat   bool   // the program does not look into the subfolders of a folder of images
	// Own lists the metrics that the program has. The others are computed as by
	// the ADM evaluator or, where it has no such metric, by the metric's authors.
	Own     []string
	Metrics map[string]func() Metric // all metrics, with the program's options as defaults
}

// DefaultProtocol is the one that papers on diffusion models use.
const DefaultProtocol = "adm"

// Protocols are the known protocols by name.
//
// None of them adds 10⁻⁶ to the covariances, as all but torch-fidelity do
// where SciPy's root of Σ₁Σ₂ fails: whether it fails depends on SciPy's
// version and on rounding, and the root here does not. FID's option offset
// gives the number that such a rescue leads to.
var Protocols = map[string]Protocol{
	"adm": {
		Source: "openai/guided-diffusion, evaluations/evaluator.py", Resize: "tf",
		Own:     []string{"fid", "sfid", "is", "precision", "recall"},
		Metrics: Metrics,
	},
	"pytorch-fid": {
		Source: "mseitzer/pytorch-fid", Resize: "torch", Flat: true,
		Own: []string{"fid"},
		Metrics: defaults(map[string]func() Metric{
			"fid":  func() Metric { return &FID{Mean: MeanFloat64} },
			"sfid": func() Metric { return &SpatialFID{Mean: MeanFloat64} },
		}),
	},
	"torch-fidelity": {
		Source: "toshas/torch-fidelity, Inception features", Resize: "tf", Flat: true,
		Own: []string{"fid", "is", "kid", "precision", "recall"},
		Metrics: defaults(map[string]func() Metric{
			"is":        func() Metric { return &InceptionScore{Splits: 10, Shuffle: true} },
			"precision": func() Metric { return &Precision{K: 3, Distance: neighbours.DistanceF32} },
			"recall":    func() Metric { return &Recall{K: 3, Distance: neighbours.DistanceF32} },
		}),
	},
	"clean-fid": {
		Source: "GaParmar/clean-fid, mode clean", Resize: "clean",
		Own: []string{"fid", "kid"},
		Metrics: defaults(map[string]func() Metric{
			"kid": func() Metric { return &KID{Subsets: 100, SubsetSize: 1000, Seed: 2020, Shrink: true} },
		}),
	},
}

// defaults are Metrics with some replaced.
func defaults(others map[string]func() Metric) map[string]func() Metric {
	all := maps.Clone(Metrics)
	maps.Copy(all, others)
	return all
}

// Mean is the arithmetic of the mean of pool features.
func (p Protocol) Mean() MeanType { return p.Metrics["fid"]().(*FID).Mean }

// Choice are the images that stand for n in a reference batch: count of them,
// in order (numpy.random.RandomState(0).permutation(n)[:count], sorted).
func Choice(n, count int) []int {
	chosen := newRandomState(0).permutation(n)[:count]
	slices.Sort(chosen)
	return chosen
}

// ProtocolOf is the protocol of that name.
func ProtocolOf(name string) (Protocol, error) {
	p, ok := Protocols[name]
	if !ok {
		return p, fmt.Errorf("protocol is %q; known: %s", name, strings.Join(slices.Sorted(maps.Keys(Protocols)), ", "))
	}
	p.Name = name
	return p, nil
}
