package store

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// BootstrapFile keeps, beside metrics.json, the value of each metric for each
// draw of a run's images: a column a score, a line a draw. Rows of the same
// number of images have the same draws, line by line, so that compare can
// subtract them.
const BootstrapFile = "bootstrap.csv"

// BootstrapSeed is the seed of all draws.
const BootstrapSeed = 0

// Replicates are the values of scores for each draw, by the score's name.
type Replicates struct {
	Names  []string
	Values map[string][]float64
}

// Write puts the values into a run's folder.
func (r *Replicates) Write(folder string) error {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.Write(r.Names); err != nil {
		return err
	}
	for b := range r.Values[r.Names[0]] {
		line := make([]string, len(r.Names))
		for i, name := range r.Names {
			line[i] = strconv.FormatFloat(r.Values[name][b], 'g', -1, 64)
		}
		if err := w.Write(line); err != nil {
			return err
		}
	}
	w.Flush()
	return errors.Join(w.Error(), WriteFile(filepath.Join(folder, BootstrapFile), out.Bytes()))
}

// ReadReplicates reads what write wrote: count values of each of the scores.
func ReadReplicates(folder string, count int) (*Replicates, error) {
	path := filepath.Join(folder, BootstrapFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(lines) != count+1 {
		return nil, fmt.Errorf("%s: %d lines, expected the names and %d draws; run the experiment again", path, len(lines), count)
	}
	out := &Replicates{Names: lines[0], Values: map[string][]float64{}}
	for at, line := range lines[1:] {
		for i, text := range line {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || v-v != 0 {
				return nil, fmt.Errorf("%s:%d: %q is no number", path, at+2, text)
			}
			out.Values[lines[0][i]] = append(out.Values[lines[0][i]], v)
		}
	}
	if len(out.Values) != len(out.Names) {
		return nil, fmt.Errorf("%s: a metric has two columns: %s", path, strings.Join(out.Names, ", "))
	}
	return out, nil
}
