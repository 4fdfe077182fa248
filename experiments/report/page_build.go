package report

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// PageFile is what the page of an experiment is called in its folder.
const PageFile = "report.html"

// PageOptions say which page of results is wanted.
type PageOptions struct {
	Output  string   // its file; "": one in the folder of each experiment
	Rows    []string // as store.Choose takes them, which needs an Output; nil: all
	Verbose bool     // tell of the arithmetic as well
}

// Page writes the results below the folders as one HTML file, and returns its path, or
// those of each experiment. With an output, the folders have to hold one experiment.
func Page(ctx context.Context, folders []string, o PageOptions) ([]string, error) {
	if len(o.Rows) > 0 && o.Output == "" {
		return nil, human.Misusef("report: --rows needs --output: a page of some rows does not take the place of the experiment's")
	}
	rows, err := findRows(folders, o.Rows)
	if err != nil {
		return nil, err
	}
	parts := byExperiment(rows)
	if o.Output != "" && len(parts) > 1 {
		return nil, human.Misusef("report: %s hold %d experiments, and a page is of one: name its folder, or leave --output away, which writes a page into each experiment's folder", strings.Join(folders, ", "), len(parts))
	}
	var paths []string
	for _, own := range parts {
		if o.Output != "" {
			data, err := pageOf(ctx, own, o.Verbose)
			if err == nil {
				err = store.WriteOutput(o.Output, data)
			}
			return []string{o.Output}, err
		}
		folder := filepath.Dir(own[0].Folder)
		if err := writePage(ctx, folder, own, o.Verbose); err != nil {
			return paths, err
		}
		paths = append(paths, filepath.Join(folder, PageFile))
	}
	return paths, nil
}

// writePage writes the page into an experiment's folder.
func writePage(ctx context.Context, folder string, rows []*store.Metrics, verbose bool) error {
	data, err := pageOf(ctx, rows, verbose)
	if err != nil {
		return fmt.Errorf("report: %s: %w", rows[0].Experiment, err)
	}
	return store.WriteFile(filepath.Join(folder, PageFile), data)
}

// pageOf is the page of one experiment's rows.
func pageOf(ctx context.Context, rows []*store.Metrics, verbose bool) ([]byte, error) {
	p := &page.Page{Title: oneLine(rows[0].Experiment), Lead: leadOf(rows)}
	var of map[*store.Metrics][]difference
	p.Verdicts, of, p.Caution = verdicts(rows)
	if len(p.Verdicts) == 0 {
		p.Verdicts = []page.Verdict{{Text: p.Caution, Mark: page.Undecided}}
		p.Caution = ""
	}
	if len(rows) == 1 {
		p.Verdicts = nil
	}
	p.Table = pageTable(rows, of)
	p.Figures = pageFigures(rows)
	p.Method, p.BibTeX, p.Warnings, p.Command = methodOf(rows, verbose), paperBibTeX, warningsOf(rows), commandOf(rows)
	var err error
	if p.Strips, p.NoImages, err = strips(ctx, rows); err != nil {
		return nil, err
	}
	if p.Anatomy, p.Unshown, err = anatomies(rows); err != nil {
		return nil, err
	}
	if p.Files, err = filesOf(rows, verbose); err != nil {
		return nil, err
	}
	return p.HTML()
}

// leadOf counts rows and images.
func leadOf(rows []*store.Metrics) string {
	n := "1 row"
	if len(rows) > 1 {
		n = fmt.Sprintf("%d rows", len(rows))
	}
	least, most := rows[0].Samples, rows[0].Samples
	for _, m := range rows {
		least, most = min(least, m.Samples), max(most, m.Samples)
	}
	if least == most {
		return fmt.Sprintf("%s of %s images", n, human.Count(most))
	}
	return fmt.Sprintf("%s of %s to %s images", n, human.Count(least), human.Count(most))
}

// pageTable is the table with the difference to the baseline in each cell.
func pageTable(rows []*store.Metrics, of map[*store.Metrics][]difference) page.Table {
	t := newTable(rows, false)
	var out page.Table
	for _, c := range t.columns {
		out.Columns = append(out.Columns, page.Column{Title: oneLine(strings.TrimSpace(c.title + " " + c.arrow())), Number: c.isNumber()})
	}
	for _, m := range rows {
		line := make([]page.Cell, len(t.columns))
		for j, c := range t.columns {
			cell := c.cell(m)
			line[j] = page.Cell{Text: oneLine(cell.String()), Margin: cell.margin, Value: cell.value}
			if c.kind == settingColumn {
				line[j].Text = written(line[j].Text)
			}
			for _, d := range of[m] {
				if c.kind == metricColumn && d.score.Name == c.key {
					line[j].Change, line[j].Mark = d.change(), d.mark()
				}
			}
		}
		out.Rows = append(out.Rows, line)
	}
	if len(of) > 0 {
		out.Legend = append(out.Legend, "▲ better, ▼ worse, ○ undecided: the difference to the baseline, with its 95 % interval")
	}
	for _, line := range t.legend {
		out.Legend = append(out.Legend, oneLine(line))
	}
	return out
}

// intervalOf are the ends of a score's interval; NaN where there was no bootstrap.
func intervalOf(s store.Score) (low, high float64) {
	if s.Interval == nil {
		return math.NaN(), math.NaN()
	}
	return s.Interval.Low, s.Interval.High
}

// commandOf repeats the rows from the settings that lie beside their results.
func commandOf(rows []*store.Metrics) string {
	var lines []string
	for _, m := range rows {
		lines = append(lines, "sagbench run "+filepath.ToSlash(filepath.Join("results", m.Experiment, filepath.Base(m.Folder), "run.yaml")))
	}
	return strings.Join(lines, "\n")
}

// configOf are a row's settings.
func configOf(m *store.Metrics) map[string]any {
	var config map[string]any
	if json.Unmarshal(m.Config, &config) != nil {
		return map[string]any{}
	}
	return config
}

// labelsOf are the labels of the rows, each once, in their order.
func labelsOf(rows []*store.Metrics) []string {
	var labels []string
	for _, m := range rows {
		if !slices.Contains(labels, m.Label) {
			labels = append(labels, m.Label)
		}
	}
	return labels
}
