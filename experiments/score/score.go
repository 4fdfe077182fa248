// Package score evaluates images: sets of images or of their features go in,
// scores with all that led to them come out. One engine serves run, eval and
// reference.
package score

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// An Engine scores sets of images against references. It keeps the feature
// networks, and the features of the last reference, for the sets that follow. It
// is used by one goroutine at a time.
type Engine struct {
	options  ort.Options
	hashes   store.Hashes
	progress *human.Progress
	open     map[string]*openNetwork // by the network's label
	said     map[string]bool         // notes that were shown
	label    string                  // before warnings: the set among several that they are about
	share    *Share                  // with other processes; nil: there are none
}

// An openNetwork is a feature network with the features of the reference.
type openNetwork struct {
	*Extractor
	reference    *eval.Features
	referenceKey string        // what these are of
	read         images.Report // in computing them
}

// Close frees the network and the features of the reference.
func (o *openNetwork) Close() {
	o.forget()
	o.Extractor.Close()
}

// forget frees the features of the reference.
func (o *openNetwork) forget() {
	if o.reference != nil {
		o.reference.Close()
		o.reference, o.referenceKey = nil, ""
	}
}

// NewEngine is an engine whose networks run as opt says and which tells p what is
// going on. h may hold the hashes of files that were read before.
func NewEngine(opt ort.Options, h store.Hashes, p *human.Progress) *Engine {
	opt.Note = p.Note
	said := map[string]bool{}
	opt.Placed = func(placed ort.Placement) {
		if text := PlacementOf(placed).String(); !said[text] {
			said[text] = true
			p.Note("note: features: " + text)
		}
	}
	return &Engine{options: opt, hashes: h, progress: p, open: map[string]*openNetwork{}, said: map[string]bool{}}
}

// PlacementOf is a placement as results hold it.
func PlacementOf(p ort.Placement) store.Placement {
	return store.Placement{Graph: p.Graph[:10], Device: p.Device, Hardware: p.Hardware, Precision: p.Precision, Nodes: p.Nodes, Elsewhere: p.Elsewhere}
}

// Close frees all networks.
func (e *Engine) Close() {
	for name, c := range e.open {
		c.Close()
		delete(e.open, name)
	}
}

// A job is one evaluation.
type job struct {
	comparisons []plan.Comparison // the feature networks, each with its metrics
	reference   fileSet
	samples     imageSet
	captions    *captions // of the samples; nil unless a metric compares images with them
	bootstrap   int       // draws of the samples; 0: none
	nearest     Nearest   // of the samples, in the features of the network called main
	main        string
	perClass    bool     // score single classes as well
	classes     *byClass // of these images; nil until they are read
	published   bool     // say where the samples are not of the number that published scores are of
}

// An imageSet is where the features of images come from.
type imageSet interface {
	features(ctx context.Context, e *Engine, x *Extractor, want eval.Parts) (*eval.Features, images.Report, error)
}

// A fileSet is an .npz, an .npy, a folder or an archive, with images or their
// statistics.
type fileSet struct {
	path string
	read images.Options
}

// features implements imageSet.
func (s fileSet) features(ctx context.Context, e *Engine, x *Extractor, want eval.Parts) (*eval.Features, images.Report, error) {
	sum, err := e.hashes.Of(s.path)
	if err != nil {
		return nil, images.Report{}, err
	}
	return x.reference(ctx, s.path, sum, s.read, want, e.progress)
}

// An outcome is what an evaluation found.
type outcome struct {
	scores             []store.Score
	failed             []store.Failure   // metrics without a score
	replicates         *store.Replicates // nil without a bootstrap
	nearest            *store.Neighbours // nil where it was not asked for
	perClass           *store.PerClass   // nil where it was not asked for
	count              int               // of the samples
	notes              []string          // what was assumed, converted or left out
	reference, samples store.SetRead
	captions           *store.Captions // nil where no metric looked at any
}

// evaluate scores the samples of a job, network by network. The outcome holds
// what could be computed even where the error tells of metrics that failed.
func (e *Engine) evaluate(ctx context.Context, j job) (outcome, error) {
	var out outcome
	if d, err := ort.ParseDevice(e.options.Device); err == nil && d.Name != "cpu" {
		out.note("features were computed on " + d.String())
	}
	if j.bootstrap > 0 {
		out.replicates = &store.Replicates{Values: map[string][]float64{}}
	}
	networks, err := e.networks(ctx, j.comparisons)
	if err != nil {
		return out, err
	}
	var faults []error
	for i, c := range j.comparisons {
		known := len(out.scores) + len(out.failed)
		err := e.compare(ctx, j, c, networks[i], &out)
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
		if err != nil && len(out.scores)+len(out.failed) == known { // there were no features
			for _, m := range c.Metrics() {
				out.failed = append(out.failed, store.Failure{Metric: m.Column().Name, Reason: err.Error()})
			}
		}
	}
	if err := e.hashes.Unchanged(true); err != nil {
		return outcome{}, err
	}
	return out, errors.Join(faults...)
}

// networks opens the feature networks, unless they are open.
func (e *Engine) networks(ctx context.Context, comparisons []plan.Comparison) ([]*openNetwork, error) {
	networks := make([]*openNetwork, len(comparisons))
	var faults []error
	for i, c := range comparisons {
		x, err := e.network(ctx, c.FeatureNetwork)
		if err == nil {
			err = c.CheckOutputs(x.Net)
		}
		networks[i], faults = x, append(faults, err)
	}
	return networks, errors.Join(faults...)
}

// prepare opens the networks of a job, and computes the features of its reference.
func (e *Engine) prepare(ctx context.Context, j job) error {
	networks, err := e.networks(ctx, j.comparisons)
	if err != nil {
		return err
	}
	for i, c := range j.comparisons {
		if _, err := e.referenceOf(ctx, j.reference, networks[i], j.wants(c).Reference); err != nil && !errors.Is(err, errHelped) {
			return err
		}
		networks[i].Net.Rest()
	}
	return nil
}

// wants are the parts of both sets that a comparison takes.
func (j job) wants(c plan.Comparison) eval.Needs {
	n := c.Needs()
	if j.bootstrap > 0 {
		n.Generated = n.Generated.Resampled()
	}
	if j.nearest.Neighbours > 0 && c.Label() == j.main {
		n.Reference.Pool, n.Generated.Pool = true, true
	}
	if j.perClass {
		n.Reference, n.Generated = n.Reference.Resampled(), n.Generated.Resampled()
	}
	return n
}

// network opens a feature network, unless it is open.
func (e *Engine) network(ctx context.Context, n plan.FeatureNetwork) (*openNetwork, error) {
	sum, err := n.Hash(e.hashes)
	if err != nil {
		return nil, err
	}
	if x := e.open[n.Label()]; x != nil {
		if x.key() == n.Key(sum) {
			return x, nil
		}
		x.Close()
		delete(e.open, n.Label())
	}
	x, err := newExtractor(ctx, n, e.hashes, e.options)
	if err != nil {
		return nil, err
	}
	x.share = e.share
	e.open[n.Label()] = &openNetwork{Extractor: x}
	return e.open[n.Label()], nil
}

// compare adds the scores of one network's metrics to the outcome.
func (e *Engine) compare(ctx context.Context, j job, c plan.Comparison, x *openNetwork, out *outcome) error {
	needs := j.wants(c)
	ref := &eval.Features{Source: j.reference.path, Network: x.Name} // of which nothing is needed
	var err error
	if needs.Reference != (eval.Parts{}) {
		ref, err = e.referenceOf(ctx, j.reference, x, needs.Reference)
	}
	if err != nil && !errors.Is(err, errHelped) {
		return err
	}
	if e.share.helps() {
		if _, _, err = j.samples.features(ctx, e, x.Extractor, needs.Generated); errors.Is(err, errHelped) {
			err = nil
		}
		return err
	}
	for _, n := range x.unusual(c.Metrics()) {
		e.say(out, n)
	}
	notes, err := models.SetNotes(c.Weights.Path, c.WeightSet)
	if err != nil {
		return err
	}
	for _, n := range notes {
		e.say(out, n)
	}
	out.reference.Add(ref, x.read)
	out.note(ref.Notes...)
	gen, read, err := j.samples.features(ctx, e, x.Extractor, needs.Generated)
	if err != nil {
		return err
	}
	defer gen.Close()
	out.samples.Add(gen, read)
	out.note(gen.Notes...)
	if n := unlikeSizes(ref, gen); n != "" {
		e.say(out, n)
	}
	if form := c.TextForm(); form != "" {
		if err := e.embed(ctx, x.Extractor, form, j.captions, gen, read, out); err != nil {
			return err
		}
	}
	e.progress.End()
	x.Net.Rest()
	if out.count == 0 {
		out.count = gen.N
		if n := unusualNumber(gen); n != "" && j.published {
			e.say(out, n)
		}
	}
	scores, failed, err := e.score(ctx, ref, gen, c.Metrics())
	out.failed = append(out.failed, failed...)
	if err == nil && j.bootstrap > 0 {
		if err = e.redraw(ctx, ref, gen, c.Metrics(), scores, j.bootstrap, out.replicates); err != nil {
			out.note("intervals are missing: " + relative(err.Error(), ref, gen))
		}
	}
	if d, ok := x.Net.(features.Described); ok { // one of many of its kind: every score names it
		for i := range scores {
			scores[i].Note = strings.TrimPrefix(scores[i].Note+", "+d.Name(), ", ")
		}
	}
	out.scores = append(out.scores, scores...)
	if j.classes != nil {
		err = errors.Join(err, e.scoreClasses(ctx, j, c, ref, gen, x.read, read, out))
	}
	if j.nearest.Neighbours > 0 && c.Label() == j.main {
		err = errors.Join(err, e.findNearest(ctx, j, c, ref, gen, x.read, read, out))
	}
	return err
}

// say adds a line to the notes, and shows it where no earlier evaluation of this
// engine has.
func (e *Engine) say(o *outcome, line string) {
	o.note(line)
	e.sayOnce(line)
}

// sayOnce shows a line where it was not shown before.
func (e *Engine) sayOnce(line string) {
	if !e.said[line] {
		e.said[line] = true
		e.progress.Note("note: " + line)
	}
}

// note adds lines that are not there.
func (o *outcome) note(lines ...string) {
	for _, n := range lines {
		if !slices.Contains(o.notes, n) {
			o.notes = append(o.notes, n)
		}
	}
}

// referenceOf are the features of a reference, which are kept until another one
// is asked for: rows of a table are compared with the same.
func (e *Engine) referenceOf(ctx context.Context, s fileSet, x *openNetwork, want eval.Parts) (*eval.Features, error) {
	sum, err := e.hashes.Of(s.path)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	key := fmt.Sprintf("%s %v", sum, want)
	if x.reference != nil && x.referenceKey == key {
		return x.reference, nil
	}
	x.forget()
	if x.reference, x.read, err = s.features(ctx, e, x.Extractor, want); err != nil {
		return nil, err
	}
	x.referenceKey = key
	return x.reference, nil
}

// score computes the metrics: those that can be computed, and an error about the
// others, which failed lists.
func (e *Engine) score(ctx context.Context, ref, gen *eval.Features, metrics []eval.Metric) (out []store.Score, failed []store.Failure, err error) {
	report, err := eval.Evaluate(ctx, ref, gen, metrics...)
	for _, w := range report.Warnings {
		e.progress.Warn(e.label + relative(w, ref, gen))
	}
	out, failed, fault := scoresOf(report, ref, gen)
	return out, failed, errors.Join(err, fault)
}

// scoresOf are the scores of a report as results hold them, and the metrics that have
// none; the error is about those whose value is no number.
func scoresOf(report eval.Report, ref, gen *eval.Features) (out []store.Score, failed []store.Failure, err error) {
	var faults []error
	fail := func(metric string, err error) {
		failed = append(failed, store.Failure{Metric: metric, Reason: relative(err.Error(), ref, gen)})
	}
	for _, f := range report.Failed {
		fail(f.Metric, f.Err)
	}
	for _, s := range report.Scores {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			err := fmt.Errorf("%s of %s is %g; look at the images and at the statistics of %s", s.Title, gen.Source, s.Value, ref.Source)
			fail(s.Name, err)
			faults = append(faults, err)
			continue
		}
		direction := store.LowerIsBetter
		if s.Direction == eval.Higher {
			direction = store.HigherIsBetter
		}
		own := store.Score{Name: s.Name, Title: s.Title, Value: s.Value, Direction: direction, Decimals: s.Decimals, Std: s.Std, Note: s.Note, Numerics: s.Numerics}
		for _, w := range s.Warnings {
			own.Warnings = append(own.Warnings, relative(w, ref, gen))
		}
		out = append(out, own)
	}
	return out, failed, errors.Join(faults...)
}

// redraw draws the generated images again, keeps the scores of each draw, and
// gives scores their intervals.
func (e *Engine) redraw(ctx context.Context, ref, gen *eval.Features, metrics []eval.Metric, scores []store.Score, count int, keep *store.Replicates) error {
	draws, err := eval.NewDraws(gen.N, count, store.BootstrapSeed)
	if err != nil {
		return err
	}
	e.progress.Stage("bootstrap", "metrics", 0, len(metrics))
	defer e.progress.End()
	draws.Progress = func(done int) { e.progress.Working(float64(done) / float64(count)) }
	for _, m := range metrics {
		name := m.Column().Name
		values, err := eval.Replicates(ctx, m, ref, gen, draws)
		if err != nil {
			return err
		}
		keep.Names = append(keep.Names, name)
		keep.Values[name] = values
		for i := range scores {
			if scores[i].Name == name {
				interval := eval.IntervalOf(m, scores[i].Value, values)
				scores[i].Interval = &interval
			}
		}
		e.progress.Add(1)
	}
	return nil
}

// relative is a line of a result without the folders of this machine.
func relative(line string, ref, gen *eval.Features) string {
	line = strings.TrimPrefix(line, gen.Source+": ")
	for _, set := range []*eval.Features{ref, gen} {
		if set.Source != "" {
			line = strings.ReplaceAll(line, set.Source, filepath.Base(set.Source))
		}
	}
	return line
}

// unusual tells of a network that published numbers of metrics are not of, and what was
// taken that its files do not say; nothing where it is the usual one, or there is none
// of its kind.
func (x *Extractor) unusual(metrics []eval.Metric) (notes []string) {
	if d, ok := x.Net.(features.Described); ok {
		notes = append(notes, d.Notes()...)
		for _, m := range metrics {
			if p, ok := m.(eval.Published); ok && p.PublishedOn() != "" && p.PublishedOn() != d.Name() {
				notes = append(notes, fmt.Sprintf("%s is %s; published values of %s are of %s, and compare with those of the same network only", filepath.Base(x.Weights.Path), d.Name(), m.Column().Title, p.PublishedOn()))
			}
		}
	}
	if n := x.unusualSize(); n != "" {
		notes = append(notes, n)
	}
	return notes
}

func (x *Extractor) unusualSize() string {
	width, side := x.Net.Width(), x.side()
	if x.UsualWidth == 0 || width == x.UsualWidth && side == x.UsualSide {
		return ""
	}
	return fmt.Sprintf("%s is not the %s of published numbers: %d features of images of %d×%d pixels, not %d of %d×%d; its scores compare with each other only",
		filepath.Base(x.Weights.Path), x.Title, width, side, side, x.UsualWidth, x.UsualSide, x.UsualSide)
}

// unlikeSizes tells that images are compared with others of another size, all of which
// the feature network resizes; "" where they are not, or one of both is not known.
func unlikeSizes(ref, gen *eval.Features) string {
	if ref.Height == 0 || gen.Height == 0 || ref.Height == gen.Height && ref.Width == gen.Width {
		return ""
	}
	return fmt.Sprintf("samples of %d×%d pixels are compared with a reference of %d×%d, by their first images; published numbers are of images of one size", gen.Height, gen.Width, ref.Height, ref.Width)
}

// usualSamples are the samples that published numbers are of: evaluators of
// diffusion models ask for so many.
const usualSamples = 50_000

// unusualNumber tells of a number of samples that published numbers are not of; ""
// where it is the usual one or not known.
func unusualNumber(gen *eval.Features) string {
	n := gen.N
	if n == 0 && gen.Stats != nil {
		n = gen.Stats.N
	}
	if n == 0 || n == usualSamples {
		return ""
	}
	return fmt.Sprintf("%d samples: published numbers are of %d as a rule, and FID, sFID, IS, recall and coverage change with it", n, usualSamples)
}

// Versions are those of everything that computes, by its name: sagbench, sampling,
// onnxruntime and, where networks run on them, kernels. The error tells that ONNX
// Runtime is not there.
func Versions(opt ort.Options) (map[string]string, error) {
	runtime, err := ort.RuntimeVersion()
	v := map[string]string{"sagbench": store.Version, "sampling": fmt.Sprint(plan.SamplingVersion), "onnxruntime": runtime}
	if opt.HasKernels() {
		v["kernels"] = ort.Kernels()
	}
	return v, err
}
