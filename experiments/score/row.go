package score

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/features"
)

// PrepareRow is what a run's metrics.json holds before its images are looked at;
// scored tells that it holds the scores as well, from an earlier evaluation of the
// same images under the same settings. It is nil where the run has no metrics.
func (e *Engine) PrepareRow(r *plan.Run) (m *store.Metrics, scored bool, err error) {
	if len(r.Metrics) == 0 {
		return nil, true, nil
	}
	if m, err = e.unscored(r); err != nil {
		return nil, false, err
	}
	old, err := store.ReadMetrics(filepath.Join(r.Folder, store.MetricsFile))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			e.sayOnce(fmt.Sprintf("%v; the row is scored again", err))
		}
		return m, false, nil
	}
	if !sameEvaluation(old, m) {
		if r.Bootstrap == 0 && old.Bootstrap > 0 && old.Run == m.Run {
			e.sayOnce(fmt.Sprintf("%s: its scores had intervals from %d draws; this run asks for none, so ± goes from the table (bootstrap=%d brings it back)", r.NumberedTitle(), old.Bootstrap, old.Bootstrap))
		}
		return m, false, nil
	}
	if r.Bootstrap > 0 {
		if _, err := store.ReadReplicates(r.Folder, r.Bootstrap); err != nil {
			e.sayOnce(fmt.Sprintf("%v; the row is scored again", err))
			return m, false, nil
		}
	}
	m.Scores, m.Inputs.Samples, m.Notes, m.Draws, m.Inputs.Captions = old.Scores, old.Inputs.Samples, old.Notes, old.Draws, old.Inputs.Captions
	return m, true, nil
}

// sameEvaluation reports whether the scores are of the same images under the same
// settings.
func sameEvaluation(a, b *store.Metrics) bool {
	return a.Run == b.Run && a.Samples == b.Samples && a.Evaluation == b.Evaluation
}

// Scored is the metrics.json of a run, nil where there is none that holds the scores that
// an evaluation would give now.
func (e *Engine) Scored(r *plan.Run) *store.Metrics {
	if len(r.Metrics) == 0 {
		return nil
	}
	m, err := e.unscored(r)
	if err != nil {
		return nil
	}
	old, err := store.ReadMetrics(filepath.Join(r.Folder, store.MetricsFile))
	if err != nil || !sameEvaluation(old, m) {
		return nil
	}
	return old
}

// CheckReference is an error where the statistics of a run's reference are not of the
// networks that its images will be compared by.
func (e *Engine) CheckReference(ctx context.Context, r *plan.Run) error {
	if kind, err := images.KindOf(r.Reference.Path); err != nil || kind != images.NPZ { // which alone has statistics
		return err
	}
	sum, err := e.hashes.Of(r.Reference.Path)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	ref, err := eval.ReadReference(ctx, r.Reference.Path, images.Options{Flat: r.Protocol.Flat})
	if err != nil {
		return err
	}
	defer ref.Close()
	for _, c := range r.Comparisons {
		if c.Needs().Reference == (eval.Parts{}) {
			continue
		}
		x, err := e.network(ctx, c.FeatureNetwork)
		if err == nil {
			asked := *ref // which agree leaves without what a network does not use
			_, err = x.agree(&asked, sum)
		}
		if err != nil {
			return fmt.Errorf("row %q: %w", r.Title(), err)
		}
	}
	return nil
}

// EvaluateRow scores a run whose images are all there, and completes m, which
// PrepareRow made. It writes the scores of each draw and the features of the images
// into the run's folder.
func (e *Engine) EvaluateRow(ctx context.Context, r *plan.Run, m *store.Metrics) error {
	content, err := r.Images.Content(r.Samples)
	if err != nil {
		return err
	}
	found, err := e.evaluate(ctx, job{comparisons: r.Comparisons, reference: fileSet{r.Reference.Path, images.Options{Flat: r.Protocol.Flat}}, samples: runSet{r, content}, captions: promptsOf(r), bootstrap: r.Bootstrap})
	if err != nil {
		return fmt.Errorf("row %q: %w", r.Title(), err)
	}
	if found.replicates != nil {
		if m.Draws, err = found.replicates.Sum(); err == nil {
			err = found.replicates.Write(r.Folder)
		}
		if err != nil {
			return err
		}
	}
	m.Scores, m.Inputs.Samples, m.Notes, m.Inputs.Captions = found.scores, content, found.notes, found.captions
	return nil
}

// A runSet holds the images of a run, whose features are kept beside them.
type runSet struct {
	*plan.Run
	content store.InputFile
}

// features implements imageSet.
func (s runSet) features(ctx context.Context, e *Engine, x *Extractor, want eval.Parts) (*eval.Features, images.Report, error) {
	x = x.squares(s.Images.Height == s.Images.Width && s.Images.Height > 0)
	path, want := filepath.Join(s.Folder, store.FeaturesFile(x.Label())), x.computed(want)
	var report images.Report
	key, err := s.key(x)
	if err != nil {
		return nil, report, err
	}
	f, _, ok := store.ReadFeatures(path, key, want)
	if !ok {
		e.progress.Stage(s.NumberedTitle()+": features", "images", 0, s.Samples)
		defer e.progress.End()
		if f, report, err = x.Features(ctx, Source{s.Folder, s.Samples, s.images(ctx)}, images.Options{}, want, e.progress.Add); err != nil {
			return nil, report, err
		}
		if err := store.ExplainWrite(path, store.WriteFeatures(path, key, f, images.Report{})); err != nil {
			return nil, report, err
		}
	}
	f.Height, f.Width = s.Images.Height, s.Images.Width
	x.complete(f, s.Folder)
	return f, report, nil
}

// key tells of which images the features are.
func (s runSet) key(x *Extractor) ([]byte, error) {
	return x.featuresKey(fmt.Sprintf("%s, the first %d", s.content.SHA256, s.Samples))
}

// images are a run's images for a feature network.
func (s runSet) images(ctx context.Context) iter.Seq2[images.Pending, error] {
	return func(yield func(images.Pending, error) bool) {
		at := 0
		err := s.Images.Each(ctx, store.Span{To: s.Samples}, func(pixels []uint8) error {
			one := images.Image{Height: s.Images.Height, Width: s.Images.Width, Pixels: slices.Clone(pixels)}
			decode := func() (images.Image, error) { return one, nil }
			if !yield(images.Pending{Name: fmt.Sprintf("image %d", at), Decode: decode}, nil) {
				return errEnough
			}
			at++
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(images.Pending{}, err)
		}
	}
}

var errEnough = errors.New("no more images are wanted")

// unscored is a run's metrics.json before there are scores.
func (e *Engine) unscored(r *plan.Run) (*store.Metrics, error) {
	m := &store.Metrics{
		Format: store.MetricsFormat, Experiment: r.Name, Run: r.ID, Row: r.Index, Label: r.Label, Settings: append([]store.Setting{}, r.Swept...),
		Samples: r.Samples, Bootstrap: r.Bootstrap, Precision: r.Precision(), Published: r.Published,
	}
	files, err := e.hashes.Files(map[string]string{"reference": r.Reference.Path})
	for _, c := range r.Comparisons {
		file, wrong := c.Input(e.hashes)
		files[c.Name], err = file, errors.Join(err, wrong)
	}
	if err != nil {
		return nil, err
	}
	m.Inputs = store.Inputs{Reference: files["reference"], Networks: files}
	delete(files, "reference")
	for i, s := range r.Networks() {
		file := store.InputFile{Name: filepath.Base(s.Checkpoint.Path), SHA256: r.Contents[i]}
		if i == 0 {
			m.Inputs.Checkpoint = file
			continue
		}
		if m.Inputs.Guidance == nil {
			m.Inputs.Guidance = map[string]store.InputFile{}
		}
		m.Inputs.Guidance[r.Attachments[i-1].Name] = file
	}
	if m.Versions, err = Versions(e.options); err != nil {
		return nil, err
	}
	if m.Config, err = r.Config(); err != nil {
		return nil, err
	}
	if m.Protocol, err = plan.DescribeProtocol(r.Protocol, r.FeatureNetworks[r.Network], r.Metrics); err != nil {
		return nil, err
	}
	m.Evaluation, err = evaluationID(r, m, e.hashes)
	return m, err
}

// evaluationID is a hash of what the scores depend on beside the images.
func evaluationID(r *plan.Run, m *store.Metrics, h store.Hashes) (string, error) {
	metrics := []map[string]any{}
	for _, metric := range r.Metrics {
		metrics = append(metrics, map[string]any{metric.Name: metric.Value})
	}
	inception := r.FeatureNetworks[features.Networks[0].Name]
	settings, err := inception.Settings()
	if err != nil {
		return "", err
	}
	all := map[string]any{
		"reference": m.Inputs.Reference.SHA256, inception.Name: m.Inputs.Networks[inception.Name].SHA256, "metrics": metrics,
		"resize": settings["resize"], "input_size": settings["input_size"],
		"versions": m.Versions,
	}
	if set, chosen := settings["weights"]; chosen {
		all["weights"] = set
	}
	if kind, err := images.KindOf(r.Reference.Path); err == nil && r.Protocol.Flat && (kind == images.Folder || kind == images.Zip || kind == images.Tar) {
		all["flat"] = true
	}
	if r.Bootstrap > 0 {
		all["bootstrap"] = []int{r.Bootstrap, store.BootstrapSeed}
	}
	for _, c := range r.Comparisons {
		if c.Name == inception.Name {
			continue // its file, resize and size are there
		}
		sum, err := c.Hash(h)
		if err != nil {
			return "", err
		}
		all[c.Label()] = c.Key(sum)
	}
	return plan.ID(all)
}
