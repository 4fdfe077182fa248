// Package store is what lies in results/ and in the cache: values go in, files
// come out, whole or not at all, and back. Every file format is here with its
// version; docs/results.md describes them field by field. It computes nothing.
package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"sagbench/eval"
	"sagbench/eval/images"
)

// MetricsFile is what a run's results are called in its folder, RunFile its settings;
// TableFile is an experiment's table for programs.
const (
	MetricsFile = "metrics.json"
	RunFile     = "run.yaml"
	TableFile   = "table.csv"
)

// MetricsFormat is the version of the format of metrics.json.
const MetricsFormat = 1

// Version is the program's, as results record it.
const Version = "0.1.0"

// Metrics are the results of one row of a table with everything that they depend
// on: what metrics.json holds. Nothing in it depends on the time, the machine or
// the folder, so that a run that was interrupted gives the same bytes as one that
// was not. Tables are rendered from these files alone.
type Metrics struct {
	Format     int       `json:"format"`              // MetricsFormat
	Experiment string    `json:"experiment"`          // its name
	Run        string    `json:"run"`                 // the run id
	Row        int       `json:"row"`                 // place in the experiment's table, from 0
	Label      string    `json:"label,omitempty"`     // of the entry of rows:
	Settings   []Setting `json:"settings"`            // what the sweep chose, slowest path first
	Samples    int       `json:"samples"`             // images that the scores are over
	Evaluation string    `json:"evaluation"`          // hash of what the scores depend on beside the images
	Protocol   string    `json:"protocol,omitempty"`  // whose reading of the metrics, and what was set otherwise; "" in older files: adm
	Bootstrap  int       `json:"bootstrap,omitempty"` // draws of the images, whose scores bootstrap.csv holds
	Precision  string    `json:"precision,omitempty"` // that the networks which drew compute in; "" = float32
	Notes      []string  `json:"notes,omitempty"`     // what was assumed, converted or left out

	Devices    map[string]int `json:"devices,omitempty"`    // images by the kind of device that drew them, where there are several
	Search     *Searched      `json:"search,omitempty"`     // what a search decided about the row; nil where there was none
	Placements []Placement    `json:"placements,omitempty"` // that drew the images, and which providers ran the graphs' nodes; none = the CPU drew all

	Scores    []Score            `json:"scores"`
	Published map[string]float64 `json:"published,omitempty"` // metric's name → the authors' value

	Inputs   Inputs            `json:"inputs"`
	Versions map[string]string `json:"versions"` // sagbench, sampling, onnxruntime
	Config   json.RawMessage   `json:"config"`   // every setting of the row, defaults included

	Draws    string `json:"bootstrap_sha256,omitempty"` // sha256 of bootstrap.csv; "" where there is none, and in older files
	Checksum string `json:"checksum,omitempty"`         // sha256 of this file with zeros in place of these digits; "" in older files

	Folder string `json:"-"` // that the file was read from or written to, "" if it was not
}

// A Score is one metric's value.
type Score struct {
	Name      string  `json:"name"`               // fid, as an experiment calls it
	Title     string  `json:"title"`              // FID, as a table calls it
	Value     float64 `json:"value"`              // finite
	Direction string  `json:"direction"`          // LowerIsBetter or HigherIsBetter
	Decimals  int     `json:"decimals"`           // that a table shows
	Std       float64 `json:"std,omitempty"`      // over splits or subsets; 0 where there is none
	Note      string  `json:"note,omitempty"`     // what it is of: options of the metric, numbers of images
	Numerics  string  `json:"numerics,omitempty"` // by which arithmetic it was computed

	Interval *eval.Interval `json:"interval,omitempty"` // of 95 %, from a bootstrap; nil where there was none

	Warnings []string `json:"warnings,omitempty"` // why the value may mislead
}

// maxDecimals bounds Score.Decimals of a file: a float64 has no more digits.
const maxDecimals = 17

// The values of Score.Direction.
const (
	LowerIsBetter  = "lower"
	HigherIsBetter = "higher"
)

// inception is the network whose features lie in features.npz, and whose file
// comes first in metrics.json.
const inception = "inception"

// Inputs are the files that the scores depend on.
type Inputs struct {
	Checkpoint InputFile
	Reference  InputFile
	Networks   map[string]InputFile // that images were compared with, by their names
	Samples    InputFile            // the images; the scores are of the first Metrics.Samples of them
	Captions   *Captions            // that a metric compared the images with; nil where none did
	Guidance   map[string]InputFile // checkpoints of the guidances that have a network, by their names
}

// MarshalJSON implements json.Marshaler. The networks stand between reference and
// samples, each under its own name, the FID Inception first.
func (in Inputs) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	var faults []error
	separator := '{'
	add := func(key string, value any) {
		data, err := json.Marshal(value)
		faults = append(faults, err)
		fmt.Fprintf(&out, "%c%q:%s", separator, key, data)
		separator = ','
	}
	add("checkpoint", in.Checkpoint)
	add("reference", in.Reference)
	names := slices.Sorted(maps.Keys(in.Networks))
	if i := slices.Index(names, inception); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, inception)
	}
	for _, name := range names {
		add(name, in.Networks[name])
	}
	add("samples", in.Samples)
	if in.Captions != nil {
		add("captions", in.Captions)
	}
	if len(in.Guidance) > 0 {
		add("guidance", in.Guidance)
	}
	out.WriteByte('}')
	return out.Bytes(), errors.Join(faults...)
}

// UnmarshalJSON implements json.Unmarshaler: a key that is not Inputs' own is a
// network.
func (in *Inputs) UnmarshalJSON(data []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*in = Inputs{Networks: map[string]InputFile{}}
	own := map[string]any{"checkpoint": &in.Checkpoint, "reference": &in.Reference, "samples": &in.Samples, "captions": &in.Captions, "guidance": &in.Guidance}
	for name, value := range all {
		into, known := own[name]
		var network InputFile
		if !known {
			into = &network
		}
		if err := json.Unmarshal(value, into); err != nil {
			return fmt.Errorf("inputs: %s: %w", name, err)
		}
		if !known {
			in.Networks[name] = network
		}
	}
	return nil
}

// An InputFile is a file by its content; its folder is of no importance.
type InputFile struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Captions are what images were compared with: Name is that of the file or the set
// that held them, SHA256 of the captions in the order of the images, each with a zero
// byte behind it.
type Captions struct {
	InputFile
	CaptionsRead
}

// CaptionsRead are the captions of a set.
type CaptionsRead struct {
	From     string `json:"from"`              // file, set (beside the images) or prompts (of the run)
	Distinct int    `json:"distinct"`          // captions
	Cut      int    `json:"cut,omitempty"`     // of them, that are longer than the network reads
	Several  int    `json:"several,omitempty"` // images that have further captions, which were not looked at
}

// Score is the score of a metric by its name; false where there is none.
func (m *Metrics) Score(name string) (Score, bool) {
	for _, s := range m.Scores {
		if s.Name == name {
			return s, true
		}
	}
	return Score{}, false
}

// Title names the row among the others of its experiment.
func (m *Metrics) Title() string { return Title(m.Label, m.Settings) }

// Summary is a line of the scores, "  FID 4.87  IS 3.10", as a table rounds them.
func (m *Metrics) Summary() string {
	text := ""
	for _, s := range m.Scores {
		text += fmt.Sprintf("  %s %.*f", s.Title, s.Decimals, s.Value)
	}
	return text
}

// Write writes metrics.json into a run's folder, whole or not at all. A score
// that is not finite is an error.
func (m *Metrics) Write(folder string) error {
	for _, s := range m.Scores {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			return fmt.Errorf("%s is %g: not a number that a table can show", s.Name, s.Value)
		}
	}
	m.Checksum = NoChecksum
	data, err := encodeJSON(m)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	data, m.Checksum = Seal(data)
	m.Folder = folder
	return WriteFile(filepath.Join(folder, MetricsFile), data)
}

// readRegular is os.ReadFile for a file that is no device and no pipe, on which it
// would wait.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", path)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// ReadMetrics reads the metrics.json at path.
func ReadMetrics(path string) (*Metrics, error) {
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	m := &Metrics{Folder: filepath.Dir(path)}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: not a metrics.json of this program: %w; remove it and run the experiment again", path, err)
	}
	if m.Checksum != "" { // older files have none
		if err := CheckSeal(data, m.Checksum); err != nil {
			return nil, fmt.Errorf("%s: %w; run the experiment again, which makes it anew", path, err)
		}
	}
	if m.Format != MetricsFormat {
		return nil, fmt.Errorf("%s: has format %d, this program reads %d; run the experiment again", path, m.Format, MetricsFormat)
	}
	for _, s := range m.Scores {
		if s.Decimals < 0 || s.Decimals > maxDecimals {
			return nil, fmt.Errorf("%s: %q has %d decimals, expected 0 to %d: the file is damaged; remove it and run the experiment again", path, s.Name, s.Decimals, maxDecimals)
		}
	}
	return m, nil
}

// FindMetrics reads every metrics.json below the folders, which may be those of
// runs, of experiments or of all results, sorted by experiment, row and run id.
// The error lists files that cannot be read and folders without any.
func FindMetrics(folders ...string) ([]*Metrics, error) {
	var found []*Metrics
	var faults []error
	for _, folder := range folders {
		if !Exists(folder) {
			faults = append(faults, fmt.Errorf("%s: there is no such file or folder", folder))
			continue
		}
		before := len(found)
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != MetricsFile {
				return err
			}
			m, err := ReadMetrics(path)
			faults = append(faults, err)
			if err == nil {
				found = append(found, m)
			}
			return nil
		})
		if err == nil && len(found) == before && errors.Join(faults...) == nil {
			err = fmt.Errorf("%s: no %s below it; `sagbench run EXPERIMENT.yaml` makes them", folder, MetricsFile)
		}
		faults = append(faults, err)
	}
	slices.SortStableFunc(found, func(m, n *Metrics) int {
		return cmp.Or(cmp.Compare(m.Experiment, n.Experiment), cmp.Compare(m.Row, n.Row), cmp.Compare(m.Run, n.Run))
	})
	return found, errors.Join(faults...)
}

// FindRuns reads every metrics.json below a folder, as FindMetrics does, and adds
// the runs that have images but no metrics.json, which are not evaluated, with what
// their folders tell. It is an error where there is neither.
func FindRuns(folder string) (runs []*Metrics, err error) {
	any := false
	var unscored []string
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		any = any || d.Name() == MetricsFile
		run := filepath.Dir(path)
		if _, image := parseShard(run, d.Name()); image && filepath.Base(run) == "samples" {
			if run = filepath.Dir(run); !Exists(filepath.Join(run, MetricsFile)) && !slices.Contains(unscored, run) {
				unscored = append(unscored, run)
			}
		}
		return nil
	})
	if any || err != nil || len(unscored) == 0 {
		if runs, err = FindMetrics(folder); err != nil {
			return nil, err
		}
	}
	for _, f := range unscored {
		m, err := unscoredRun(f)
		if err != nil {
			return nil, err
		}
		runs = append(runs, m)
	}
	return runs, nil
}

// maxRunYAML bounds a run.yaml, in bytes.
const maxRunYAML = 1 << 20

// unscoredRun is what the folder of a run without metrics.json tells: its run id and,
// where it has a run.yaml, its label and its settings.
func unscoredRun(folder string) (*Metrics, error) {
	name, path := filepath.Base(folder), filepath.Join(folder, RunFile)
	m := &Metrics{Experiment: filepath.Base(filepath.Dir(folder)), Run: name[strings.LastIndexByte(name, '-')+1:], Folder: folder}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err == nil && (!info.Mode().IsRegular() || info.Size() > maxRunYAML):
		err = fmt.Errorf("is no file of at most %d bytes", maxRunYAML)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	config := map[string]any{}
	if err == nil {
		err = yaml.Unmarshal(data, &config)
	}
	if list, ok := config["guidance"].([]any); ok { // several, in their order
		byName := map[string]any{}
		for _, one := range list {
			if block, ok := one.(map[string]any); ok {
				maps.Copy(byName, block)
			}
		}
		config["guidance"] = byName
	}
	m.Label, _ = config["label"].(string)
	if err == nil {
		m.Config, err = json.Marshal(config)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; `sagbench sample` or `run` writes it anew", path, err)
	}
	return m, nil
}

// A Setting is one choice of a sweep.
type Setting struct {
	Path  string `json:"path"`  // guidance.sag.scale
	Value string `json:"value"` // as it was written: 0.5
}

// Title names a row by what tells it from the others: its label and what the
// sweep chose, "Cat s=0.5"; "run" where it has neither.
func Title(label string, settings []Setting) string {
	var parts []string
	if label != "" {
		parts = append(parts, label)
	}
	for i, name := range SettingNames(settings) {
		parts = append(parts, name+"="+settings[i].Value)
	}
	if len(parts) == 0 {
		return "run"
	}
	return strings.Join(parts, " ")
}

// SettingNames are short names of the settings, in their order: the last key of
// each path, with as many keys before it as it takes to tell the names apart.
// guidance.sag.scale is s, as in the paper.
func SettingNames(settings []Setting) []string {
	names := make([]string, len(settings))
	for i, s := range settings {
		keys := strings.Split(s.Path, ".")
		for n := 1; n <= len(keys); n++ {
			names[i] = strings.Join(keys[len(keys)-n:], ".")
			same := 0
			for _, other := range settings {
				if other.Path == names[i] || strings.HasSuffix(other.Path, "."+names[i]) {
					same++
				}
			}
			if same == 1 {
				break
			}
		}
	}
	for i, s := range settings {
		if s.Path == "guidance.sag.scale" && names[i] == "scale" && !slices.Contains(names, "s") {
			names[i] = "s"
		}
	}
	return names
}

// EvaluationFormat is the version of the format of an Evaluation.
const EvaluationFormat = 1

// An Evaluation is what the command eval writes as JSON: the scores with
// everything that they depend on. docs/results.md describes the fields.
type Evaluation struct {
	Format   int                `json:"format"`   // EvaluationFormat
	Protocol string             `json:"protocol"` // and what was set otherwise
	Settings EvaluationSettings `json:"settings"`
	Samples  int                `json:"samples"` // images that the scores are of
	Scores   []Score            `json:"scores"`
	Failed   []Failure          `json:"failed,omitempty"` // metrics that have no score
	Notes    []string           `json:"notes,omitempty"`  // what was assumed, converted or left out
	Inputs   map[string]Input   `json:"inputs"`           // reference, samples, network; dinov2, where it is a second one
	Versions map[string]string  `json:"versions"`

	PerClass *PerClass        `json:"per_class,omitempty"`  // nil where it was not asked for
	Near     *Neighbours      `json:"neighbours,omitempty"` // nil where they were not asked for
	Draws    *EvaluationDraws `json:"draws,omitempty"`      // nil without a bootstrap, and in older files

	Checksum string `json:"checksum,omitempty"` // of a file of this one; "" beside others, and in older files
}

// A Failure is a metric that could not be computed, and why.
type Failure struct {
	Metric string `json:"metric"`
	Reason string `json:"reason"`
}

// EvaluationSettings are all settings of an evaluation, defaults included.
type EvaluationSettings struct {
	Protocol   string           `json:"protocol"`
	Network    string           `json:"network"`
	Resize     string           `json:"resize"`
	InputSize  int              `json:"input_size"`
	Device     string           `json:"device"`
	Metrics    []map[string]any `json:"metrics"` // name → options
	Bootstrap  int              `json:"bootstrap"`
	SkipBroken bool             `json:"skip_broken"`
	First      int              `json:"first,omitempty"`       // images of the samples that were chosen; 0: all
	Random     int              `json:"random,omitempty"`      // the same, at random
	SubsetSeed uint32           `json:"subset_seed,omitempty"` // of these
}

// An Input is a file or a folder and, where its images were read, what was found
// in it.
type Input struct {
	InputFile
	SetRead
	*CaptionsRead
	Network map[string]json.RawMessage `json:"network,omitempty"` // resize and flags of a network
}

// A SetRead is what was found in reading a set of images or its statistics.
type SetRead struct {
	Statistics int         `json:"statistics,omitempty"` // images that its mean and covariance are of; 0 where a file does not say
	Images     *ImagesRead `json:"images,omitempty"`
}

// ImagesRead are the images of a set.
type ImagesRead struct {
	Count     int                       `json:"count"`                    // that features were computed of
	Converted map[images.Conversion]int `json:"converted,omitempty"`      // of them, by what was done to make them RGB of 8 bits
	Broken    []string                  `json:"broken,omitempty"`         // left out
	Content   string                    `json:"content_sha256,omitempty"` // of the images in their order, whatever they are called and lie in
}

// Add takes over what is known of a set once features of it, of any network, are
// computed or read; r is the report on reading its images.
func (s *SetRead) Add(f *eval.Features, r images.Report) {
	if f.Stats != nil {
		s.Statistics = f.Stats.N
	}
	if r.Decoded == 0 {
		return
	}
	s.Images = &ImagesRead{Count: r.Decoded, Converted: r.Converted, Content: r.Content}
	for _, b := range r.Broken {
		s.Images.Broken = append(s.Images.Broken, b.Name)
	}
}

// encodeJSON is the form of every JSON file: indented, without HTML's escapes.
func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}
