// Package eval turns features of images into the numbers of a paper's table.
//
// In go two sets of features, a reference and a generated one, each with the
// parts that are known: rows of pool features, their mean and covariance
// (computed, or read from a reference .npz in the layout of the ADM evaluator),
// statistics of spatial features, class logits. Out come scores: FID, sFID,
// Inception Score, precision and recall, density and coverage, KID, FID at
// infinitely many samples; and their bootstrap intervals.
//
// Each metric is a file that opens with its formula and source, and a row in
// Metrics. Where implementations in use differ in arithmetic, the ADM
// evaluator (openai/guided-diffusion, evaluations/evaluator.py) is the default
// and the others are options. The network that computes features is not here.
//
// Large matrix products go through linalg.Products; whatever grows with the
// number of images is a stream or a sequence of blocks.
package eval

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"sagbench/eval/linalg"
	"sagbench/eval/neighbours"
	"sagbench/eval/rows"
)

// A Metric compares a generated set of images with a reference. Its exported
// fields are its options.
type Metric interface {
	// Column says what the table shows, also before anything is computed.
	Column() Column
	// Needs says which parts of the two sets Score looks at.
	Needs() Needs
	// MinImages is the least number of images that a set has to have.
	MinImages() int
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

// A Resized is a Metric whose authors bring images to the size of its network in a way
// that is not the network's usual one: Resize names it, "" for the usual one.
type Resized interface {
	Metric
	Resize() string
}

// ResizeOf is the resize that a metric asks for, "" for that of its network.
func ResizeOf(m Metric) string {
	if r, ok := m.(Resized); ok {
		return r.Resize()
	}
	return ""
}

// A Captioned is a Metric that compares images with their captions: it finds the
// embeddings of these in Features.Texts.
type Captioned interface {
	Metric
	// TextForm names how a text is handed to the network.
	TextForm() string
}

// TextFormOf is how the captions of a metric are handed to the network; "" where it
// looks at none.
func TextFormOf(m Metric) string {
	if c, ok := m.(Captioned); ok {
		return c.TextForm()
	}
	return ""
}

// A Published is a Metric whose published values are of one of many networks of a
// kind, as PublishedOn names it; "" where they are of several.
type Published interface {
	Metric
	PublishedOn() string
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
	Note     string   `json:"note,omitempty"`     // what it is of: options of the metric, numbers of images
	Numerics string   `json:"numerics,omitempty"` // by which arithmetic it was computed, which is no option
	Warnings []string `json:"warnings,omitempty"` // why it may mislead
}

func (c Column) score(value float64, note string) Score {
	return Score{Column: c, Value: value, Note: note}
}

// Metrics are the known metrics, a new one being a file and a row here, with their default options: those of the ADM
// evaluator for FID, sFID, IS, precision and recall.
var Metrics = map[string]func() Metric{
	"fid":            func() Metric { return &FID{Mean: MeanFloat32} },
	"sfid":           func() Metric { return &SpatialFID{Mean: MeanFloat32} },
	"is":             func() Metric { return &InceptionScore{SplitSize: 5000} },
	"precision":      func() Metric { return &Precision{K: 3, Distance: neighbours.DistanceADM} },
	"recall":         func() Metric { return &Recall{K: 3, Distance: neighbours.DistanceADM} },
	"prdc_precision": func() Metric { return &PRDCPrecision{K: 5} },
	"prdc_recall":    func() Metric { return &PRDCRecall{K: 5} },
	"density":        func() Metric { return &Density{K: 5} },
	"coverage":       func() Metric { return &Coverage{K: 5} },
	"kid":            func() Metric { return &KID{Subsets: 100, SubsetSize: 1000, Seed: 2020} },
	"fd_dinov2":      func() Metric { return &FDDINOv2{Mean: MeanFloat64} },
	"fid_infinity":   func() Metric { return &FIDInfinity{Points: 15, Smallest: 5000, Seed: 2020} },
	"cmmd":           func() Metric { return &CMMD{Pixels: "cmmd"} },
	"clip_score":     func() Metric { return &CLIPScore{Definition: TorchMetrics} },
}

// Parts names parts of Features.
//
// A metric of features that no other metric has needed takes two files beside
// its own: this one, for a field of Parts and of Features and its row in
// Metrics, and the one that collects what a network computes.
type Parts struct {
	Pool        bool // rows of pool features, N·D·4 bytes
	Stats       bool // mean and covariance of pool features
	Spatial     bool // mean and covariance of spatial features
	Logits      bool // class logits of single images
	SpatialRows bool // rows of spatial features, N·2023·4 bytes
	// Outputs are further outputs of the network that are wanted, row by row: their
	// names in alphabetical order with spaces between. A metric of an output that
	// nobody looked at before names it here and finds it in Features.Outputs.
	Outputs string
}

// Union is the parts of p and of q.
func (p Parts) Union(q Parts) Parts {
	outputs := append(strings.Fields(p.Outputs), strings.Fields(q.Outputs)...)
	slices.Sort(outputs)
	return Parts{p.Pool || q.Pool, p.Stats || q.Stats, p.Spatial || q.Spatial, p.Logits || q.Logits, p.SpatialRows || q.SpatialRows,
		strings.Join(slices.Compact(outputs), " ")}
}

// Resampled are the parts that a bootstrap needs: it draws rows again.
func (p Parts) Resampled() Parts {
	p.Pool, p.SpatialRows = true, p.Spatial
	return p
}

// Needs are the parts of each set that metrics look at.
type Needs struct{ Reference, Generated Parts }

// NeedsOf are the parts that the metrics need together. The statistics of pool
// features are always among them, so that files of features serve other metrics; those
// of the reference are not where all of the metrics compare images with captions, and
// nothing of it is needed.
func NeedsOf(metrics ...Metric) Needs {
	n := Needs{Parts{Stats: true}, Parts{Stats: true}}
	if len(metrics) > 0 && !slices.ContainsFunc(metrics, func(m Metric) bool { return TextFormOf(m) == "" }) {
		n.Reference = Parts{}
	}
	for _, m := range metrics {
		own := m.Needs()
		n.Reference, n.Generated = n.Reference.Union(own.Reference), n.Generated.Union(own.Generated)
	}
	return n
}

// CheckOutputs is an error for each metric that needs features of single images
// which a network does not compute. outputs are the parts that it computes,
// network is its name in messages.
func CheckOutputs(network string, outputs Parts, metrics ...Metric) error {
	var spatial, logits, others []error
	lacks := func(part string, m Metric) error {
		return fmt.Errorf("%s has no %s, which %s needs; leave it out of the metrics", network, part, m.Column().Name)
	}
	for _, m := range metrics {
		needs := m.Needs().Generated
		if needs.Spatial && !outputs.Spatial {
			spatial = append(spatial, lacks("spatial features", m))
		}
		if needs.Logits && !outputs.Logits {
			logits = append(logits, lacks("class logits", m))
		}
		for _, name := range strings.Fields(needs.Outputs) {
			if !slices.Contains(strings.Fields(outputs.Outputs), name) {
				others = append(others, lacks("output "+name, m))
			}
		}
	}
	return errors.Join(slices.Concat(spatial, logits, others)...)
}

// statisticsOfPool is embedded by metrics of the statistics of pool features.
type statisticsOfPool struct{}

// Needs implements Metric.
func (statisticsOfPool) Needs() Needs { return Needs{Parts{Stats: true}, Parts{Stats: true}} }

// MinImages implements Metric: a covariance takes two images.
func (statisticsOfPool) MinImages() int { return 2 }

// Bounds implements Bounded: it is a distance.
func (statisticsOfPool) Bounds() (low, high float64) { return 0, math.Inf(1) }

// rowsOfPool is embedded by metrics of the pool features of single images.
type rowsOfPool struct{}

// Needs implements Metric.
func (rowsOfPool) Needs() Needs { return Needs{Parts{Pool: true}, Parts{Pool: true}} }

// shareOfPool is embedded by those that are shares of images.
type shareOfPool struct{ rowsOfPool }

// Bounds implements Bounded.
func (shareOfPool) Bounds() (low, high float64) { return 0, 1 }

// A Report is the outcome of an evaluation.
type Report struct {
	Scores   []Score
	Warnings []string // of all scores, each once
	Failed   []Failure
}

// A Failure is a metric that could not be computed, and why.
type Failure struct {
	Metric string // its column's name
	Err    error
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
			report.Failed = append(report.Failed, Failure{m.Column().Name, err})
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

// Features is what is known about one set of images. Any part may be missing;
// a metric that needs it says so and names what would supply it.
type Features struct {
	Source      string               // file, folder or run, for messages
	Network     string               // that the features come from, by its name in a table of networks; "" = unknown
	N           int                  // images with pool features
	D           int                  // pool features of an image
	Pool        []float32            // [N,D] pool features in file order; nil where only statistics are known
	Stats       *Stats               // of pool features; nil: computed from Pool. A reference's may be of more images than Pool
	Spatial     *Stats               // of spatial features (sFID)
	SpatialRows []float32            // [N,S] the spatial features themselves; nil unless a bootstrap needs them
	Logits      []float32            // [N,K] class logits in file order; nil: Pool·ClassWeightᵀ
	Outputs     map[string][]float32 // [N,…] further outputs of the network by their names, as Parts.Outputs asks for
	Texts       []float32            // [N,D] embeddings of the images' captions; nil unless a metric is Captioned
	ClassWeight []float32            // [K,D] last layer of the classifier, without bias
	Products    linalg.Products      // nil: Gonum
	Notes       []string             // what was assumed, converted or left out, for people
	Held        []*rows.Rows         // what holds Pool, Logits and SpatialRows, where they may lie in a file; Close frees it

	Height, Width int // of the first image in pixels; 0 = not known

	mu   sync.Mutex
	memo map[any]any // radii, statistics: what a sweep computes once for its reference
}

// Validate reports parts that do not fit each other and values that are not
// finite (a *NotFiniteError that names the image).
func (f *Features) Validate() error {
	var faults []error
	fail := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("eval: %s: %w", f.name(), fmt.Errorf(format, args...)))
	}
	if f.Pool != nil {
		if f.N < 1 || f.D < 1 || len(f.Pool) != f.N*f.D {
			fail("%d pool features, expected %d images of %d", len(f.Pool), f.N, f.D)
		} else if err := f.checkFinite(f.Pool, f.D); err != nil {
			fail("%w", err)
		}
	}
	for what, s := range map[string]*Stats{"pool": f.Stats, "spatial": f.Spatial} {
		if s != nil && len(s.Cov) != s.D()*s.D() {
			fail("%s statistics: mean of %d, covariance of %d values", what, s.D(), len(s.Cov))
		}
	}
	if f.Pool != nil && f.Stats != nil && f.Stats.D() != f.D {
		fail("pool features of %d dimensions, statistics of %d", f.D, f.Stats.D())
	}
	if f.SpatialRows != nil {
		if f.N < 1 || f.Spatial == nil || len(f.SpatialRows) != f.N*f.Spatial.D() {
			fail("%d spatial features of %d images that do not fit their statistics", len(f.SpatialRows), f.N)
		} else if err := f.checkFinite(f.SpatialRows, f.Spatial.D()); err != nil {
			fail("spatial features: %w", err)
		}
	}
	rows := map[string][]float32{}
	maps.Copy(rows, f.Outputs)
	if f.Texts != nil {
		rows["embeddings of captions"] = f.Texts
	}
	if f.Logits != nil {
		rows["logits"] = f.Logits
	}
	for what, values := range rows {
		if f.N < 1 || len(values)%f.N != 0 {
			fail("%d %s for %d images", len(values), what, f.N)
		} else if what == "logits" { // −∞ is the probability 0; the Inception Score refuses others
			continue
		} else if err := f.checkFinite(values, len(values)/f.N); err != nil {
			fail("%s: %w", what, err)
		}
	}
	if f.ClassWeight != nil && (f.D < 1 || len(f.ClassWeight)%f.D != 0) {
		fail("class weight of %d values for %d features", len(f.ClassWeight), f.D)
	}
	return errors.Join(faults...)
}

// checkFinite is an error about the first of rows of width values that is not finite.
func (f *Features) checkFinite(rows []float32, width int) error {
	const images = 4096
	for at := 0; at < len(rows); at += images * width {
		part := rows[at:min(at+images*width, len(rows))]
		if err := checkFinite(part, width, at/width); err != nil {
			return err
		}
		f.Touched(len(part))
	}
	return nil
}

// Touched tells that so many values of single images were looked at, so that those
// in a file need not stay in memory.
func (f *Features) Touched(values int) {
	for _, r := range f.Held {
		r.Touched(values)
	}
}

// Close frees the features of single images, which must not be used any more, where
// they lie in a file.
func (f *Features) Close() error {
	var faults []error
	for _, r := range f.Held {
		faults = append(faults, r.Close())
	}
	return errors.Join(faults...)
}

func (f *Features) name() string {
	if f.Source == "" {
		return "features"
	}
	return f.Source
}

// products are those of the first set that has any.
func products(sets ...*Features) linalg.Products {
	for _, f := range sets {
		if f.Products != nil {
			return f.Products
		}
	}
	return linalg.Gonum{}
}

// poolStats are the statistics of the pool features, given or computed once.
func (f *Features) poolStats() (*Stats, error) {
	if f.Stats != nil {
		return f.Stats, nil
	}
	if f.Pool == nil {
		return nil, fmt.Errorf("%s has no pool statistics: a reference .npz supplies them as mu and sigma, images as arr_0", f.name())
	}
	return remember(f, "pool stats", func() (*Stats, error) {
		s, err := StatsOf(f.Pool, f.D, f.Products)
		if err != nil {
			return nil, err
		}
		s.Source = f.Source
		return s, nil
	})
}

// requirePools checks that both sets have pool features of one dimension.
func requirePools(ref, gen *Features) error {
	if err := errors.Join(ref.requirePool(), gen.requirePool()); err != nil {
		return err
	}
	if ref.D != gen.D {
		return fmt.Errorf("%s has %d features an image, %s has %d: they come from different networks",
			ref.name(), ref.D, gen.name(), gen.D)
	}
	return nil
}

// requirePool reports that there are no features of single images.
func (f *Features) requirePool() error {
	if f.Pool == nil {
		return fmt.Errorf("%s has no features of single images: statistics are not enough, an .npz with arr_0 supplies them", f.name())
	}
	return nil
}

// remember computes a value once for a set of features.
func remember[T any](f *Features, key any, compute func() (T, error)) (T, error) {
	f.mu.Lock()
	v, ok := f.memo[key]
	f.mu.Unlock()
	if ok {
		return v.(T), nil
	}
	value, err := compute()
	if err != nil {
		return value, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memo == nil {
		f.memo = map[any]any{}
	}
	f.memo[key] = value
	return value, nil
}
