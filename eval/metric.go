package eval

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Metric compares a generated set of images with a reference. Its exported
// fields are its options.
type Metric interface {
	// Column says what the table shows, also before anything is computed.
	Column() Column
	// Score computes the metric. An error says what is missing or damaged.
	Score(ctx context.Context, ref, gen *Features) ([]Score, error)
}

// An OnNetwork is a Metric of the features of one network, by its name in a
// table of networks. All other metrics take the features of any.
type OnNetwork interface {
	Metric
	Network() string
}

// NetworkOf is the network that a metric's features have to come from, "" for
// any.
func NetworkOf(m Metric) string {
	if on, ok := m.(OnNetwork); ok {
		return on.Network()
	}
	return ""
}

// scoreOn is the metric's score where the features come from its network.
func scoreOn(ctx context.Context, m Metric, ref, gen *Features) ([]Score, error) {
	if n := NetworkOf(m); n != "" && (ref.Network != n || gen.Network != n) {
		return nil, fmt.Errorf("it compares features of %s; those of %s come from %q, those of %s from %q", n, ref.name(), ref.Network, gen.name(), gen.Network)
	}
	return m.Score(ctx, ref, gen)
}

// Direction says which way a score gets better.
type Direction string

// The two directions, as tables print them.
const (
	Higher Direction = "↑"
	Lower  Direction = "↓"
)

// A Column names a score.
type Column struct {
	Name      string    `json:"name"`      // key, "sfid"
	Title     string    `json:"title"`     // as printed, "sFID"
	Direction Direction `json:"direction"` // Higher or Lower is better
	Decimals  int       `json:"decimals"`  // that papers print
}

// A Score is one number of a table.
type Score struct {
	Column
	Value    float64  `json:"value"`
	Std      float64  `json:"std,omitempty"`      // over splits or subsets; 0 where there is none
	Note     string   `json:"note,omitempty"`     // how it was computed
	Warnings []string `json:"warnings,omitempty"` // why it may mislead
}

func (c Column) score(value float64, note string) Score {
	return Score{Column: c, Value: value, Note: note}
}

// Metrics are the known metrics with their default options: those of the ADM
// evaluator for FID, sFID, IS, precision and recall.
var Metrics = map[string]func() Metric{
	"fid":            func() Metric { return &FID{Mean: MeanFloat32} },
	"sfid":           func() Metric { return &SpatialFID{Mean: MeanFloat32} },
	"is":             func() Metric { return &InceptionScore{SplitSize: 5000} },
	"precision":      func() Metric { return &Precision{K: 3, Distance: DistanceADM} },
	"recall":         func() Metric { return &Recall{K: 3, Distance: DistanceADM} },
	"prdc_precision": func() Metric { return &PRDCPrecision{K: 5} },
	"prdc_recall":    func() Metric { return &PRDCRecall{K: 5} },
	"density":        func() Metric { return &Density{K: 5} },
	"coverage":       func() Metric { return &Coverage{K: 5} },
	"kid":            func() Metric { return &KID{Subsets: 100, SubsetSize: 1000, Seed: 2020} },
	"fd_dinov2":      func() Metric { return &FDDINOv2{Mean: MeanFloat64} },
	"fid_infinity":   func() Metric { return &FIDInfinity{Points: 15, Smallest: 5000, Seed: 2020} },
}

// A Report is the outcome of an evaluation.
type Report struct {
	Scores   []Score
	Warnings []string // of all scores, each once
}

// Evaluate scores gen against ref with each metric in turn. The report holds
// what could be computed even where the error tells of metrics that failed.
func Evaluate(ctx context.Context, ref, gen *Features, metrics ...Metric) (Report, error) {
	var report Report
	if err := errors.Join(ref.Validate(), gen.Validate()); err != nil {
		return report, err
	}
	var faults []error
	for _, m := range metrics {
		scores, err := scoreOn(ctx, m, ref, gen)
		if err != nil {
			faults = append(faults, fmt.Errorf("eval: %s: %w", m.Column().Name, err))
			if ctx.Err() != nil {
				break
			}
		}
		for _, s := range scores {
			report.Scores = append(report.Scores, s)
			for _, w := range s.Warnings {
				if !slices.Contains(report.Warnings, w) {
					report.Warnings = append(report.Warnings, w)
				}
			}
		}
	}
	return report, errors.Join(faults...)
}
