package score

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// Verify reads every file of the results below the folders again, compares its hash
// with the recorded one, and computes the scores of each row from the features that
// are kept. It prints to w a line for each row: what agrees, and what is not there
// to be looked at. settings override those of the rows' run.yaml, for files that
// have moved since. It is an error where anything disagrees.
func Verify(ctx context.Context, w io.Writer, folders, settings []string, opt ort.Options, p *human.Progress) error {
	defer p.End()
	e := NewEngine(opt, store.Hashes{}, p)
	defer e.Close()
	rows, err := store.FindMetrics(folders...)
	faults := []error{err}
	for _, m := range rows {
		v := &verification{Engine: e, row: m, settings: settings}
		err := v.verify(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.End()
		verdict := "ok  "
		if len(v.absent) > 0 {
			verdict = "part"
		}
		if err != nil {
			verdict = "FAIL"
			faults = append(faults, fmt.Errorf("%s: %w", m.Folder, err))
		}
		fmt.Fprintf(w, "%s  %s: %s", verdict, m.Folder, strings.Join(append([]string{store.MetricsFile}, v.agree...), ", "))
		for _, line := range v.absent {
			fmt.Fprintf(w, "; %s", line)
		}
		fmt.Fprintln(w)
	}
	return errors.Join(faults...)
}

// A verification is that of one row.
type verification struct {
	*Engine
	row      *store.Metrics
	settings []string
	agree    []string // what was looked at, and is as it was
	absent   []string // what could not be looked at, and why
}

func (v *verification) verify(ctx context.Context) error {
	return errors.Join(v.samples(), v.draws(), v.beside(), v.scores(ctx))
}

// beside looks at what is kept beside the scores: the devices that drew, which
// metrics.json repeats, and the trace, which nothing depends on.
func (v *verification) beside() error {
	var faults []error
	if store.Exists(filepath.Join(v.row.Folder, store.DevicesFile)) {
		drew, err := store.ReadPlacements(v.row.Folder)
		if err == nil && !reflect.DeepEqual(drew, v.row.Placements) {
			err = fmt.Errorf("%s tells of other devices than %s; run the experiment again, which writes the latter anew", filepath.Join(v.row.Folder, store.DevicesFile), store.MetricsFile)
		}
		if err == nil {
			v.agree = append(v.agree, store.DevicesFile)
		}
		faults = append(faults, err)
	}
	if path := filepath.Join(v.row.Folder, store.TraceFile); store.Exists(path) {
		_, err := store.ReadTrace(path)
		if err == nil {
			v.agree = append(v.agree, store.TraceFile)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// samples compares the hash of the images.
func (v *verification) samples() error {
	file := v.row.Inputs.Samples
	path := filepath.Join(v.row.Folder, "samples", file.Name)
	if file.Name == "" || !store.Exists(path) {
		v.absent = append(v.absent, "the samples are not there")
		return nil
	}
	sum, err := v.hashes.Of(path)
	if err == nil && sum != file.SHA256 {
		err = fmt.Errorf("%s: is damaged, or of another run: its sha256 is %.12s…, %s says %.12s…; run the experiment again, which draws what is damaged anew", path, sum, store.MetricsFile, file.SHA256)
	}
	if err == nil {
		v.agree = append(v.agree, "samples")
	}
	return err
}

// draws compares the hash of the bootstrap's file.
func (v *verification) draws() error {
	if v.row.Bootstrap == 0 {
		return nil
	}
	_, err := store.ReadReplicates(v.row.Folder, v.row.Bootstrap)
	switch {
	case errors.Is(err, os.ErrNotExist):
		v.absent = append(v.absent, store.BootstrapFile+" is not there")
		return nil
	case err == nil && v.row.Draws == "":
		v.absent = append(v.absent, "no hash of "+store.BootstrapFile+" was kept")
	case err == nil:
		v.agree = append(v.agree, store.BootstrapFile)
	}
	return err
}

// scores computes the scores from the features that are kept.
func (v *verification) scores(ctx context.Context) error {
	r, why, err := v.evaluated()
	if err != nil {
		return err
	}
	if why == "" {
		why, err = v.compare(ctx, r)
	}
	if why != "" {
		v.absent = append(v.absent, "scores not computed again: "+why)
	} else if err == nil {
		v.agree = append(v.agree, "scores")
	}
	return err
}

// evaluated is the row as its run.yaml tells it, where that leads to the evaluation
// of which the scores are; why says what is missing to compute it.
func (v *verification) evaluated() (r *plan.Run, why string, err error) {
	path := filepath.Join(v.row.Folder, store.RunFile)
	if !store.Exists(path) {
		return nil, "run.yaml is not there", nil
	}
	found, err := plan.Load(path, v.settings)
	if errors.Is(err, fs.ErrNotExist) { // such as a file of prompts, of which the scores are not
		return nil, err.Error(), nil
	}
	if err != nil {
		return nil, "", err
	}
	r = &plan.Run{Row: found.Rows[0], ID: v.row.Run, Folder: v.row.Folder}
	r.Contents = make([]string, len(r.Networks()))
	r.Reference.Path = below(r.Reference.Path)
	for i := range r.Comparisons {
		r.Comparisons[i].Weights.Path = below(r.Comparisons[i].Weights.Path)
	}
	files := map[string]string{"reference": r.Reference.Path}
	for _, c := range r.Comparisons {
		files[c.Name] = c.Weights.Path
	}
	for use, path := range files {
		if !store.Exists(path) {
			return nil, fmt.Sprintf("%s is not there; %s=FILE says where it is now", path, setting(use)), nil
		}
	}
	now, err := v.unscored(r)
	if err != nil {
		return nil, "", err
	}
	for name, version := range now.Versions {
		if before := v.row.Versions[name]; before != version {
			return nil, fmt.Sprintf("%s was %q, here it is %q", name, before, version), nil
		}
	}
	for use, path := range files {
		before, file := v.row.Inputs.Reference, now.Inputs.Reference
		if use != "reference" {
			before, file = v.row.Inputs.Networks[use], now.Inputs.Networks[use]
		}
		if before.SHA256 != file.SHA256 {
			return nil, fmt.Sprintf("%s has another content than then; %s=FILE says where the right one is", path, setting(use)), nil
		}
	}
	if now.Evaluation != v.row.Evaluation {
		return nil, "", fmt.Errorf("%s: its evaluation has the id %s, %s is of %s: one of them was changed", path, now.Evaluation, store.MetricsFile, v.row.Evaluation)
	}
	return r, "", nil
}

// below is where a file lies that an experiment in a subfolder of the working
// directory names from there, as those in configs/ do. Its hash tells whether it is
// the one.
func below(path string) string {
	for at := path; !store.Exists(path); {
		rest, up := strings.CutPrefix(at, "../")
		if !up {
			break
		}
		if at = rest; store.Exists(at) {
			return at
		}
	}
	return path
}

// setting is the key of an experiment that names a file by its use.
func setting(use string) string {
	if use == "reference" {
		return use
	}
	return use + ".checkpoint"
}

// compare evaluates the row and compares each number with the recorded one.
func (v *verification) compare(ctx context.Context, r *plan.Run) (why string, err error) {
	kept := keptSet{runSet{r, v.row.Inputs.Samples}}
	for _, c := range r.Comparisons {
		path, square := filepath.Join(r.Folder, store.FeaturesFile(c.Label())), filepath.Join(r.Folder, store.FeaturesFile(c.OfSquares().Label()))
		if !store.Exists(path) && !store.Exists(square) {
			return path + " is not there", nil
		}
	}
	found, err := v.evaluate(ctx, job{comparisons: r.Comparisons, reference: fileSet{r.Reference.Path, images.Options{Flat: r.Protocol.Flat}}, samples: kept, captions: promptsOf(r)})
	if err != nil {
		return "", err
	}
	var draws *store.Replicates
	if r.Bootstrap > 0 {
		draws, _ = store.ReadReplicates(r.Folder, r.Bootstrap) // what is wrong with them was told
	}
	metrics := map[string]eval.Metric{}
	for _, m := range r.Metrics {
		metrics[m.Name] = m.Value
	}
	var faults []error
	differs := func(what string, recorded, computed any) {
		faults = append(faults, fmt.Errorf("%s is recorded as %v, its features give %v; run the experiment again after removing %s", what, recorded, computed, filepath.Join(r.Folder, store.MetricsFile)))
	}
	if len(found.scores) != len(v.row.Scores) {
		differs("the number of scores", len(v.row.Scores), len(found.scores))
	}
	for _, s := range found.scores {
		before, ok := v.row.Score(s.Name)
		if !ok || before.Value != s.Value || before.Std != s.Std {
			differs(s.Name, fmt.Sprint(before.Value, " ± ", before.Std), fmt.Sprint(s.Value, " ± ", s.Std))
		}
		if draws == nil || before.Interval == nil || metrics[s.Name] == nil {
			continue
		}
		if i := eval.IntervalOf(metrics[s.Name], s.Value, draws.Values[s.Name]); i != *before.Interval {
			differs("the interval of "+s.Name, *before.Interval, i)
		}
	}
	return "", errors.Join(faults...)
}

// A keptSet is a run whose features lie in its folder; they are not computed.
type keptSet struct{ runSet }

// features implements imageSet.
func (s keptSet) features(_ context.Context, _ *Engine, x *Extractor, want eval.Parts) (*eval.Features, images.Report, error) {
	path := filepath.Join(s.Folder, store.FeaturesFile(x.Label()))
	for _, x := range []*Extractor{x, x.squares(true)} {
		own := filepath.Join(s.Folder, store.FeaturesFile(x.Label()))
		key, err := s.key(x)
		if err != nil {
			return nil, images.Report{}, err
		}
		if f, report, ok := store.ReadFeatures(own, key, x.computed(want)); ok {
			x.complete(f, s.Folder)
			return f, report, nil
		}
	}
	return nil, images.Report{}, fmt.Errorf("%s: is damaged, or of other images; run the experiment again after removing it", path)
}
