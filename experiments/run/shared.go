package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/score"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
)

// planFormat is the version of the format of plan.json.
const planFormat = 1

// An agreement is plan.json: what all workers on an experiment do. docs/results.md
// describes the fields.
type agreement struct {
	Format     int                    `json:"format"` // planFormat
	Experiment string                 `json:"experiment"`
	Versions   map[string]string      `json:"versions"` // sagbench, sampling, onnxruntime
	Rows       []agreedRow            `json:"rows"`
	Search     *store.SearchRule      `json:"search,omitempty"` // of an experiment that searches
	Files      map[string]store.Known `json:"files"`            // that were read by the first worker
	Checksum   string                 `json:"checksum"`         // sha256 of this file with zeros in place of these digits
}

type agreedRow struct {
	Run     string          `json:"run"`
	Title   string          `json:"title"`
	Samples int             `json:"samples"`
	Batch   int             `json:"batch"`
	Config  json.RawMessage `json:"config"` // every setting
}

// plan is what a worker on this experiment works by.
func (s *session) plan() (work.Plan, error) {
	ours := agreement{Format: planFormat, Experiment: s.Name, Files: s.hashes.Known()}
	var err error
	if ours.Versions, err = score.Versions(s.Runtime); err != nil {
		return work.Plan{}, err
	}
	delete(ours.Versions, "kernels") // of the kind of the device
	if s.Experiment.Search() != nil {
		rule := s.Rule()
		ours.Search = &rule
	}
	for _, r := range s.runs {
		row := agreedRow{Run: r.ID, Title: r.Title(), Samples: r.Most(), Batch: r.Batch}
		if row.Config, err = r.AsWritten().Config(); err != nil {
			return work.Plan{}, err
		}
		ours.Rows = append(ours.Rows, row)
	}
	data, err := ours.encode()
	return work.Plan{Data: data, Differs: ours.differs}, err
}

// encode is the agreement as plan.json holds it.
func (a agreement) encode() ([]byte, error) {
	a.Checksum = store.NoChecksum
	data, err := json.Marshal(a)
	data, _ = store.Seal(data)
	return data, err
}

// decodeAgreement reads a plan.json; false where it is damaged or of another version.
func decodeAgreement(data []byte) (a agreement, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return a, d.Decode(&a) == nil && a.Format == planFormat && store.CheckSeal(data, a.Checksum) == nil
}

// agreed is the plan.json of the workers on an experiment; nil where there is none, or
// none that this version knows.
func agreed(on work.FS, folder string) *agreement {
	a, ok := decodeAgreement(work.ReadPlan(on, folder))
	if !ok {
		return nil
	}
	return &a
}

// believe takes the hashes of files from the worker that has read them, so that others
// need not.
func (s *session) believe(on work.FS) {
	if a := agreed(on, s.folder); a != nil {
		for path, known := range a.Files {
			s.hashes.Believe(path, known)
		}
	}
}

// differs tells what of a plan.json is not of this experiment, settings and version.
func (a *agreement) differs(data []byte) error {
	there, ok := decodeAgreement(data)
	if !ok {
		return fmt.Errorf("  its plan.json is of another version of the program, or damaged")
	}
	lines := append(differences(there.Versions, a.Versions), differingSearches(there.Search, a.Search)...)
	if len(there.Rows) != len(a.Rows) {
		lines = append(lines, fmt.Sprintf("  rows: %d there, %d here", len(there.Rows), len(a.Rows)))
	} else {
		lines = append(lines, a.differingRows(there)...)
	}
	if len(lines) == 0 {
		return nil
	}
	const most = 10
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("  and %d more", len(lines)-most))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// differingSearches are the differences of what two experiments search by.
func differingSearches(there, here *store.SearchRule) []string {
	values := func(r *store.SearchRule) map[string]string {
		data, _ := json.Marshal(map[string]any{"search": r}) // of numbers and names: it cannot fail
		return flat(data)
	}
	return differences(values(there), values(here))
}

// differingRows are the differences of rows; what differs in all of them alike is one
// line.
func (a *agreement) differingRows(there agreement) (lines []string) {
	count := map[string]int{}
	rows := make([][]string, len(a.Rows))
	for i, r := range a.Rows {
		rows[i] = differences(flat(there.Rows[i].Config), flat(r.Config))
		if len(rows[i]) == 0 && there.Rows[i].Run != r.Run {
			rows[i] = []string{fmt.Sprintf("  content of its networks' files: run id %s there, %s here", there.Rows[i].Run, r.Run)}
		}
		for _, l := range rows[i] {
			count[l]++
		}
	}
	for i, r := range a.Rows {
		for _, l := range rows[i] {
			switch {
			case count[l] < len(a.Rows):
				lines = append(lines, fmt.Sprintf("  row %d/%d %s:%s", i+1, len(a.Rows), r.Title, l[1:]))
			case i == 0:
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// differences are lines about the keys that have another value there than here.
func differences(there, here map[string]string) (lines []string) {
	both := maps.Clone(there)
	maps.Copy(both, here)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		if t, h := there[key], here[key]; t != h {
			lines = append(lines, fmt.Sprintf("  %s: %s there, %s here", key, absent(t), absent(h)))
		}
	}
	return lines
}

func absent(value string) string {
	if value == "" {
		return "none"
	}
	return value
}

// flat are the values of a JSON object by their dotted paths.
func flat(data json.RawMessage) map[string]string {
	out := map[string]string{}
	var value any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	d.Decode(&value)
	flatten(out, "", value)
	return out
}

func flatten(out map[string]string, path string, value any) {
	below := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	switch v := value.(type) {
	case map[string]any:
		for key, one := range v {
			flatten(out, below(key), one)
		}
	case []any:
		for i, one := range v {
			flatten(out, below(strconv.Itoa(i)), one)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}
