package score

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// A Task is an evaluation of sets of images against one reference, as the command eval
// asks for it.
type Task struct {
	Protocol    eval.Protocol
	Comparisons []plan.Comparison // the networks, each with its metrics
	Main        string            // label of the network that --network chose
	Reference   string            // path
	Samples     []string          // paths of the sets, at least one
	Captions    string            // path of the captions of each set; "": those that the sets tell
	Metrics     []configs.Named[eval.Metric]
	Bootstrap   int  // draws of the samples; 0: none
	PerClass    bool // score single classes as well
	Nearest     Nearest
	Read        images.Options
	Share       *Share // of the features, with other processes; nil: there are none

	referenceClasses []images.About // see PerClass
}

// Run scores the sets against the reference, network by network. Networks are opened,
// and features of the reference computed, once. Where a metric fails, the evaluation holds
// the others beside the error, and why it failed; a set that fails does not keep others
// from being evaluated. What Run returns is nil where no metric was come to, and in a process that
// only helps another.
func (t *Task) Run(ctx context.Context, opt ort.Options, p *human.Progress) (*store.Evaluations, error) {
	defer p.End()
	e := NewEngine(opt, store.Hashes{}, p)
	defer e.Close()
	e.share = t.Share
	t.Read.Flat = t.Protocol.Flat
	paths := map[string]string{"reference": t.Reference}
	several := len(t.Samples) > 1
	if !several {
		paths["samples"] = t.Samples[0] // so that one error tells of all files
	}
	files, err := e.hashes.Files(paths)
	for _, c := range t.Comparisons {
		file, wrong := c.Input(e.hashes)
		files[t.role(c)], err = file, errors.Join(err, wrong)
	}
	if err != nil {
		return nil, err
	}
	out := &store.Evaluations{Format: store.EvaluationFormat}
	notes := plan.ForeignMetrics(t.Protocol, t.Metrics)
	for _, n := range notes {
		p.Note("note: " + n)
	}
	if t.PerClass {
		if t.referenceClasses, err = t.reference().classesOf(ctx); err != nil {
			return nil, err
		}
	}
	if t.Nearest.Neighbours > 0 { // before hours of computing
		for _, set := range []fileSet{t.reference(), t.samples(t.Samples[0])} {
			if err := set.checkImages(ctx); err != nil {
				return nil, err
			}
		}
	}
	if several { // what fails here would fail for each
		if err := e.prepare(ctx, t.job(t.Samples[0])); err != nil {
			return nil, err
		}
	}
	names := human.ShortPaths(t.Samples)
	var faults []error
	for i, path := range t.Samples {
		if several {
			e.label = names[i] + ": "
		}
		one, err := t.evaluate(ctx, e, path, names[i], files, notes)
		if ctx.Err() != nil {
			return nil, err
		}
		if several && err != nil && one != nil && len(one.Scores) == 0 && one.Samples == 0 {
			one = nil // there were no features
		}
		if one != nil {
			out.Evaluations = append(out.Evaluations, one)
		}
		if err != nil && several && !strings.Contains(err.Error(), path) {
			err = fmt.Errorf("%s: %w", names[i], err)
		}
		if err != nil && one == nil {
			out.Failed = append(out.Failed, store.FailedSet{Set: names[i], Reason: strings.ReplaceAll(strings.TrimPrefix(err.Error(), names[i]+": "), path, names[i])})
		}
		faults = append(faults, err)
		if several && path != t.Reference {
			delete(e.hashes, path) // what becomes of the set from now on is no concern of the others
		}
	}
	if err = errors.Join(faults...); len(out.Evaluations) == 0 {
		return nil, err
	}
	if several {
		out.Notes = together(out.Evaluations)
		for _, n := range out.Notes {
			p.Note("note: " + n)
		}
	}
	return out, err
}

// reference is the set that samples are compared with.
func (t *Task) reference() fileSet {
	whole := t.Read
	whole.Subset = nil
	return fileSet{t.Reference, whole}
}

// samples is the set at a path.
func (t *Task) samples(path string) fileSet { return fileSet{path, t.Read} }

// job is the evaluation of the set at a path.
func (t *Task) job(path string) job {
	return job{
		comparisons: t.Comparisons, reference: t.reference(), samples: t.samples(path),
		bootstrap: t.Bootstrap, perClass: t.PerClass, nearest: t.Nearest, main: t.Main, published: true,
	}
}

// evaluate scores the set at a path; name is what the result calls it. notes are those
// that every set has.
func (t *Task) evaluate(ctx context.Context, e *Engine, path, name string, files map[string]store.InputFile, notes []string) (*store.Evaluation, error) {
	sum, err := e.hashes.Of(path)
	if err != nil {
		return nil, err
	}
	notes = slices.Clone(notes)
	if files["reference"].SHA256 == sum && t.Read.Subset == nil {
		same := fmt.Sprintf("REF and SAMPLES have the same content (sha256 %.12s…): the scores are those of a set compared with itself", sum)
		notes = append(notes, same)
		e.progress.Note("note: " + e.label + same)
	}
	job := t.job(path)
	if t.captioned() && !t.Share.helps() { // before hours of computing
		if job.captions, err = readCaptions(ctx, path, t.samples(path).read, t.Captions); err != nil {
			return nil, err
		}
	}
	if t.PerClass {
		samples, err := t.samples(path).classesOf(ctx)
		if err != nil { // before hours of computing
			return nil, err
		}
		job.classes = &byClass{t.referenceClasses, samples}
	}
	found, err := e.evaluate(ctx, job)
	if len(found.scores)+len(found.failed) == 0 || ctx.Err() != nil {
		return nil, err
	}
	out := &store.Evaluation{
		Format: store.EvaluationFormat, Scores: found.scores, Failed: found.failed, Samples: found.count, Notes: append(notes, found.notes...),
		PerClass: found.perClass, Near: found.nearest,
		Inputs: map[string]store.Input{
			"reference": {InputFile: files["reference"], SetRead: found.reference},
			"samples":   {InputFile: store.InputFile{Name: name, SHA256: sum}, SetRead: found.samples},
		},
	}
	if c := found.captions; c != nil {
		out.Inputs["captions"] = store.Input{InputFile: c.InputFile, CaptionsRead: &c.CaptionsRead}
	}
	if r := found.replicates; r != nil && len(r.Values) > 0 {
		out.Draws = &store.EvaluationDraws{Seed: store.BootstrapSeed, Images: found.count, Values: r.Values}
		names, errNames := t.names(ctx, path, found.samples)
		if errNames != nil {
			return nil, errNames
		}
		out.Draws.Names = store.NamesSum(names)
	}
	if fault := t.describe(out, files, e); fault != nil {
		return nil, fault
	}
	return out, err
}

// numbered is the name of an image that has none, of an array or a table.
var numbered = regexp.MustCompile(`(^|\s)(image|row) [0-9]+$`)

// names are those of a set's images but for the broken ones, in their order; nil where
// they have none.
func (t *Task) names(ctx context.Context, path string, read store.SetRead) ([]string, error) {
	if read.Images == nil {
		return nil, nil
	}
	set, err := eval.ReadReference(ctx, path, t.samples(path).read)
	if err != nil || set.Images == nil {
		return nil, err
	}
	defer set.Close()
	broken := map[string]bool{}
	for _, name := range read.Images.Broken {
		broken[name] = true
	}
	var names []string
	for p, err := range set.Images.Images() {
		if err != nil {
			return nil, images.WithPath(err, path)
		}
		if numbered.MatchString(p.Name) {
			return nil, nil
		}
		if !broken[p.Name] {
			names = append(names, p.Name)
		}
	}
	return names, ctx.Err()
}

// together are notes about sets that are evaluated side by side.
func together(all []*store.Evaluation) (notes []string) {
	unequal := false
	var sizes []string
	first := map[string]string{} // sha256 → name
	for _, e := range all {
		unequal = unequal || e.Samples != all[0].Samples
		in := e.Inputs["samples"]
		sizes = append(sizes, fmt.Sprintf("%s %s", in.Name, human.Count(e.Samples)))
		if other, twice := first[in.SHA256]; twice {
			notes = append(notes, fmt.Sprintf("%s and %s have the same content (sha256 %.12s…)", other, in.Name, in.SHA256))
		} else {
			first[in.SHA256] = in.Name
		}
	}
	if unequal {
		if more := len(sizes) - 12; more > 0 {
			sizes = append(sizes[:12], fmt.Sprintf("and %d more", more))
		}
		notes = append(notes, "the sets differ in their numbers of images, with which FID, sFID, IS, recall and coverage change: "+strings.Join(sizes, ", "))
	}
	return notes
}

// captioned tells whether a metric compares the samples with captions.
func (t *Task) captioned() bool {
	return slices.ContainsFunc(t.Comparisons, func(c plan.Comparison) bool { return c.TextForm() != "" })
}

// role is what the inputs call the file of a network.
func (t *Task) role(c plan.Comparison) string {
	if c.Label() == t.Main {
		return "network"
	}
	return c.Label()
}

// describe fills in the networks and how they are used, protocol, settings and
// versions.
func (t *Task) describe(out *store.Evaluation, files map[string]store.InputFile, e *Engine) error {
	for _, c := range t.Comparisons {
		settings, err := c.Settings()
		if err != nil {
			return err
		}
		out.Inputs[t.role(c)] = store.Input{InputFile: files[t.role(c)], Network: settings}
		if c.Label() != t.Main {
			continue
		}
		if out.Protocol, err = plan.DescribeProtocol(t.Protocol, c.FeatureNetwork, t.Metrics); err != nil {
			return err
		}
		out.Settings = store.EvaluationSettings{Protocol: t.Protocol.Name, Network: c.Name, Resize: string(c.Resize), InputSize: e.open[c.Label()].side(),
			Device: e.options.Device, Bootstrap: t.Bootstrap, SkipBroken: t.Read.SkipBroken}
	}
	if s, ok := t.Read.Subset.(eval.Subset); ok {
		out.Settings.First, out.Settings.Random, out.Settings.SubsetSeed = s.First, s.Random, s.Seed
	}
	for _, m := range t.Metrics {
		options, err := plan.Fields(m.Value)
		if err != nil {
			return err
		}
		out.Settings.Metrics = append(out.Settings.Metrics, map[string]any{m.Name: options})
	}
	var err error
	out.Versions, err = Versions(e.options)
	return err
}
