package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/olekukonko/tablewriter/tw"

	"sagbench/eval"
	"sagbench/eval/images"
)

// evaluationFormat is the version of the form of eval's JSON.
const evaluationFormat = 1

// An evaluation is what the command eval found, with everything that led to it:
// its JSON. docs/evaluation.md describes the fields.
type evaluation struct {
	Format   int                       `json:"format"`   // evaluationFormat
	Protocol string                    `json:"protocol"` // and what was set otherwise
	Settings evaluationSettings        `json:"settings"`
	Samples  int                       `json:"samples"` // images that the scores are of
	Scores   []Score                   `json:"scores"`
	Notes    []string                  `json:"notes,omitempty"` // what was assumed, converted or left out
	Inputs   map[string]evaluatedInput `json:"inputs"`          // reference, samples, network; dinov2, where it is a second one
	Versions map[string]string         `json:"versions"`
}

// evaluationSettings are every setting, defaults included.
type evaluationSettings struct {
	Protocol   string           `json:"protocol"`
	Network    string           `json:"network"`
	Resize     string           `json:"resize"`
	InputSize  int              `json:"input_size"`
	Device     string           `json:"device"`
	Metrics    []map[string]any `json:"metrics"` // name → options
	Bootstrap  int              `json:"bootstrap"`
	SkipBroken bool             `json:"skip_broken"`
}

// An evaluatedInput is a file or a folder, and what was met in reading its
// images, where they were read.
type evaluatedInput struct {
	InputFile
	Statistics int             `json:"statistics,omitempty"` // images that its mean and covariance are of; 0 where a file does not say
	Images     *imagesRead     `json:"images,omitempty"`
	Network    json.RawMessage `json:"network,omitempty"` // resize and flags of a network
}

type imagesRead struct {
	Count     int                       `json:"count"`               // that were looked at
	Converted map[images.Conversion]int `json:"converted,omitempty"` // of them, by what was done to make them RGB of 8 bits
	Broken    []string                  `json:"broken,omitempty"`    // left out
}

// add is what one network's features say about a set.
func (in *evaluatedInput) add(f *eval.Features, r images.Report) {
	if f.Stats != nil {
		in.Statistics = f.Stats.N
	}
	if r.Decoded == 0 {
		return
	}
	in.Images = &imagesRead{Count: r.Decoded, Converted: r.Converted}
	for _, b := range r.Broken {
		in.Images.Broken = append(in.Images.Broken, b.Name)
	}
}

// describe fills in how a network is used, and of the main one protocol, settings
// and versions.
func (e *evaluation) describe(j *evalJob, s share, x *extractor, device string) (err error) {
	in := e.Inputs[j.role(s)]
	if in.Network, err = s.settings(); err != nil {
		return err
	}
	e.Inputs[j.role(s)] = in
	if s.name != j.main {
		return nil
	}
	if e.Protocol, err = describeProtocol(j.protocol, s.featureNetwork, j.metrics); err != nil {
		return err
	}
	e.Settings = evaluationSettings{Protocol: j.protocol.Name, Network: x.name, Resize: string(x.resize), InputSize: x.side(),
		Device: device, Bootstrap: j.bootstrap, SkipBroken: j.read.SkipBroken}
	for _, m := range j.metrics {
		options, err := fieldsOf(m.Value)
		if err != nil {
			return err
		}
		e.Settings.Metrics = append(e.Settings.Metrics, map[string]any{m.Name: options})
	}
	e.Versions, err = versions()
	return err
}

// Published numbers are of so many images: evaluators of diffusion models ask
// for 50,000 samples, and published reference batches hold 10,000 images.
const usualSamples = 50_000

// unusualNumbers tells of a number of samples that published numbers are not of.
func unusualNumbers(gen *eval.Features) []string {
	n := gen.N
	if n == 0 && gen.Stats != nil {
		n = gen.Stats.N
	}
	if n == 0 || n == usualSamples {
		return nil
	}
	return []string{fmt.Sprintf("%d samples: published numbers are of %d as a rule, and FID, sFID, IS, recall and coverage change with it", n, usualSamples)}
}

// print draws the table for people.
func (e *evaluation) print(w io.Writer) error {
	fmt.Fprintf(w, "protocol: %s\n", e.Protocol)
	var lines [][]string
	for _, s := range e.Scores {
		number := func(v float64) string { return strconv.FormatFloat(v, 'f', s.Decimals+2, 64) }
		line := []string{s.Title + " " + arrowOf(s.Direction), number(s.Value), "", "", s.Note}
		if s.Std > 0 {
			line[2] = "± " + number(s.Std)
		}
		if s.Interval != nil {
			line[3] = number(s.Interval.Low) + " … " + number(s.Interval.High)
		}
		lines = append(lines, line)
	}
	head := []string{"metric", "value", "std", "95 %", "how"}
	align := tw.Alignment{tw.AlignLeft, tw.AlignRight, tw.AlignRight, tw.AlignRight, tw.AlignLeft}
	for _, column := range []int{3, 2} { // those that no score has are left out
		if empty(lines, column) {
			head, align = without(head, column), without(align, column)
			for i := range lines {
				lines[i] = without(lines[i], column)
			}
		}
	}
	return writeTable(w, head, lines, align)
}

func empty(lines [][]string, column int) bool {
	for _, l := range lines {
		if l[column] != "" {
			return false
		}
	}
	return true
}

func without[T any](list []T, i int) []T {
	return append(append([]T(nil), list[:i]...), list[i+1:]...)
}

// encodeJSON is the evaluation with every digit.
func (e *evaluation) encodeJSON() ([]byte, error) {
	var out bytes.Buffer
	j := json.NewEncoder(&out)
	j.SetIndent("", "  ")
	j.SetEscapeHTML(false)
	err := j.Encode(e)
	return out.Bytes(), err
}

// encodeCSV are the scores, a line each.
func (e *evaluation) encodeCSV() ([]byte, error) {
	var out bytes.Buffer
	lines := [][]string{{"metric", "value", "std", "low", "high", "direction", "protocol", "samples"}}
	digits := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, s := range e.Scores {
		line := []string{s.Name, digits(s.Value), "", "", "", s.Direction, e.Protocol, strconv.Itoa(e.Samples)}
		if s.Std > 0 {
			line[2] = digits(s.Std)
		}
		if i := s.Interval; i != nil {
			line[3], line[4] = digits(i.Low), digits(i.High)
		}
		lines = append(lines, line)
	}
	err := csv.NewWriter(&out).WriteAll(lines)
	return out.Bytes(), err
}

// outputs say where an evaluation goes beside the terminal; - is standard
// output, in place of the table.
type outputs struct{ json, csv string }

func (o outputs) check() error {
	if o.json == "-" && o.csv == "-" {
		return errors.New("--json and --csv cannot both go to standard output")
	}
	return nil
}

func (o outputs) write(w io.Writer, e *evaluation) error {
	table := true
	var faults []error
	for _, out := range []struct {
		path   string
		encode func() ([]byte, error)
	}{{o.json, e.encodeJSON}, {o.csv, e.encodeCSV}} {
		if out.path == "" {
			continue
		}
		data, err := out.encode()
		switch {
		case err != nil:
		case out.path == "-":
			table = false
			_, err = w.Write(data)
		default:
			err = writeWhole(out.path, data)
		}
		faults = append(faults, err)
	}
	if table {
		faults = append(faults, e.print(w))
	}
	return errors.Join(faults...)
}
