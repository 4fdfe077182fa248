package score

import (
	"context"
	"fmt"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// A Task is an evaluation of one set of images, as the command eval asks for it.
type Task struct {
	Protocol           eval.Protocol
	Comparisons        []plan.Comparison // the networks, each with its metrics
	Main               string            // name of the network that --network chose
	Reference, Samples string            // paths
	Metrics            []configs.Named[eval.Metric]
	Bootstrap          int // draws of the samples; 0: none
	Read               images.Options
	Share              *Share // of the features, with other processes; nil: there are none
}

// Run scores the samples against the reference, network by network. Where a
// metric fails, the evaluation holds the others beside the error, and why it failed;
// it is nil where no metric was come to, and in a process that only helps another.
func (t *Task) Run(ctx context.Context, opt ort.Options, p *human.Progress) (*store.Evaluation, error) {
	defer p.End()
	e := NewEngine(opt, store.Hashes{}, p)
	defer e.Close()
	e.share = t.Share
	t.Read.Flat = t.Protocol.Flat
	paths := map[string]string{"reference": t.Reference, "samples": t.Samples}
	for _, c := range t.Comparisons {
		paths[t.role(c)] = c.Weights.Path
	}
	files, err := e.hashes.Files(paths)
	if err != nil {
		return nil, err
	}
	notes := plan.ForeignMetrics(t.Protocol, t.Metrics)
	if files["reference"].SHA256 == files["samples"].SHA256 {
		notes = append(notes, fmt.Sprintf("REF and SAMPLES have the same content (sha256 %.12s…): the scores are those of a set compared with itself", files["samples"].SHA256))
	}
	for _, n := range notes {
		p.Note("note: " + n)
	}
	found, err := e.evaluate(ctx, job{
		comparisons: t.Comparisons, reference: fileSet{t.Reference, t.Read}, samples: fileSet{t.Samples, t.Read},
		bootstrap: t.Bootstrap, published: true,
	})
	if len(found.scores)+len(found.failed) == 0 || ctx.Err() != nil {
		return nil, err
	}
	out := &store.Evaluation{
		Format: store.EvaluationFormat, Scores: found.scores, Failed: found.failed, Samples: found.count, Notes: append(notes, found.notes...),
		Inputs: map[string]store.Input{
			"reference": {InputFile: files["reference"], SetRead: found.reference},
			"samples":   {InputFile: files["samples"], SetRead: found.samples},
		},
	}
	if fault := t.describe(out, files, e); fault != nil {
		return nil, fault
	}
	return out, err
}

// role is what the inputs call the file of a network.
func (t *Task) role(c plan.Comparison) string {
	if c.Name == t.Main {
		return "network"
	}
	return c.Name
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
		if c.Name != t.Main {
			continue
		}
		if out.Protocol, err = plan.DescribeProtocol(t.Protocol, c.FeatureNetwork, t.Metrics); err != nil {
			return err
		}
		out.Settings = store.EvaluationSettings{Protocol: t.Protocol.Name, Network: c.Name, Resize: string(c.Resize), InputSize: e.open[c.Name].side(),
			Device: e.options.Device, Bootstrap: t.Bootstrap, SkipBroken: t.Read.SkipBroken}
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
