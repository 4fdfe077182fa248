package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"fmt"
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
	data, err := r.encode()
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(folder, BootstrapFile), data)
}

// Sum is the sha256 of the file that Write writes, which the run's Metrics keep.
func (r *Replicates) Sum() (string, error) {
	data, err := r.encode()
	return fmt.Sprintf("%x", sha256.Sum256(data)), err
}

func (r *Replicates) encode() ([]byte, error) {
	var out bytes.Buffer
	lines := [][]string{r.Names}
	for b := range r.Values[r.Names[0]] {
		line := make([]string, len(r.Names))
		for i, name := range r.Names {
			line[i] = strconv.FormatFloat(r.Values[name][b], 'g', -1, 64)
		}
		lines = append(lines, line)
	}
	err := csv.NewWriter(&out).WriteAll(lines)
	return out.Bytes(), err
}

// ReadReplicates reads what Write wrote: count values of each of the scores. The
// metrics.json beside the file holds its hash; where it holds none, being older,
// the file is taken as it is.
func ReadReplicates(folder string, count int) (*Replicates, error) {
	path := filepath.Join(folder, BootstrapFile)
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	m, err := ReadMetrics(filepath.Join(folder, MetricsFile))
	if err != nil {
		return nil, err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); m.Draws != "" && m.Draws != sum {
		return nil, fmt.Errorf("%s: is damaged or was edited: %s says that its sha256 is %.12s…, it is %.12s…; run the experiment again, which makes it anew", path, MetricsFile, m.Draws, sum)
	}
	lines, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
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
