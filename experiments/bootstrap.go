package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
)

// bootstrapFile keeps, beside metrics.json, the value of each metric for each
// draw of a run's images: a column a score, a line a draw. Rows of the same
// number of images have the same draws, line by line, so that compare can
// subtract them.
const bootstrapFile = "bootstrap.csv"

// bootstrapSeed is the seed of all draws.
const bootstrapSeed = 0

// replicates are the values of scores for each draw, by the score's name.
type replicates struct {
	names  []string
	values map[string][]float64
}

// add draws the generated images again, and gives scores their intervals.
func (r *replicates) add(ctx context.Context, ref, gen *eval.Features, metrics []configs.Named[eval.Metric], scores []Score, count int, p *progress) error {
	draws, err := eval.NewDraws(gen.N, count, bootstrapSeed)
	if err != nil {
		return err
	}
	p.stage("bootstrap", "metrics", 0, len(metrics))
	defer p.end()
	draws.Progress = func(done int) { p.working(float64(done) / float64(count)) }
	for _, m := range metrics {
		name := m.Value.Column().Name
		values, err := eval.Replicates(ctx, m.Value, ref, gen, draws)
		if err != nil {
			return err
		}
		r.names = append(r.names, name)
		r.values[name] = values
		for i := range scores {
			if scores[i].Name == name {
				interval := eval.NewInterval(scores[i].Value, values)
				scores[i].Interval = &interval
			}
		}
		p.add(1)
	}
	return nil
}

// write puts the values into a run's folder.
func (r *replicates) write(folder string) error {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.Write(r.names); err != nil {
		return err
	}
	for b := range r.values[r.names[0]] {
		line := make([]string, len(r.names))
		for i, name := range r.names {
			line[i] = strconv.FormatFloat(r.values[name][b], 'g', -1, 64)
		}
		if err := w.Write(line); err != nil {
			return err
		}
	}
	w.Flush()
	return errors.Join(w.Error(), writeWhole(filepath.Join(folder, bootstrapFile), out.Bytes()))
}

// readReplicates reads what write wrote: count values of each of the scores.
func readReplicates(folder string, count int) (*replicates, error) {
	path := filepath.Join(folder, bootstrapFile)
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
	out := &replicates{names: lines[0], values: map[string][]float64{}}
	for at, line := range lines[1:] {
		for i, text := range line {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || v-v != 0 {
				return nil, fmt.Errorf("%s:%d: %q is no number", path, at+2, text)
			}
			out.values[lines[0][i]] = append(out.values[lines[0][i]], v)
		}
	}
	if len(out.values) != len(out.names) {
		return nil, fmt.Errorf("%s: a metric has two columns: %s", path, strings.Join(out.names, ", "))
	}
	return out, nil
}
