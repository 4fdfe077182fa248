package report

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// plotFormats are the forms that a line plot can be written in.
var plotFormats = map[string]func(*figure) ([]byte, error){
	"svg": (*figure).svg,
	"png": (*figure).png,
	"pdf": (*figure).pdf,
}

// usualFormats are the forms that a run writes.
var usualFormats = []string{"png", "svg"}

// Plots say what is plotted, and how.
type Plots struct {
	Formats  []string // svg, png, pdf
	Size     string   // a key of plotSizes
	Together bool     // all experiments in one plot a metric
}

// validate reports settings that are not known.
func (o Plots) validate() error {
	known := strings.Join(slices.Sorted(maps.Keys(plotFormats)), ", ")
	for _, f := range o.Formats {
		if plotFormats[f] == nil {
			return human.Misusef("plot: --format is %q, expected one of %s, or several with commas", f, known)
		}
	}
	if len(o.Formats) == 0 {
		return human.Misusef("plot: --format names no format, expected one of %s", known)
	}
	if _, ok := plotSizes[o.Size]; !ok {
		return human.Misusef("plot: --size is %q, expected one of %s", o.Size, strings.Join(slices.Sorted(maps.Keys(plotSizes)), ", "))
	}
	return nil
}

// Write draws the metrics of each experiment below the results' folders against
// the number that it sweeps, into folder/<experiment>/<metric>.<format>, or of all
// together into folder/<metric>.<format>. It prints to out the paths of the files, and
// why other experiments have no plot. Nothing to draw at all is an error.
func (o Plots) Write(out io.Writer, folder string, results []string) error {
	if err := o.validate(); err != nil {
		return err
	}
	rows, err := store.FindMetrics(results...)
	if err != nil {
		return err
	}
	if o.Together {
		return o.together(out, folder, rows)
	}
	return o.each(out, folder, rows)
}

// together draws the rows of all experiments into one plot a metric, their labels
// after the experiments' names.
func (o Plots) together(out io.Writer, folder string, rows []*store.Metrics) error {
	named := make([]*store.Metrics, len(rows))
	for i, m := range rows {
		own := *m
		own.Label = strings.TrimSpace(m.Experiment + " " + m.Label)
		named[i] = &own
	}
	figures, err := figuresOf(named)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	for _, f := range figures {
		f.size = plotSizes[o.Size]
	}
	paths, err := writeFigures(folder, figures, o.Formats)
	for _, line := range slices.Concat(paths, evaluationsApart(rows)) {
		fmt.Fprintln(out, line)
	}
	return err
}

// each draws the plots of each experiment.
func (o Plots) each(out io.Writer, folder string, rows []*store.Metrics) error {
	var reasons []error
	written := 0
	for _, own := range byExperiment(rows) {
		name := own[0].Experiment
		figures, err := figuresOf(own)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("plot: %s: %w", name, err))
			continue
		}
		for _, f := range figures {
			f.size = plotSizes[o.Size]
		}
		paths, err := writeFigures(filepath.Join(folder, name), figures, o.Formats)
		if err != nil {
			return err
		}
		for _, line := range slices.Concat(paths, differencesOf(own)) {
			fmt.Fprintln(out, line)
		}
		written += len(paths)
	}
	if written == 0 {
		return errors.Join(reasons...)
	}
	for _, err := range reasons {
		fmt.Fprintln(out, err)
	}
	return nil
}

// writePlots draws an experiment's plots into its folder, in every format. Rows
// that make no line plot have none. Plots of metrics, or of a sweep, that are gone
// are removed: they do not belong to the tables beside them.
func writePlots(folder string, rows []*store.Metrics) error {
	figures, noPlot := figuresOf(rows) // why there is none, the table shows
	if noPlot != nil {
		figures = nil
	}
	if _, err := writeFigures(folder, figures, usualFormats); err != nil {
		return err
	}
	for metric := range eval.Metrics {
		if slices.ContainsFunc(figures, func(f *figure) bool { return f.metric == metric }) {
			continue
		}
		for _, format := range usualFormats {
			if err := os.Remove(filepath.Join(folder, metric+"."+format)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// writeFigures writes <metric>.<format> for each figure, each whole or not at
// all, and lists the paths.
func writeFigures(folder string, figures []*figure, formats []string) ([]string, error) {
	var paths []string
	for _, f := range figures {
		for _, format := range formats {
			data, err := plotFormats[format](f)
			if err != nil {
				return paths, fmt.Errorf("plot: %s: %w", f.metric, err)
			}
			path := filepath.Join(folder, f.metric+"."+format)
			if err := store.WriteFile(path, data); err != nil {
				return paths, err
			}
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// A figure is a line plot before it has a form: one metric against the one
// number that the rows of an experiment sweep.
type figure struct {
	metric string // its name, and the file's: fid
	title  string // above the plot
	xLabel string // guidance.sag.scale
	yLabel string // FID ↓ (lower is better)
	ticks  []tick // the swept values, ascending
	curves []curve
	size   plotSize
}

// A tick is a value of the swept setting as the experiment writes it.
type tick struct {
	value float64
	text  string
}

// A curve is the line of one label.
type curve struct {
	label  string
	style  int     // place among the experiment's labels, so that it looks the same in every figure
	points []point // by ascending x
}

// A point is a score at a value of the sweep, with the ends of its interval, which
// are NaN where there was no bootstrap.
type point struct{ x, y, low, high float64 }

// plottable bounds what is drawn: beyond it sums of float64 overflow.
const plottable = 1e100

// figuresOf lays out the figures of one experiment's rows, in the order of its
// metrics. The error says why the rows make no line plot.
func figuresOf(rows []*store.Metrics) ([]*figure, error) {
	rows, dropped := comparable(rows)
	if dropped > 0 && len(rows) < 2 {
		return nil, errors.New("the search has left one row: scores of the others are over fewer images")
	}
	path, err := sweptPath(rows)
	if err != nil {
		return nil, err
	}
	ticks, err := sweptTicks(rows, path)
	if err != nil {
		return nil, err
	}
	if name := rows[0].Experiment; !store.FolderName.MatchString(name) {
		return nil, fmt.Errorf("its name is no folder's: %q", name)
	}
	labels, err := curveLabels(rows, ticks, path)
	if err != nil {
		return nil, err
	}
	var figures []*figure
	for _, c := range metricColumns(rows) {
		if c.kind != metricColumn || !store.FolderName.MatchString(c.key) {
			continue
		}
		f := &figure{metric: c.key, size: plotSizes[usualSize], title: figureTitle(rows), xLabel: axisName(path), yLabel: fmt.Sprintf("%s %s (%s is better)", oneLine(c.title), c.arrow(), c.direction)}
		f.fill(rows, labels, ticks)
		if len(f.ticks) >= 2 {
			figures = append(figures, f)
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("no metric has values at two values of %s", path)
	}
	return figures, nil
}

// curveLabels are what the curve of each row is called: the row's label, and where
// rows of a label differ beyond the sweep, in what.
func curveLabels(rows []*store.Metrics, at []tick, path string) ([]string, error) {
	type place struct {
		label string
		x     float64
	}
	runs := map[place]string{}
	labels := make([]string, len(rows))
	names := namesApart(rows, settled)
	var faults []error
	for _, d := range differing(rows, settled) {
		if len(d.values) > 0 && d.named() == nil {
			faults = append(faults, fmt.Errorf("rows of the label %q differ in %d things beyond the sweep, and a line would join them; give them labels of their own", d.rows[0].Label, len(d.values)))
		}
	}
	for i, m := range rows {
		others := slices.DeleteFunc(slices.Clone(names[m]), func(s store.Setting) bool { return s.Path == runPath })
		if labels[i] = m.Label; len(others) > 0 {
			labels[i] = store.Title(m.Label, others)
		}
		p := place{labels[i], at[i].value} // NaN is never the same place
		if other, taken := runs[p]; taken {
			faults = append(faults, fmt.Errorf("runs %s and %s are both %q at %s=%g; give their rows labels, or name the folders of one set of runs", other, m.Run, labels[i], path, p.x))
		}
		runs[p] = m.Run
	}
	if len(faults) > 0 {
		for _, line := range differencesOf(rows) {
			faults = append(faults, errors.New(line))
		}
	}
	return labels, errors.Join(faults...)
}

// axisName is a path as the paper's readers know the setting, with its last key.
func axisName(path string) string {
	if name, ok := map[string]string{
		"guidance.sag.scale":          "SAG scale s",
		"guidance.sag.blur_sigma":     "blur σ",
		"guidance.sag.mask_threshold": "mask threshold ψ",
		"guidance.cfg.scale":          "CFG scale",
	}[path]; ok {
		return name
	}
	return path
}

// sweptPath is the one path at which the rows' sweeps chose different values.
func sweptPath(rows []*store.Metrics) (string, error) {
	var swept []string
	for _, c := range settingColumns(rows) {
		values := map[string]bool{}
		for _, m := range rows {
			if v := settingOf(m, c.key); v != "" {
				values[v] = true
			}
		}
		if len(values) > 1 {
			swept = append(swept, c.key)
		}
	}
	switch len(swept) {
	case 0:
		return "", errors.New("no setting is swept over two values or more; a line plot needs one")
	case 1:
		return swept[0], nil
	}
	return "", fmt.Errorf("several settings are swept: %s; a line plot has one", strings.Join(swept, ", "))
}

// sweptTicks are the numbers that the rows have at a path; NaN where one has none.
func sweptTicks(rows []*store.Metrics, path string) ([]tick, error) {
	ticks := make([]tick, len(rows))
	values := map[float64]bool{}
	for i, m := range rows {
		text := settingOf(m, path)
		if ticks[i] = (tick{math.NaN(), text}); text == "" {
			continue
		}
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !(math.Abs(x) < plottable) { // NaN is not below
			return nil, fmt.Errorf("%s is swept over %q, which is no number to plot against", path, text)
		}
		ticks[i].value = x + 0 // no -0
		values[ticks[i].value] = true
	}
	if len(values) < 2 { // 0.5 and 0.50
		return nil, fmt.Errorf("%s is swept over one value; a line plot needs two", path)
	}
	return ticks, nil
}

// fill takes the figure's ticks and curves from the rows that have the metric, whose
// curves are called labels and whose places on the x axis are at.
func (f *figure) fill(rows []*store.Metrics, labels []string, at []tick) {
	var distinct []string
	for i, m := range rows {
		style := slices.Index(distinct, labels[i])
		if style < 0 {
			style = len(distinct)
			distinct = append(distinct, labels[i])
		}
		s, scored := m.Score(f.metric)
		if math.IsNaN(at[i].value) || !scored || !(math.Abs(s.Value) < plottable) {
			continue
		}
		k := slices.IndexFunc(f.curves, func(c curve) bool { return c.style == style })
		if k < 0 {
			k = len(f.curves)
			f.curves = append(f.curves, curve{label: oneLine(labels[i]), style: style})
		}
		low, high := intervalOf(s)
		f.curves[k].points = append(f.curves[k].points, point{at[i].value, s.Value, low, high})
		if !slices.ContainsFunc(f.ticks, func(t tick) bool { return t.value == at[i].value }) {
			f.ticks = append(f.ticks, at[i])
		}
	}
	for _, c := range f.curves {
		slices.SortFunc(c.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	}
	slices.SortFunc(f.ticks, func(a, b tick) int { return cmp.Compare(a.value, b.value) })
}

// figureTitle is the experiment's name, with the number of images of each point
// where all have the same: scores of different numbers do not compare.
func figureTitle(rows []*store.Metrics) string {
	var names []string
	for _, own := range byExperiment(rows) {
		names = append(names, own[0].Experiment)
	}
	title := list(names, "and")
	for _, m := range rows {
		if m.Samples != rows[0].Samples {
			return title
		}
	}
	return fmt.Sprintf("%s, %s images a point", title, human.Count(rows[0].Samples))
}
