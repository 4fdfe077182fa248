package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
)

// A Status is how far an experiment is, from names in folders, the workers' own files
// and metrics.json. docs/results.md describes its JSON.
type Status struct {
	Experiment string         `json:"experiment"`
	Folder     string         `json:"folder"`
	Images     int            `json:"images"`                 // that are there
	Samples    int            `json:"samples"`                // that are wanted
	Rate       float64        `json:"images_per_second"`      // of all workers
	Left       float64        `json:"seconds_left,omitempty"` // at that rate; 0: not known
	Evaluated  int            `json:"rows_evaluated"`
	Search     *SearchStatus  `json:"search,omitempty"` // where the experiment searches; samples are then those of the round
	Rows       []RowStatus    `json:"rows"`
	Workers    []WorkerStatus `json:"workers"`
	Advice     string         `json:"advice,omitempty"` // what to do where nobody is at work
}

// A RowStatus is how far a row is.
type RowStatus struct {
	Title   string       `json:"title"`
	Run     string       `json:"run,omitempty"` // its id; "" before anything of it is there
	Images  int          `json:"images"`
	Samples int          `json:"samples"`
	InWork  int          `json:"in_work"` // images that workers have claimed
	Rate    float64      `json:"images_per_second"`
	Left    float64      `json:"seconds_left,omitempty"`
	Score   *store.Score `json:"score,omitempty"`            // the first metric, where the row is evaluated
	Dropped int          `json:"dropped_in_round,omitempty"` // of a search; 0: it is left

	// Differences are those for which it was dropped.
	Differences []store.SearchDifference `json:"differences,omitempty"`

	number              int // in the experiment, from 1
	evaluated, unscored bool
}

// A WorkerStatus is a worker.
type WorkerStatus struct {
	work.About
	Silent float64 `json:"silent_seconds"` // since its last sign of life
	Alive  bool    `json:"alive"`
}

// StatusOf looks how far an experiment is. Nothing is hashed or opened but small files.
// A worker is alive while it has given a sign of life within stale.
func StatusOf(e *plan.Experiment, results string, stale time.Duration) (*Status, error) {
	s := &Status{Experiment: e.Name, Folder: filepath.Join(results, e.Name), Workers: []WorkerStatus{}}
	on := work.Disk{}
	others, claimed, err := work.Watch(on, s.Folder)
	if err != nil {
		return nil, err
	}
	var dropped []RowStatus
	if s.Search, dropped, err = searchStatus(e, s.Folder); err != nil {
		return nil, err
	}
	alive, claims := 0, map[string]int{}
	for _, o := range others {
		w := WorkerStatus{o.About, o.Silent.Seconds(), !o.Ended && o.Silent <= stale}
		s.Workers = append(s.Workers, w)
		if w.Alive {
			alive++
			s.Rate += w.Rate
			for _, row := range claimed[o.ID] {
				claims[row]++
			}
		}
	}
	there := map[string]string{} // run ids of the rows that the workers are at, by their settings
	if a := agreed(on, s.Folder); a != nil {
		for _, r := range a.Rows {
			there[string(compact(r.Config))] = r.Run
		}
	}
	for i, r := range e.Rows {
		config, err := r.AsWritten().Config()
		if err != nil {
			return nil, err
		}
		id := there[string(config)] // "" where the workers are at other rows
		row, err := s.row(r, id, claims)
		if err != nil {
			return nil, err
		}
		row.Dropped, row.Differences = dropped[i].Dropped, dropped[i].Differences
		s.Rows = append(s.Rows, row)
		s.Images, s.Samples = s.Images+row.Images, s.Samples+row.Samples
		if row.evaluated {
			s.Evaluated++
		}
	}
	s.Left = left(s.Samples-s.Images, s.Rate)
	s.advise(e, alive)
	return s, nil
}

// left is the time for so many images in seconds; 0 where there is no rate.
func left(images int, rate float64) float64 {
	if rate == 0 {
		return 0
	}
	return float64(images) / rate
}

// row is how far a row is, whose run id may not be known.
func (s *Status) row(r *plan.Row, id string, claims map[string]int) (row RowStatus, err error) {
	row = RowStatus{Title: r.Title(), Run: id, Samples: r.Samples, number: r.Index + 1}
	folder, err := r.FolderIn(s.Folder, id)
	if err != nil || folder == "" {
		return row, err
	}
	row.Run = folder[strings.LastIndexByte(folder, '-')+1:]
	images := &store.Images{Folder: filepath.Join(folder, "samples"), Classes: -1}
	if err := images.List(r.Samples); err != nil {
		return row, err
	}
	row.Images, row.InWork = images.Done(r.Samples), min(claims[row.Run]*r.Batch, r.Samples-images.Done(r.Samples))
	for _, w := range s.Workers {
		if w.Alive && w.Row == row.Run {
			row.Rate += w.Rate
		}
	}
	row.Left = left(row.Samples-row.Images, row.Rate)
	if len(r.Metrics) == 0 {
		row.unscored = true
		return row, nil
	}
	m, err := store.ReadMetrics(filepath.Join(folder, store.MetricsFile))
	if errors.Is(err, os.ErrNotExist) {
		return row, nil
	}
	if err != nil {
		return row, err
	}
	config, err := r.Config()
	if err != nil {
		return row, err
	}
	if bytes.Equal(compact(m.Config), config) && len(m.Scores) > 0 {
		row.evaluated, row.Score = true, &m.Scores[0]
	}
	return row, nil
}

// compact is a text of JSON without its white space; nil where it is none.
func compact(text []byte) []byte {
	var written bytes.Buffer
	if json.Compact(&written, text) != nil {
		return nil
	}
	return written.Bytes()
}

// advise tells what to do where nobody is at work and something is missing.
func (s *Status) advise(e *plan.Experiment, alive int) {
	open := 0
	for _, r := range s.Rows {
		if !r.evaluated && !(r.unscored && r.Images == r.Samples) {
			open++
		}
	}
	if s.Search != nil && !s.Search.Over {
		open++ // the rounds to come
	}
	switch job := filepath.Join(s.Folder, work.Folder, "job.sbatch"); {
	case alive > 0:
	case open == 0:
		s.Advice = "all is there: sagbench table " + s.Folder
	case store.Exists(job):
		s.Advice = "nobody is at work, and not all is there: sbatch " + human.Quoted(job)
	default:
		s.Advice = "nobody is at work, and not all is there: sagbench run " + e.Path()
	}
}

// Encode is the status as JSON.
func (s *Status) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "  ")
	return append(data, '\n'), err
}

// Print writes the status as a table for people.
func (s *Status) Print(out io.Writer) error {
	t := human.Table{Fixed: 2, Align: "rlrrrl", Head: []string{"", "row", "images", "in work", "rate", "left"}}
	for _, r := range s.Rows {
		inWork, rate, last := "—", "—", "—"
		if r.InWork > 0 {
			inWork = human.Count(r.InWork)
		}
		if r.Rate > 0 {
			rate = rateOf(r.Rate)
		}
		switch {
		case r.Score != nil:
			last = fmt.Sprintf("evaluated: %s %.*f", r.Score.Title, r.Score.Decimals, r.Score.Value)
		case r.Left > 0:
			last = human.Duration(seconds(r.Left))
		case r.Images == r.Samples && !r.unscored:
			last = "not evaluated"
		}
		if r.Dropped > 0 {
			last += fmt.Sprintf(", dropped in round %d:", r.Dropped)
			for _, d := range r.Differences {
				last += fmt.Sprintf(" %s %+.3g [%.3g, %.3g]", d.Metric, d.Change, d.Low, d.High)
			}
		}
		t.Lines = append(t.Lines, []string{fmt.Sprint(r.number), r.Title, human.Count(r.Images) + "/" + human.Count(r.Samples), inWork, rate, last})
	}
	if err := t.Print(out); err != nil {
		return err
	}
	text := fmt.Sprintf("%s\n%s%s", s.line(), s.workers(), s.Advice)
	if s.Search != nil {
		text = fmt.Sprintf("%s\n%s", s.Search, text)
	}
	_, err := fmt.Fprintf(out, "\n%s\n", human.Wrap(strings.TrimRight(text, "\n"), human.Columns(out), 2))
	return err
}

// line is the sum of all rows.
func (s *Status) line() string {
	line := fmt.Sprintf("%s/%s images", human.Count(s.Images), human.Count(s.Samples))
	if s.Rate > 0 {
		line += ", " + rateOf(s.Rate)
		if s.Left > 0 {
			line += ", about " + human.Duration(seconds(s.Left)) + " left"
		}
	}
	return line
}

// Show shows how far the experiment is.
func (s *Status) Show(p *human.Progress) {
	var doing []string
	for _, w := range s.Workers {
		if !w.Alive {
			continue
		}
		one := strings.TrimSpace(w.Device + " " + w.Doing)
		if w.Steps > 0 {
			one += fmt.Sprintf(" step %d/%d", w.Step, w.Steps)
		}
		doing = append(doing, one)
	}
	p.Reached(strings.Join(doing, ", "), "images", s.Images, s.Samples)
}

// workers are lines about them: how many are alive, and each that is not.
func (s *Status) workers() string {
	if len(s.Workers) == 0 {
		return ""
	}
	alive := 0
	var silent strings.Builder
	for _, w := range s.Workers {
		if w.Alive {
			alive++
			continue
		}
		part := fmt.Sprintf("process %d", w.PID)
		if w.Part != "" {
			part = "part " + w.Part
		}
		fmt.Fprintf(&silent, "%s (%s) silent for %s: its unit is free again\n", w.Host, part, human.Duration(seconds(w.Silent)))
	}
	return fmt.Sprintf("workers: %d alive\n%s", alive, &silent)
}

func rateOf(perSecond float64) string {
	if perSecond < 0.1 {
		return human.Duration(seconds(1/perSecond)) + " an image"
	}
	return fmt.Sprintf("%.1f images/s", perSecond)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
