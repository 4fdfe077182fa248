package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/models"
	"sagbench/models/ort"
)

func evalCommand(g *globals) *cobra.Command {
	c := Inception{Resize: models.TF, Inception: models.Inception{InputSize: 299}}
	protocol, metrics, output := eval.DefaultProtocol, "fid, sfid, is, precision, recall", ""
	var opt images.Options
	cmd := &cobra.Command{
		Use:   "eval REF SAMPLES",
		Short: "score samples against a reference batch, as ADM's evaluator.py does",
		Long: `Scores SAMPLES against REF. Either is
  - an .npz in the layout of ADM's evaluator: images arr_0 [N,H,W,3] and, where they
    are known, statistics mu, sigma, mu_s, sigma_s, which are used instead of the
    images' own (mu and sigma alone is the layout of pytorch-fid, clean-fid and EDM);
  - an .npy array of images;
  - a folder of PNG, JPEG, WebP and BMP files, those of its subfolders included, in
    the byte order of their paths; or a .zip of such files.
Images of one set may differ in size. Their pixels are those that Pillow's
convert("RGB") gives: grey is repeated over three channels, transparency is dropped.

The features of REF are kept in the user's cache folder under the hash of their
content. --metrics takes options as an experiment does: --metrics "fid, is: {splits: 10}".`,
		Example: `  sagbench eval VIRTUAL_imagenet256_labeled.npz samples_50000x256x256x3.npz --inception pt_inception-2015-12-05-6726825d.pth
  sagbench eval models/pretrained/reference.npz samples.npz --inception models/pretrained/inception.pt --input-size 107
  sagbench eval ref.npz folder-of-images --inception FILE --skip-broken
  sagbench eval REF SAMPLES --inception FILE --metrics fid,is --json scores.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("eval: %d files given, expected two: the reference batch and the samples", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := eval.ProtocolOf(protocol)
			if err != nil {
				return fmt.Errorf("--%w", err)
			}
			chosen, err := parseMetrics(p, metrics)
			if err != nil {
				return err
			}
			if c.Checkpoint == "" {
				return fmt.Errorf("--inception is missing: the FID Inception's weights, published as pt_inception-2015-12-05-6726825d.pth at %s", inceptionPage)
			}
			if err := c.Validate(); err != nil {
				return fmt.Errorf("--%w", err)
			}
			result, err := evaluateFiles(cmd.Context(), g.runtime(), newProgress(os.Stderr), c, args[0], args[1], opt, chosen)
			if err != nil {
				return err
			}
			if err := result.print(cmd.OutOrStdout()); err != nil || output == "" {
				return err
			}
			return result.write(output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Checkpoint, "inception", "", "weights of the FID Inception, with pytorch-fid's names")
	f.IntVar(&c.InputSize, "input-size", c.InputSize, "height and width that images are resized to")
	f.StringVar((*string)(&c.Resize), "resize", string(c.Resize), "how: tf (ADM's evaluator), torch (pytorch-fid) or clean (clean-fid)")
	f.StringVar(&metrics, "metrics", metrics, "metrics, separated by commas: "+fmt.Sprint(metricsRegistry.Names()))
	f.BoolVar(&opt.SkipBroken, "skip-broken", false, "leave images out that cannot be decoded, and list them; without it they are an error")
	f.StringVar(&output, "json", "", "file to write the scores to, with every digit and the hashes of all inputs")
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

// An evaluation is what the command eval found.
type evaluation struct {
	Samples  int                       `json:"samples"`
	Scores   []Score                   `json:"scores"`
	Inputs   map[string]evaluatedInput `json:"inputs"`
	Versions map[string]string         `json:"versions"`
}

// An evaluatedInput is a file or a folder, and what was met in reading its
// images, where they were read.
type evaluatedInput struct {
	InputFile
	Images *imagesRead `json:"images,omitempty"`
}

type imagesRead struct {
	Count     int                       `json:"count"`               // that were looked at
	Converted map[images.Conversion]int `json:"converted,omitempty"` // of them, by what was done to make them RGB of 8 bits
	Broken    []string                  `json:"broken,omitempty"`    // left out
}

func readAs(r images.Report) *imagesRead {
	if r.Decoded == 0 {
		return nil
	}
	out := &imagesRead{Count: r.Decoded, Converted: r.Converted}
	for _, b := range r.Broken {
		out.Broken = append(out.Broken, b.Name)
	}
	return out
}

// evaluateFiles scores samples against a reference.
func evaluateFiles(ctx context.Context, runtime ort.Options, p *progress, c Inception, reference, samples string, opt images.Options, metrics []configs.Named[eval.Metric]) (*evaluation, error) {
	defer p.end()
	h := hashes{}
	files, err := h.inputs(map[string]string{"reference": reference, "samples": samples, "inception": c.Checkpoint})
	if err != nil {
		return nil, err
	}
	x, err := newExtractor(c.network(c.Checkpoint), h, runtime)
	if err != nil {
		return nil, err
	}
	defer x.close()
	ref, refImages, err := x.reference(ctx, reference, files["reference"].SHA256, opt, referenceParts(metrics), true, p)
	if err != nil {
		return nil, err
	}
	gen, genImages, err := x.reference(ctx, samples, files["samples"].SHA256, opt, generatedParts(metrics), false, p)
	if err != nil {
		return nil, err
	}
	p.end()
	x.net.Rest()
	out := &evaluation{Samples: gen.N, Inputs: map[string]evaluatedInput{
		"reference": {files["reference"], readAs(refImages)},
		"samples":   {files["samples"], readAs(genImages)},
		"inception": {InputFile: files["inception"]},
	}}
	if out.Scores, err = score(ctx, ref, gen, metrics, p); err != nil {
		return nil, err
	}
	out.Versions, err = versions()
	return out, err
}

// score computes the metrics.
func score(ctx context.Context, ref, gen *eval.Features, metrics []configs.Named[eval.Metric], p *progress) ([]Score, error) {
	var all []eval.Metric
	for _, m := range metrics {
		all = append(all, m.Value)
	}
	report, err := eval.Evaluate(ctx, ref, gen, all...)
	for _, w := range report.Warnings {
		p.warn(relative(w, ref, gen))
	}
	if err != nil {
		return nil, err
	}
	var out []Score
	for _, s := range report.Scores {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			return nil, fmt.Errorf("%s of %s is %g; look at the images and at the statistics of %s", s.Title, gen.Source, s.Value, ref.Source)
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
	return out, nil
}

// relative is a warning without the folders of this machine.
func relative(warning string, ref, gen *eval.Features) string {
	warning = strings.TrimPrefix(warning, gen.Source+": ")
	return strings.ReplaceAll(warning, ref.Source, filepath.Base(ref.Source))
}

// versions are those of everything that computes.
func versions() (map[string]string, error) {
	runtime, err := ort.RuntimeVersion()
	return map[string]string{"sagbench": version, "sampling": fmt.Sprint(samplingVersion), "onnxruntime": runtime}, err
}

// print writes a line a score.
func (e *evaluation) print(w io.Writer) error {
	for _, s := range e.Scores {
		text := fmt.Sprintf("%-12s %s %.*f", s.Title, arrowOf(s.Direction), s.Decimals+2, s.Value)
		if s.Std > 0 {
			text += fmt.Sprintf(" ± %.*f", s.Decimals+2, s.Std)
		}
		if s.Note != "" {
			text += "   (" + s.Note + ")"
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluation) write(path string) error {
	var out bytes.Buffer
	j := json.NewEncoder(&out)
	j.SetIndent("", "  ")
	j.SetEscapeHTML(false)
	if err := j.Encode(e); err != nil {
		return err
	}
	return writeWhole(path, out.Bytes())
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
