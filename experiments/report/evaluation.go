package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// PrintEvaluation draws the scores of an evaluation to w as a table for people.
// Columns that no score has anything for are left out; how the arithmetic went is told
// with verbose set.
func PrintEvaluation(w io.Writer, e *store.Evaluation, verbose bool) error {
	fmt.Fprintln(w, human.Wrap("protocol: "+e.Protocol, human.Columns(w), 2))
	var lines [][]string
	for _, s := range e.Scores {
		number := func(v float64) string { return telling(v, s.Decimals+2) }
		line := []string{oneLine(s.Title) + " " + arrow(s.Direction), number(s.Value), "", "", oneLine(s.Note)}
		if verbose && s.Numerics != "" {
			line[4] = strings.TrimPrefix(line[4]+"; "+oneLine(s.Numerics), "; ")
		}
		if s.Std > 0 {
			line[2] = "± " + number(s.Std)
		}
		if s.Interval != nil {
			line[3] = number(s.Interval.Low) + " … " + number(s.Interval.High)
		}
		lines = append(lines, line)
	}
	head, align := []string{"metric", "value", "std", "95 %", "how"}, "lrrrl"
	for _, j := range []int{4, 3, 2} {
		if slices.ContainsFunc(lines, func(line []string) bool { return line[j] != "" }) {
			continue
		}
		head, align = slices.Delete(head, j, j+1), align[:j]+align[j+1:]
		for i := range lines {
			lines[i] = slices.Delete(lines[i], j, j+1)
		}
	}
	return writeTable(w, human.Table{Fixed: 1, Align: align, Head: head, Lines: lines})
}

// EvaluationCSV are the scores of an evaluation as CSV, a line each, with every
// digit.
func EvaluationCSV(e *store.Evaluation) ([]byte, error) {
	var out bytes.Buffer
	lines := [][]string{{"metric", "value", "std", "low", "high", "direction", "protocol", "samples", "reference", "reference_sha256", "sample", "sample_sha256"}}
	reference, sample := e.Inputs["reference"].InputFile, e.Inputs["samples"].InputFile
	for _, s := range e.Scores {
		line := []string{s.Name, exact(s.Value), "", "", "", s.Direction, e.Protocol, strconv.Itoa(e.Samples), reference.Name, reference.SHA256, sample.Name, sample.SHA256}
		if s.Std > 0 {
			line[2] = exact(s.Std)
		}
		if i := s.Interval; i != nil {
			line[3], line[4] = exact(i.Low), exact(i.High)
		}
		lines = append(lines, line)
	}
	err := writeCSV(&out, lines)
	return out.Bytes(), err
}
