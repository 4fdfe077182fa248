package report

import (
	"bytes"
	"errors"
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

// PrintEvaluations draws the scores of evaluations to w: of one as PrintEvaluation does, of
// several a row for each set.
func PrintEvaluations(w io.Writer, all *store.Evaluations, verbose bool) error {
	var scored []*store.Evaluation
	for _, e := range all.Evaluations {
		if len(e.Scores) > 0 {
			scored = append(scored, e)
		}
	}
	switch {
	case len(scored) == 0:
		return nil
	case len(all.Evaluations)+len(all.Failed) == 1:
		return errors.Join(PrintEvaluation(w, scored[0], verbose), printClasses(w, scored[0], verbose), printNeighbours(w, scored[0].Near))
	}
	fmt.Fprintln(w, human.Wrap("protocol: "+scored[0].Protocol, human.Columns(w), 2))
	var columns []store.Score
	for _, e := range scored {
		columns = scoreColumns(columns, e.Scores)
	}
	t := human.Table{Fixed: 2, Align: "lr" + strings.Repeat("r", len(columns)), Head: []string{"set", "images"}}
	for _, c := range columns {
		t.Head = append(t.Head, oneLine(c.Title)+" "+arrow(c.Direction))
	}
	notes := newSetNotes()
	for _, e := range scored {
		line := []string{oneLine(e.Inputs["samples"].Name), human.Count(e.Samples)}
		for _, c := range columns {
			line = append(line, notes.cell(e, c, verbose))
		}
		t.Lines = append(t.Lines, line)
	}
	if err := writeTable(w, t); err != nil {
		return err
	}
	for _, line := range notes.lines() {
		fmt.Fprintln(w, human.Wrap(line, human.Columns(w), 2))
	}
	for _, e := range scored {
		if err := printClasses(w, e, verbose); err != nil {
			return err
		}
	}
	return nil
}

// shownClasses are how many classes a table shows unless it is to show all.
const shownClasses = 20

// printClasses draws the scores of single classes, the worst first: some of them, or all
// with verbose set.
func printClasses(w io.Writer, e *store.Evaluation, verbose bool) error {
	if e.PerClass == nil {
		return nil
	}
	all := e.PerClass.Classes
	shown := all
	if !verbose && len(all) > shownClasses {
		shown = all[:shownClasses]
	}
	var columns []store.Score
	for _, c := range all {
		columns = scoreColumns(columns, c.Scores)
	}
	title := "by class: " + oneLine(e.Inputs["samples"].Name)
	if len(columns) > 0 {
		title += ", the worst " + oneLine(columns[0].Title) + " first"
	}
	fmt.Fprintln(w, "\n"+human.Wrap(title, human.Columns(w), 2))
	t := human.Table{Fixed: 1, Align: "lrr" + strings.Repeat("r", len(columns)), Head: []string{"class", "samples", "reference"}}
	for _, c := range columns {
		t.Head = append(t.Head, oneLine(c.Title)+" "+arrow(c.Direction))
	}
	for _, c := range shown {
		line := []string{oneLine(c.Class), human.Count(c.Samples), human.Count(c.Reference)}
		for _, column := range columns {
			text := "–"
			if i := slices.IndexFunc(c.Scores, func(s store.Score) bool { return s.Name == column.Name }); i >= 0 {
				text = telling(c.Scores[i].Value, column.Decimals+2)
			}
			line = append(line, text)
		}
		t.Lines = append(t.Lines, line)
	}
	if err := writeTable(w, t); err != nil {
		return err
	}
	if more := len(all) - len(shown); more > 0 {
		fmt.Fprintln(w, human.Wrap(fmt.Sprintf("and %s classes more: all are in --json and --csv, and here with --verbose", human.Count(more)), human.Columns(w), 2))
	}
	return nil
}

// scoreColumns are the columns with those of more scores that are not among them.
func scoreColumns(columns, scores []store.Score) []store.Score {
	for _, s := range scores {
		if !slices.ContainsFunc(columns, func(c store.Score) bool { return c.Name == s.Name }) {
			columns = append(columns, s)
		}
	}
	return columns
}

// setNotes are what the cells of a table of sets leave out.
type setNotes struct {
	draws, std bool                // a cell has an interval, a standard deviation
	bootstrap  int                 // draws
	order      []string            // titles
	how        map[string][]string // title → notes of its scores
}

func newSetNotes() *setNotes { return &setNotes{how: map[string][]string{}} }

// cell is an evaluation's entry in a column, with half its interval, or else with its
// standard deviation.
func (f *setNotes) cell(e *store.Evaluation, c store.Score, verbose bool) string {
	i := slices.IndexFunc(e.Scores, func(s store.Score) bool { return s.Name == c.Name })
	if i < 0 {
		return "–"
	}
	s := e.Scores[i]
	notes := []string{s.Note}
	if verbose {
		notes = append(notes, s.Numerics)
	}
	title := oneLine(s.Title)
	for _, n := range notes {
		if n = oneLine(n); n == "" || slices.Contains(f.how[title], n) {
			continue
		}
		if f.how[title] == nil {
			f.order = append(f.order, title)
		}
		f.how[title] = append(f.how[title], n)
	}
	text := telling(s.Value, s.Decimals+2)
	switch {
	case s.Interval != nil:
		f.draws, f.bootstrap = true, e.Settings.Bootstrap
		return text + " ± " + telling(s.Interval.Half(), s.Decimals+2)
	case s.Std > 0:
		f.std = true
		return text + " ± " + telling(s.Std, s.Decimals+2)
	}
	return text
}

// lines are the notes below the table.
func (f *setNotes) lines() (lines []string) {
	for _, title := range f.order {
		if common := commonParts(f.how[title]); common != "" {
			lines = append(lines, title+": "+common)
		}
	}
	if f.draws {
		lines = append(lines, fmt.Sprintf("±: half the width of the 95 %% interval, from %s draws of each set's images; both ends are in --json and --csv", human.Count(f.bootstrap)))
	} else if f.std {
		lines = append(lines, "±: standard deviation over splits or subsets")
	}
	return lines
}

// commonParts is what notes begin with alike, up to a comma: of "k = 3, 600 images" and
// "k = 3, 400 images" it is "k = 3".
func commonParts(notes []string) string {
	parts := strings.Split(notes[0], ", ")
	for _, n := range notes[1:] {
		others, k := strings.Split(n, ", "), 0
		for k < min(len(parts), len(others)) && parts[k] == others[k] {
			k++
		}
		parts = parts[:k]
	}
	return strings.Join(parts, ", ")
}

// evaluationHead is the first line of EvaluationCSV, with the columns of classes where
// there are such lines.
func evaluationHead(perClass bool) []string {
	head := []string{"metric", "value", "std", "low", "high", "direction", "protocol", "samples", "reference", "reference_sha256", "sample", "sample_sha256"}
	if perClass {
		head = append(head, "class", "class_reference")
	}
	return head
}

// EvaluationCSV are the scores of evaluations as CSV, a line each, with every
// digit; with perClass set those of single classes as well, below those of their set.
func EvaluationCSV(all *store.Evaluations, perClass bool) ([]byte, error) {
	var out bytes.Buffer
	lines := [][]string{evaluationHead(perClass)}
	for _, e := range all.Evaluations {
		add := func(s store.Score, images int, of ...string) {
			reference, sample := e.Inputs["reference"].InputFile, e.Inputs["samples"].InputFile
			line := []string{s.Name, exact(s.Value), "", "", "", s.Direction, e.Protocol, strconv.Itoa(images), reference.Name, reference.SHA256, sample.Name, sample.SHA256}
			if s.Std > 0 {
				line[2] = exact(s.Std)
			}
			if i := s.Interval; i != nil {
				line[3], line[4] = exact(i.Low), exact(i.High)
			}
			if perClass {
				line = append(line, of...)
			}
			lines = append(lines, line)
		}
		for _, s := range e.Scores {
			add(s, e.Samples, "", "")
		}
		if e.PerClass == nil {
			continue
		}
		for _, c := range e.PerClass.Classes {
			for _, s := range c.Scores {
				add(s, c.Samples, c.Class, strconv.Itoa(c.Reference))
			}
		}
	}
	err := writeCSV(&out, lines)
	return out.Bytes(), err
}
