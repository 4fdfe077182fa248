package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/models/ort"
)

// An evalJob is what the command eval is asked for.
type evalJob struct {
	protocol           eval.Protocol
	shares             []share // of the networks
	main               string  // name of the main one
	reference, samples string
	metrics            []configs.Named[eval.Metric]
	bootstrap          int
	read               images.Options
}

func evalCommand(g *globals) *cobra.Command {
	var job evalJob
	var networks networkFlags
	protocol, metrics := eval.DefaultProtocol, ""
	var out outputs
	cmd := &cobra.Command{
		Use:   "eval REF SAMPLES",
		Short: "score samples against a reference batch, as ADM's evaluator.py does",
		Long: `Scores SAMPLES against REF. Either is
  - an .npz in the layout of ADM's evaluator: images arr_0 [N,H,W,3] and, where they
    are known, statistics mu, sigma, mu_s, sigma_s, which are used instead of the
    images' own (mu and sigma alone is the layout of pytorch-fid, clean-fid and EDM),
    or features feats [N,D], clean-fid's reference of KID;
  - an .npy array of images;
  - a folder of PNG, JPEG, WebP and BMP files, those of its subfolders included, in
    the byte order of their paths; or a .zip of such files.
Images of one set may differ in size. Their pixels are those that Pillow's
convert("RGB") gives: grey is repeated over three channels, transparency is dropped.

--protocol says whose numbers are wanted: it sets the resize and the options of the
metrics, any of which --resize and --metrics set otherwise, --metrics as an experiment
does: --metrics "fid, is: {splits: 10}". docs/evaluation.md compares the protocols.

Features are kept in the user's cache folder under the hash of the images' content. The
exit status is 1 where a metric could not be computed; the others are printed.`,
		Example: `  sagbench eval VIRTUAL_imagenet256_labeled.npz samples_50000x256x256x3.npz --inception pt_inception-2015-12-05-6726825d.pth
  sagbench eval models/pretrained/reference.npz samples.npz --inception models/pretrained/inception.pt --input-size 107
  sagbench eval ref.npz folder-of-images --inception FILE --protocol clean-fid --skip-broken
  sagbench eval REF SAMPLES --inception FILE --metrics fid,is --bootstrap 100 --json scores.json
  sagbench eval REF SAMPLES --inception FILE --dinov2 dinov2_vitl14_pretrain.pth --metrics fid,fd_dinov2
  sagbench eval REF SAMPLES --network mine.onnx --output pool=features --range imagenet --metrics fid,precision,recall`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("eval: %d files given, expected two: the reference batch and the samples", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			job.reference, job.samples = args[0], args[1]
			if job.protocol, err = eval.ProtocolOf(protocol); err != nil {
				return fmt.Errorf("--%w", err)
			}
			if !cmd.Flags().Changed("metrics") {
				metrics = strings.Join(job.protocol.Own, ",")
			}
			if job.metrics, err = parseMetrics(job.protocol, metrics); err != nil {
				return err
			}
			if job.bootstrap != 0 && job.bootstrap < eval.MinReplicates {
				return fmt.Errorf("--bootstrap is %d, expected 0 or at least %d", job.bootstrap, eval.MinReplicates)
			}
			if job.shares, job.main, err = networks.shares(cmd.Flags(), job.protocol, job.metrics); err != nil {
				return err
			}
			if err := out.check(); err != nil {
				return err
			}
			result, err := job.run(cmd.Context(), g.runtime(), newProgress(os.Stderr))
			if result == nil {
				return err
			}
			return errors.Join(out.write(cmd.OutOrStdout(), result), err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&protocol, "protocol", protocol, "whose numbers: adm, pytorch-fid, torch-fidelity or clean-fid")
	networks.register(f)
	f.StringVar(&metrics, "metrics", metrics, "metrics, separated by commas; the protocol's own if absent; known: "+strings.Join(metricsRegistry.Names(), ", "))
	f.IntVar(&job.bootstrap, "bootstrap", 0, "times that the samples are drawn again for a 95 % interval of each metric; 0: none")
	f.BoolVar(&job.read.SkipBroken, "skip-broken", false, "leave images out that cannot be decoded, and list them; without it they are an error")
	f.StringVar(&out.json, "json", "", "file for the scores with every digit and all that led to them; - for standard output")
	f.StringVar(&out.csv, "csv", "", "file for the scores with every digit; - for standard output")
	return cmd
}

// parseMetrics reads the list of metrics of the command line.
func parseMetrics(p eval.Protocol, list string) ([]configs.Named[eval.Metric], error) {
	b, err := configs.Parse("--metrics", []byte("metrics: ["+list+"]"))
	if err != nil {
		return nil, err
	}
	at, _ := b.At("metrics")
	chosen, err := registry(p).Many(at)
	if err == nil && len(chosen) == 0 {
		err = errors.New("--metrics names no metric")
	}
	return chosen, err
}

// run scores the samples against the reference, network by network. Where a
// metric fails, the evaluation holds the others beside the error.
func (j *evalJob) run(ctx context.Context, runtime ort.Options, p *progress) (*evaluation, error) {
	defer p.end()
	h := hashes{}
	paths := map[string]string{"reference": j.reference, "samples": j.samples}
	for _, part := range j.shares {
		paths[j.role(part)] = part.path
	}
	files, err := h.inputs(paths)
	if err != nil {
		return nil, err
	}
	out := &evaluation{Format: evaluationFormat, Inputs: map[string]evaluatedInput{}, Notes: foreign(j.protocol, j.metrics)}
	for role, f := range files {
		out.Inputs[role] = evaluatedInput{InputFile: f}
	}
	for _, n := range out.Notes {
		p.note("note: " + n)
	}
	networks, err := j.open(h, runtime)
	defer func() {
		for _, x := range networks {
			x.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	var faults []error
	for i, part := range j.shares {
		if err := out.describe(j, part, networks[i], runtime.Device); err != nil {
			return nil, err
		}
		faults = append(faults, j.scoreShare(ctx, networks[i], part.metrics, out, p))
	}
	if len(out.Scores) == 0 {
		return nil, errors.Join(faults...)
	}
	return out, errors.Join(faults...)
}

// open opens all networks, before an image is looked at.
func (j *evalJob) open(h hashes, runtime ort.Options) (opened []*extractor, err error) {
	var faults []error
	for _, part := range j.shares {
		x, err := newExtractor(part.featureNetwork, h, runtime)
		if err == nil {
			opened = append(opened, x)
			err = part.able(x.net)
		}
		faults = append(faults, err)
	}
	return opened, errors.Join(faults...)
}

// role is what the inputs call the file of a share's network.
func (j *evalJob) role(s share) string {
	if s.name == j.main {
		return "network"
	}
	return s.name
}

// scoreShare adds the scores of one network's metrics.
func (j *evalJob) scoreShare(ctx context.Context, x *extractor, metrics []configs.Named[eval.Metric], out *evaluation, p *progress) error {
	want := generatedParts(metrics)
	if j.bootstrap > 0 {
		want = want.drawn()
	}
	looked := func(role, path string, want parts) (*eval.Features, error) {
		in := out.Inputs[role]
		f, report, err := x.reference(ctx, path, in.SHA256, j.read, want, true, p)
		if err != nil {
			return nil, err
		}
		in.add(f, report)
		out.Inputs[role] = in
		for _, n := range f.Notes {
			if !slices.Contains(out.Notes, n) {
				out.Notes = append(out.Notes, n)
			}
		}
		return f, nil
	}
	ref, err := looked("reference", j.reference, referenceParts(metrics))
	if err != nil {
		return err
	}
	gen, err := looked("samples", j.samples, want)
	if err != nil {
		return err
	}
	p.end()
	x.net.Rest()
	if out.Samples == 0 {
		out.Samples = gen.N
		unusual := unusualNumbers(gen)
		for _, n := range unusual {
			p.note("note: " + n)
		}
		out.Notes = append(out.Notes, unusual...)
	}
	scores, err := score(ctx, ref, gen, metrics, p)
	if j.bootstrap > 0 && err == nil {
		drawn := &replicates{values: map[string][]float64{}}
		err = drawn.add(ctx, ref, gen, metrics, scores, j.bootstrap, p)
	}
	out.Scores = append(out.Scores, scores...)
	return err
}

// score computes the metrics: those that can be, beside the error about the others.
func score(ctx context.Context, ref, gen *eval.Features, metrics []configs.Named[eval.Metric], p *progress) ([]Score, error) {
	var all []eval.Metric
	for _, m := range metrics {
		all = append(all, m.Value)
	}
	report, err := eval.Evaluate(ctx, ref, gen, all...)
	for _, w := range report.Warnings {
		p.warn(relative(w, ref, gen))
	}
	faults := []error{err}
	var out []Score
	for _, s := range report.Scores {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			faults = append(faults, fmt.Errorf("%s of %s is %g; look at the images and at the statistics of %s", s.Title, gen.Source, s.Value, ref.Source))
			continue
		}
		direction := lowerIsBetter
		if s.Direction == eval.Higher {
			direction = higherIsBetter
		}
		own := Score{Name: s.Name, Title: s.Title, Value: s.Value, Direction: direction, Decimals: s.Decimals, Std: s.Std, Note: s.Note}
		for _, w := range s.Warnings {
			own.Warnings = append(own.Warnings, relative(w, ref, gen))
		}
		out = append(out, own)
	}
	return out, errors.Join(faults...)
}

// relative is a warning without the folders of this machine.
func relative(warning string, ref, gen *eval.Features) string {
	warning = strings.TrimPrefix(warning, gen.Source+": ")
	return strings.ReplaceAll(warning, ref.Source, filepath.Base(ref.Source))
}

// versions are those of everything that computes.
func versions() (map[string]string, error) {
	runtime, err := ort.RuntimeVersion()
	v := map[string]string{"sagbench": version, "sampling": fmt.Sprint(samplingVersion), "onnxruntime": runtime}
	if k := ort.Kernels(); k != "" {
		v["kernels"] = k
	}
	return v, err
}

// hashes remembers the sha256 of files and folders by path, for the time of one command.
type hashes map[string]string

func (h hashes) of(path string) (string, error) {
	if sum, ok := h[path]; ok {
		return sum, nil
	}
	sum, err := images.Hash(path)
	if err == nil {
		h[path] = sum
	}
	return sum, err
}

// inputs are the files by their role.
func (h hashes) inputs(paths map[string]string) (map[string]InputFile, error) {
	out := map[string]InputFile{}
	var faults []error
	for role, path := range paths {
		sum, err := h.of(path)
		faults = append(faults, err)
		out[role] = InputFile{filepath.Base(path), sum}
	}
	return out, errors.Join(faults...)
}
