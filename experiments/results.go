package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"sagbench/eval"
)

// metricsFile is what a run's results are called in its folder.
const metricsFile = "metrics.json"

// metricsFormat is the version of the form of metrics.json.
const metricsFormat = 1

// Metrics are the results of one row of a table with everything that led to
// them: what metrics.json holds. Nothing in it depends on the time, the machine
// or the folder, so that a run that was interrupted gives the same bytes as one
// that was not. Tables are rendered from these files alone.
type Metrics struct {
	Format     int       `json:"format"`              // metricsFormat
	Experiment string    `json:"experiment"`          // its name
	Run        string    `json:"run"`                 // the run id
	Row        int       `json:"row"`                 // place in the experiment's table, from 0
	Label      string    `json:"label,omitempty"`     // of the entry of rows:
	Settings   []Setting `json:"settings"`            // what the sweep chose, slowest path first
	Samples    int       `json:"samples"`             // images that the scores are over
	Evaluation string    `json:"evaluation"`          // hash of what the scores depend on beside the images
	Protocol   string    `json:"protocol,omitempty"`  // whose reading of the metrics, and what was set otherwise; "" in older files: adm
	Bootstrap  int       `json:"bootstrap,omitempty"` // draws of the images, whose scores bootstrap.csv holds

	Scores    []Score            `json:"scores"`
	Published map[string]float64 `json:"published,omitempty"` // metric's name → the authors' value

	Inputs   Inputs            `json:"inputs"`
	Versions map[string]string `json:"versions"` // sagbench, sampling, onnxruntime
	Config   json.RawMessage   `json:"config"`   // every setting of the row, defaults included

	folder string // that the file was read from, "" if it was not
}

// A Setting is one choice of a sweep.
type Setting struct {
	Path  string `json:"path"`  // guidance.sag.scale
	Value string `json:"value"` // as it was written: 0.5
}

// A Score is one metric's value.
type Score struct {
	Name      string  `json:"name"`           // fid, as an experiment calls it
	Title     string  `json:"title"`          // FID, as a table calls it
	Value     float64 `json:"value"`          // finite
	Direction string  `json:"direction"`      // lowerIsBetter or higherIsBetter
	Decimals  int     `json:"decimals"`       // that a table shows
	Std       float64 `json:"std,omitempty"`  // over splits or subsets; 0 where there is none
	Note      string  `json:"note,omitempty"` // how it was computed

	Interval *eval.Interval `json:"interval,omitempty"` // of 95 %, from a bootstrap; nil where there was none

	Warnings []string `json:"warnings,omitempty"` // why it may mislead
}

// The values of Score.Direction.
const (
	lowerIsBetter  = "lower"
	higherIsBetter = "higher"
)

// Inputs are the files that the scores depend on.
type Inputs struct {
	Checkpoint InputFile `json:"checkpoint"`
	Reference  InputFile `json:"reference"`
	Inception  InputFile `json:"inception,omitzero"`
	DINOv2     InputFile `json:"dinov2,omitzero"`
	ONNX       InputFile `json:"onnx,omitzero"`

	Samples  InputFile            `json:"samples"`            // the images, of which the scores are over the first
	Guidance map[string]InputFile `json:"guidance,omitempty"` // checkpoints of the guidances that have a network, by their names
}

// An InputFile is a file by its content; its folder is of no importance.
type InputFile struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Score is the score of that name.
func (m *Metrics) Score(name string) (Score, bool) {
	i := slices.IndexFunc(m.Scores, func(s Score) bool { return s.Name == name })
	if i < 0 {
		return Score{}, false
	}
	return m.Scores[i], true
}

// encode is the file's content.
func (m *Metrics) encode() ([]byte, error) {
	for _, s := range m.Scores {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			return nil, fmt.Errorf("%s is %g: not a number that a table can show", s.Name, s.Value)
		}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return out.Bytes(), nil
}

// write puts metrics.json into a run's folder, whole or not at all.
func (m *Metrics) write(folder string) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(folder, metricsFile), data)
}

// readMetrics reads the metrics.json at path.
func readMetrics(path string) (*Metrics, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &Metrics{folder: filepath.Dir(path)}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: not a metrics.json of this program: %w; remove it and run the experiment again", path, err)
	}
	if m.Format != metricsFormat {
		return nil, fmt.Errorf("%s: has format %d, this program reads %d; run the experiment again", path, m.Format, metricsFormat)
	}
	return m, nil
}

// findMetrics reads every metrics.json below the folders: runs' folders,
// experiments' folders or the results folder itself. They come sorted by
// experiment, row and run id.
func findMetrics(folders ...string) ([]*Metrics, error) {
	var found []*Metrics
	var faults []error
	for _, folder := range folders {
		if !exists(folder) {
			faults = append(faults, fmt.Errorf("%s: there is no such file or folder", folder))
			continue
		}
		before := len(found)
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != metricsFile {
				return err
			}
			m, err := readMetrics(path)
			faults = append(faults, err)
			if err == nil {
				found = append(found, m)
			}
			return nil
		})
		if err == nil && len(found) == before && errors.Join(faults...) == nil {
			err = fmt.Errorf("%s: no %s below it; `sagbench run EXPERIMENT.yaml` makes them", folder, metricsFile)
		}
		faults = append(faults, err)
	}
	slices.SortStableFunc(found, (*Metrics).compare)
	return found, errors.Join(faults...)
}

// compare orders by experiment, row and run id.
func (m *Metrics) compare(n *Metrics) int {
	return cmp.Or(cmp.Compare(m.Experiment, n.Experiment), cmp.Compare(m.Row, n.Row), cmp.Compare(m.Run, n.Run))
}
