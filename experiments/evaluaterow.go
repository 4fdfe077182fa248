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

// evaluate scores a run whose images are all there, network by network.
func (s *session) evaluate(ctx context.Context, r *run) ([]Score, error) {
	s.closeNetworks() // they would take memory beside the feature networks
	var scores []Score
	drawn := &replicates{values: map[string][]float64{}}
	for _, part := range r.shares {
		own, err := s.evaluateShare(ctx, r, part, drawn)
		if err != nil {
			return nil, err
		}
		scores = append(scores, own...)
	}
	if r.Bootstrap > 0 {
		if err := drawn.write(r.folder); err != nil {
			return nil, err
		}
	}
	return scores, nil
}

func (s *session) evaluateShare(ctx context.Context, r *run, part share, drawn *replicates) ([]Score, error) {
	x, err := s.compare(ctx, r, part)
	if err != nil {
		return nil, err
	}
	ref := x.reference.features
	gen, err := s.generated(ctx, r, x.extractor, part)
	if err != nil {
		return nil, err
	}
	x.net.Rest()
	scores, err := score(ctx, ref, gen, part.metrics, s.progress)
	if err == nil && r.Bootstrap > 0 {
		err = drawn.add(ctx, ref, gen, part.metrics, scores, r.Bootstrap, s.progress)
	}
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", r.title(), err)
	}
	return scores, nil
}

// featuresFile keeps a run's features of a network: an evaluation that was
// stopped goes on from there, and a metric that is added later finds them.
func featuresFile(network string) string {
	if network == "inception" {
		return "features.npz"
	}
	return "features-" + network + ".npz"
}

// generated are the features of a run's images.
func (s *session) generated(ctx context.Context, r *run, x *extractor, part share) (*eval.Features, error) {
	path, want := filepath.Join(r.folder, featuresFile(x.name)), generatedParts(part.metrics).of(x)
	if r.Bootstrap > 0 {
		want = want.drawn()
	}
	var err error
	if r.samples, err = r.store.content(r.Samples); err != nil {
		return nil, err
	}
	key, err := x.featuresKey(fmt.Sprintf("%s, the first %d", r.samples.SHA256, r.Samples))
	if err != nil {
		return nil, err
	}
	f, _, ok := readFeatures(path, key, want)
	if !ok {
		s.progress.stage(s.rowName(r)+": features", "images", 0, r.Samples)
		defer s.progress.end()
		if f, _, err = x.features(ctx, source{r.folder, r.Samples, r.images(ctx)}, images.Options{}, want, s.progress.add); err != nil {
			return nil, err
		}
		if err := explainWrite(path, writeFeatures(path, key, f, nil)); err != nil {
			return nil, err
		}
	}
	x.complete(f, r.folder)
	return f, nil
}

// compare opens a feature network and the run's reference, unless the run before
// had the same.
func (s *session) compare(ctx context.Context, r *run, part share) (*compared, error) {
	sum, err := part.hash(s.hashes)
	if err != nil {
		return nil, err
	}
	x := s.compared[part.name]
	if x == nil || x.key() != part.key(sum) {
		if x != nil {
			x.close()
			delete(s.compared, part.name)
		}
		opened, err := newExtractor(part.featureNetwork, s.hashes, s.options)
		if err != nil {
			return nil, err
		}
		x = &compared{extractor: opened}
		s.compared[part.name] = x
	}
	if sum, err = s.hashes.of(r.reference.Path); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	want := referenceParts(part.metrics)
	key := fmt.Sprintf("%s %v", sum, want)
	if x.reference == nil || x.reference.key != key {
		f, _, err := x.extractor.reference(ctx, r.reference.Path, sum, images.Options{}, want, true, s.progress)
		if err != nil {
			return nil, err
		}
		x.reference = &referenceOf{key, f}
	}
	return x, nil
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
	paths := map[string]string{"reference": r.reference.Path}
	for _, part := range r.shares {
		paths[part.name] = part.path
	}
	files, err := s.hashes.inputs(paths)
	if err != nil {
		return nil, err
	}
	m.Inputs = Inputs{Reference: files["reference"], Inception: files["inception"], DINOv2: files["dinov2"], ONNX: files["onnx"]}
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
	if m.Protocol, err = describeProtocol(r.protocol, r.featureNetworks()[r.Network], r.metrics); err != nil {
		return nil, err
	}
	m.Evaluation, err = r.evaluationID(m, s.hashes)
	return m, err
}

// evaluationID is a hash of what the scores depend on beside the images.
func (r *run) evaluationID(m *Metrics, h hashes) (string, error) {
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
	for _, part := range r.shares {
		if part.name == "inception" {
			continue // its file, resize and size are there
		}
		sum, err := part.hash(h)
		if err != nil {
			return "", err
		}
		all[part.name] = part.key(sum)
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
