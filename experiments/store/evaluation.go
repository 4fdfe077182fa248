package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"sagbench/eval"
	"sagbench/eval/images"
)

// Evaluations are those of several sets against one reference, as the command eval
// writes them to one JSON file. docs/results.md describes the fields.
type Evaluations struct {
	Format      int           `json:"format"`           // EvaluationFormat
	Evaluations []*Evaluation `json:"evaluations"`      // in the order of the sets
	Failed      []FailedSet   `json:"failed,omitempty"` // sets without an evaluation
	Notes       []string      `json:"notes,omitempty"`  // about the sets together
	Checksum    string        `json:"checksum,omitempty"`
}

// A FailedSet is a set that could not be evaluated at all, and why.
type FailedSet struct {
	Set    string `json:"set"`
	Reason string `json:"reason"`
}

// EvaluationDraws are the scores of each bootstrap draw of an evaluation's samples. Draw
// b is a function of seed, number of images and b alone: two sets of as many images
// that pair off, one by one, have the same draws of pairs.
type EvaluationDraws struct {
	Seed   int                  `json:"seed"`
	Images int                  `json:"images"`                 // that are drawn, of as many
	Names  string               `json:"names_sha256,omitempty"` // of the images' names in their order (see NamesSum); "" where they have none
	Values map[string][]float64 `json:"values"`                 // score's name → its value for each draw
}

// PerClass are the scores of single classes of the samples, each against the images of
// that class in the reference.
type PerClass struct {
	Classes          []*ClassScores `json:"classes"`                     // the worst first, by the first metric
	OnlyReference    []string       `json:"only_reference,omitempty"`    // classes that the samples lack
	OnlySamples      []string       `json:"only_samples,omitempty"`      // classes that the reference lacks
	ReferenceWithout int            `json:"reference_without,omitempty"` // images that have no class
	SamplesWithout   int            `json:"samples_without,omitempty"`
}

// ClassScores are the scores of one class.
type ClassScores struct {
	Class     string    `json:"class"`
	Samples   int       `json:"samples"`   // its images there
	Reference int       `json:"reference"` // and there
	Scores    []Score   `json:"scores"`
	Failed    []Failure `json:"failed,omitempty"` // metrics that have no score
}

// Add adds scores of a class, by one network, to those of others.
func (p *PerClass) Add(class string, samples, reference int, scores []Score, failed []Failure) {
	i := slices.IndexFunc(p.Classes, func(c *ClassScores) bool { return c.Class == class })
	if i < 0 {
		i = len(p.Classes)
		p.Classes = append(p.Classes, &ClassScores{Class: class, Samples: samples, Reference: reference})
	}
	c := p.Classes[i]
	c.Scores, c.Failed = append(c.Scores, scores...), append(c.Failed, failed...)
}

// Sort puts the worst classes first, by the first score of the first class that has any;
// those without it come last.
func (p *PerClass) Sort() {
	name := ""
	for _, c := range p.Classes {
		if name == "" && len(c.Scores) > 0 {
			name = c.Scores[0].Name
		}
	}
	rank := func(c *ClassScores) float64 {
		for _, s := range c.Scores {
			if s.Name == name && s.Direction == HigherIsBetter {
				return s.Value
			} else if s.Name == name {
				return -s.Value
			}
		}
		return math.Inf(1)
	}
	slices.SortStableFunc(p.Classes, func(a, b *ClassScores) int { return cmp.Compare(rank(a), rank(b)) })
}

// Neighbours are the samples that are closest to the reference, the closest first, each
// with the reference images that are nearest to it.
type Neighbours struct {
	Network   string       `json:"network"`   // in whose features they are near
	Reference int          `json:"reference"` // images that were looked through
	Samples   []NearSample `json:"samples"`
}

// A NearSample is a sample with its nearest reference images, the nearest first.
type NearSample struct {
	*Picture
	Nearest []Neighbour `json:"nearest"`
}

// A Neighbour is a reference image near a sample.
type Neighbour struct {
	*Picture
	Distance float64 `json:"distance"` // Euclidean, of their features
}

// A Picture is an image of a set.
type Picture struct {
	Index int          `json:"index"` // among those of its set that are not broken, from 0
	Name  string       `json:"name"`
	Image images.Image `json:"-"` // its pixels, unless it was read from a file
}

// Encode is the file: that of a single evaluation where one set was asked for.
func (e *Evaluations) Encode() ([]byte, error) {
	if len(e.Evaluations) == 1 && len(e.Failed) == 0 {
		return e.Evaluations[0].Encode()
	}
	sealed := *e
	sealed.Checksum = NoChecksum
	return encodeSealed(&sealed)
}

// Encode is the evaluation as JSON with every digit.
func (e *Evaluation) Encode() ([]byte, error) {
	sealed := *e
	sealed.Checksum = NoChecksum
	return encodeSealed(&sealed)
}

// encodeSealed is a value, whose checksum is NoChecksum, as JSON.
func encodeSealed(v any) ([]byte, error) {
	data, err := encodeJSON(v)
	data, _ = Seal(flat(data))
	return data, err
}

// numbers are a list of numbers over several lines of JSON.
var numbers = regexp.MustCompile(`\[\n\s+-?[0-9][-+0-9.eE,\n\s]*\]`)

// flat puts lists of numbers on one line each.
func flat(data []byte) []byte {
	return numbers.ReplaceAllFunc(data, func(list []byte) []byte {
		fields := bytes.Fields(list[1 : len(list)-1])
		return fmt.Appendf(nil, "[%s]", bytes.Join(fields, []byte(" ")))
	})
}

// maxEvaluations bounds a file of evaluations, in bytes.
const maxEvaluations = 1 << 26

// IsEvaluation reports whether a path is meant for a file which eval has written: it is
// a file, and none of a run.
func IsEvaluation(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	var keys map[string]json.RawMessage
	if info.Size() <= maxEvaluations {
		if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &keys) == nil {
			_, run := keys["experiment"]
			return !run
		}
	}
	return filepath.Base(path) != MetricsFile
}

// ReadEvaluations reads what eval wrote to a file as JSON: of one set or of several.
func ReadEvaluations(path string) ([]*Evaluation, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxEvaluations {
		err = fmt.Errorf("%s: has %d bytes, more than the %d that are read", path, info.Size(), maxEvaluations)
	}
	if err != nil {
		return nil, err
	}
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	all, err := decodeEvaluations(data)
	if err != nil {
		return nil, fmt.Errorf("%s: not a JSON file of `sagbench eval --json`: %w", path, err)
	}
	return all, nil
}

// decodeEvaluations is ReadEvaluations for the content of a file.
func decodeEvaluations(data []byte) ([]*Evaluation, error) {
	var several struct {
		Evaluations []json.RawMessage `json:"evaluations"`
	}
	if err := json.Unmarshal(data, &several); err != nil {
		return nil, err
	}
	var all Evaluations
	var into any = &all
	if several.Evaluations == nil {
		all.Evaluations = []*Evaluation{{}}
		into = all.Evaluations[0]
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields() // which may say what the scores depend on
	if err := d.Decode(into); err != nil {
		return nil, err
	}
	checksum := all.Checksum
	if several.Evaluations == nil {
		checksum = all.Evaluations[0].Checksum
	}
	if checksum != "" { // older files have none
		if err := CheckSeal(data, checksum); err != nil {
			return nil, err
		}
	}
	if several.Evaluations != nil && all.Format != EvaluationFormat {
		return nil, fmt.Errorf("has format %d, this program reads %d", all.Format, EvaluationFormat)
	}
	if len(all.Evaluations) == 0 {
		return nil, errors.New("holds no evaluation")
	}
	for i, e := range all.Evaluations {
		if e == nil {
			return nil, fmt.Errorf("evaluation %d is null", i+1)
		}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("evaluation %d (%q): %w", i+1, e.Inputs["samples"].Name, err)
		}
	}
	return all.Evaluations, nil
}

// maxScore bounds the scores that are compared, far beyond that of any images.
const maxScore = 1e100

// check is an error where an evaluation that was read is none that was written.
func (e *Evaluation) check() error {
	if e.Format != EvaluationFormat {
		return fmt.Errorf("has format %d, this program reads %d", e.Format, EvaluationFormat)
	}
	for _, s := range e.Scores {
		if s.Decimals < 0 || s.Decimals > maxDecimals {
			return fmt.Errorf("%q has %d decimals, expected 0 to %d: the file is damaged", s.Name, s.Decimals, maxDecimals)
		}
	}
	if e.Draws == nil {
		return nil
	}
	if n := e.Draws.Images; n <= 0 || n != e.Samples {
		return fmt.Errorf("draws of %d images, and %d samples: the file is damaged", n, e.Samples)
	}
	seen := map[string]bool{}
	for _, s := range e.Scores {
		if e.Draws.Values[s.Name] == nil {
			continue
		}
		if seen[s.Name] {
			return fmt.Errorf("has two scores %q with draws: the file is damaged", s.Name)
		}
		seen[s.Name] = true
		for _, v := range append([]float64{s.Value}, e.Draws.Values[s.Name]...) {
			if math.Abs(v) > maxScore { // of which squares and sums are numbers
				return fmt.Errorf("%q is %g, or a draw of it, more than the %g of any score: the file is damaged", s.Name, v, maxScore)
			}
		}
	}
	for name, values := range e.Draws.Values {
		if len(values) != e.Settings.Bootstrap || len(values) < eval.MinReplicates {
			return fmt.Errorf("%d draws of %q, expected %d, and %d at least: the file is damaged", len(values), name, e.Settings.Bootstrap, eval.MinReplicates)
		}
	}
	return nil
}
