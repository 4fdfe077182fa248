package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
)

// known is a run's metrics.json as far as it is known before the images are
// looked at; scored tells whether the scores are, from an earlier evaluation of
// the same images under the same settings.
func (s *session) known(r *run) (m *Metrics, scored bool, err error) {
	if len(r.metrics) == 0 {
		return nil, true, nil
	}
	if m, err = s.unscored(r); err != nil {
		return nil, false, err
	}
	old, err := readMetrics(filepath.Join(r.folder, metricsFile))
	if err != nil || old.Run != m.Run || old.Samples != m.Samples || old.Evaluation != m.Evaluation {
		return m, false, nil
	}
	if r.Bootstrap > 0 {
		if _, err := readReplicates(r.folder, r.Bootstrap); err != nil {
			return m, false, nil
		}
	}
	m.Scores, m.Inputs.Samples = old.Scores, old.Inputs.Samples
	return m, true, nil
}

// evaluate scores a run whose images are all there.
func (s *session) evaluate(ctx context.Context, r *run) ([]Score, error) {
	ref, err := s.inception(ctx, r)
	if err != nil {
		return nil, err
	}
	gen, err := s.generated(ctx, r)
	if err != nil {
		return nil, err
	}
	s.extractor.net.Rest()
	scores, err := score(ctx, ref.features, gen, r.metrics, s.progress)
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	if r.Bootstrap > 0 {
		drawn, err := addIntervals(ctx, ref.features, gen, r.metrics, scores, r.Bootstrap, s.progress)
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", r.title(), err)
		}
		if err := drawn.write(r.folder); err != nil {
			return nil, err
		}
	}
	return scores, nil
}

// featuresFile keeps a run's features: an evaluation that was stopped goes on
// from there, and a metric that is added later finds them.
const featuresFile = "features.npz"

// generated are the features of a run's images.
func (s *session) generated(ctx context.Context, r *run) (*eval.Features, error) {
	path, want := filepath.Join(r.folder, featuresFile), generatedParts(r.metrics)
	if r.Bootstrap > 0 {
		want = want.drawn()
	}
	var err error
	if r.samples, err = r.store.content(r.Samples); err != nil {
		return nil, err
	}
	key, err := s.extractor.featuresKey(fmt.Sprintf("%s, the first %d", r.samples.SHA256, r.Samples))
	if err != nil {
		return nil, err
	}
	f, ok := readFeatures(path, key, want)
	if !ok {
		s.progress.stage(s.rowName(r)+": features", "images", 0, r.Samples)
		defer s.progress.end()
		if f, _, err = s.extractor.features(ctx, source{r.folder, r.Samples, r.images(ctx)}, images.Options{}, want, s.progress.add); err != nil {
			return nil, err
		}
		if err := explainWrite(path, writeFeatures(path, key, f)); err != nil {
			return nil, err
		}
	}
	s.extractor.complete(f, r.folder)
	return f, nil
}

// inception opens the run's Inception and its reference, unless the run before
// had the same.
func (s *session) inception(ctx context.Context, r *run) (*referenceOf, error) {
	s.closeNetworks() // it would take memory beside Inception
	n := r.Inception.network(r.inception.Path)
	sum, err := n.hash(s.hashes)
	if err != nil {
		return nil, err
	}
	if s.extractor == nil || s.extractor.key() != n.key(sum) {
		if s.extractor != nil {
			s.extractor.close()
		}
		s.extractor, s.reference = nil, nil
		if s.extractor, err = newExtractor(n, s.hashes, s.options); err != nil {
			return nil, err
		}
	}
	if sum, err = s.hashes.of(r.reference.Path); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	want := referenceParts(r.metrics)
	key := fmt.Sprintf("%s %v", sum, want)
	if s.reference == nil || s.reference.key != key {
		f, _, err := s.extractor.reference(ctx, r.reference.Path, sum, images.Options{}, want, true, s.progress)
		if err != nil {
			return nil, err
		}
		s.reference = &referenceOf{key, f}
	}
	return s.reference, nil
}

// unscored is a run's metrics.json before there are scores.
func (s *session) unscored(r *run) (*Metrics, error) {
	m := &Metrics{
		Format: metricsFormat, Experiment: s.name, Run: r.id, Row: r.index, Label: r.label, Settings: []Setting{},
		Samples: r.Samples, Bootstrap: r.Bootstrap, Published: r.published,
	}
	for _, c := range r.settings {
		m.Settings = append(m.Settings, Setting{c.Path, c.Value})
	}
	files, err := s.hashes.inputs(map[string]string{"reference": r.reference.Path, "inception": r.inception.Path})
	if err != nil {
		return nil, err
	}
	m.Inputs = Inputs{Reference: files["reference"], Inception: files["inception"]}
	for i, s := range r.networks() {
		file := InputFile{filepath.Base(s.checkpoint.Path), r.contents[i]}
		if i == 0 {
			m.Inputs.Checkpoint = file
			continue
		}
		if m.Inputs.Guidance == nil {
			m.Inputs.Guidance = map[string]InputFile{}
		}
		m.Inputs.Guidance[r.attachments[i-1].name] = file
	}
	if m.Versions, err = versions(); err != nil {
		return nil, err
	}
	if m.Config, err = r.config(); err != nil {
		return nil, err
	}
	if m.Protocol, err = describeProtocol(r.protocol, r.Inception.Resize, r.metrics); err != nil {
		return nil, err
	}
	m.Evaluation, err = r.evaluationID(m)
	return m, err
}

// evaluationID is a hash of what the scores depend on beside the images.
func (r *run) evaluationID(m *Metrics) (string, error) {
	metrics := []map[string]any{}
	for _, c := range r.metrics {
		metrics = append(metrics, map[string]any{c.Name: c.Value})
	}
	all := map[string]any{
		"reference": m.Inputs.Reference.SHA256, "inception": m.Inputs.Inception.SHA256, "metrics": metrics,
		"resize": r.Inception.Resize, "input_size": r.Inception.InputSize,
		"versions": m.Versions,
	}
	if r.Bootstrap > 0 {
		all["bootstrap"] = []int{r.Bootstrap, bootstrapSeed}
	}
	data, err := configs.Canonical(all)
	return fmt.Sprintf("%x", sha256.Sum256(data))[:idDigits], err
}

// summary is a line of scores.
func (m *Metrics) summary() string {
	text := ""
	for _, s := range m.Scores {
		text += fmt.Sprintf("  %s %.*f", s.Title, s.Decimals, s.Value)
	}
	return text
}
