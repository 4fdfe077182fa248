package report

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/report/page"
	"sagbench/experiments/store"
)

// pageFigures are the pictures of the scores: every metric against what is swept, a
// panel a label, and pairs of metrics against each other. Where two settings are
// swept, the first is a heat map; where more are, there are none.
func pageFigures(rows []*store.Metrics) []page.Figures {
	rows, _ = comparable(rows)
	if len(rows) == 0 {
		return nil
	}
	paths := sweptPaths(rows)
	var figures []page.Figures
	metrics := metricsOf(rows)
	switch len(paths) {
	case 1:
		figures = append(figures, panels(rows, paths[0], metrics))
	case 2:
		figures = append(figures, heats(rows, paths, metrics))
	default:
		return nil
	}
	if len(paths) == 1 {
		figures = append(figures, tradeoffs(rows, paths[0]))
	}
	return slices.DeleteFunc(figures, func(f page.Figures) bool { return len(f.Panels) == 0 })
}

// sweptPaths are the paths at which rows of one label differ.
func sweptPaths(rows []*store.Metrics) []string {
	var paths []string
	for _, c := range settingColumns(rows) {
		values := map[string]map[string]bool{} // label → value
		for _, m := range rows {
			if values[m.Label] == nil {
				values[m.Label] = map[string]bool{}
			}
			values[m.Label][settingOf(m, c.key)] = true
		}
		for _, v := range values {
			if len(v) > 1 && !slices.Contains(paths, c.key) {
				paths = append(paths, c.key)
			}
		}
	}
	return paths
}

// metricsOf are the columns of metrics, without the authors' values.
func metricsOf(rows []*store.Metrics) []tableColumn {
	return slices.DeleteFunc(metricColumns(rows), func(c tableColumn) bool { return c.kind != metricColumn })
}

// shortName is a path as a table's head calls it.
func shortName(rows []*store.Metrics, path string) string {
	for _, c := range settingColumns(rows) {
		if c.key == path {
			return c.title
		}
	}
	return path
}

// panels are each metric against the setting at path, a panel a label.
func panels(rows []*store.Metrics, path string, metrics []tableColumn) page.Figures {
	name := shortName(rows, path)
	f := page.Figures{Title: "Scores against " + name}
	bands := false
	for _, c := range metrics {
		for _, label := range labelsOf(rows) {
			points, numbers := pointsOf(rows, label, path, c.key)
			if len(points) < 2 {
				continue
			}
			for _, p := range points {
				bands = bands || !math.IsNaN(p.Low)
			}
			f.Panels = append(f.Panels, &page.Panel{Title: panelTitle(label, c.title), XLabel: name, YLabel: strings.TrimSpace(oneLine(c.title) + " " + c.arrow()), Points: points, Categories: !numbers})
		}
	}
	if bands {
		f.Text = "Bands are intervals of 95 % of each value by itself; whether two values differ, the paired intervals above say, which are narrower."
	}
	return f
}

// panelTitle is the label, or where there is none what the axes say.
func panelTitle(label, axes string) string {
	if label == "" {
		return oneLine(axes)
	}
	return oneLine(label)
}

// pointsOf are the values of a metric for the rows of a label, by the setting at path;
// numbers is false where that is not a number everywhere, and places are counted.
func pointsOf(rows []*store.Metrics, label, path, metric string) (points []page.Point, numbers bool) {
	numbers = true
	for _, m := range rows {
		s, ok := m.Score(metric)
		text := settingOf(m, path)
		if m.Label != label || !ok || text == "" || !(math.Abs(s.Value) < plottable) {
			continue
		}
		x, err := strconv.ParseFloat(text, 64)
		numbers = numbers && err == nil && math.Abs(x) < plottable
		low, high := intervalOf(s)
		points = append(points, page.Point{X: x, Y: s.Value, Low: low, High: high, Label: oneLine(written(text))})
	}
	if !numbers {
		for i := range points {
			points[i].X = float64(i)
		}
	}
	slices.SortStableFunc(points, func(a, b page.Point) int { return compareFloats(a.X, b.X) })
	return points, numbers
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// tradeoffs are FID against recall and precision against recall, from setting to
// setting: what is gained here is often paid there.
func tradeoffs(rows []*store.Metrics, path string) page.Figures {
	f := page.Figures{Title: "What it costs", Text: "The path goes from setting to setting; the hollow point is its begin."}
	for _, pair := range [][2]string{{"recall", "fid"}, {"recall", "precision"}} {
		for _, label := range labelsOf(rows) {
			across, _ := pointsOf(rows, label, path, pair[0])
			up, _ := pointsOf(rows, label, path, pair[1])
			if len(across) < 2 || len(across) != len(up) {
				continue
			}
			p := &page.Path{}
			for i := range up {
				p.Points = append(p.Points, page.Point{X: across[i].Y, Y: up[i].Y, Low: math.NaN(), High: math.NaN(), Label: up[i].Label})
			}
			for _, c := range metricsOf(rows) {
				switch c.key {
				case pair[0]:
					p.XLabel = strings.TrimSpace(c.title + " " + c.arrow())
				case pair[1]:
					p.YLabel = strings.TrimSpace(c.title + " " + c.arrow())
				}
			}
			p.Title = panelTitle(label, p.YLabel+" – "+p.XLabel)
			f.Panels = append(f.Panels, p)
		}
	}
	return f
}

// heats are each metric over two settings, a map a label.
func heats(rows []*store.Metrics, paths []string, metrics []tableColumn) page.Figures {
	across, up := shortName(rows, paths[1]), shortName(rows, paths[0])
	f := page.Figures{Title: "Scores over " + up + " and " + across, Text: "Darker is better, within a map."}
	for _, c := range metrics {
		for _, label := range labelsOf(rows) {
			h := &page.Heat{Title: oneLine(strings.TrimSpace(c.title + " " + c.arrow() + " " + label)), XLabel: across, YLabel: up, Decimals: c.decimals, LowerIsBetter: c.direction == store.LowerIsBetter}
			cells := 0
			for _, m := range rows {
				s, ok := m.Score(c.key)
				if m.Label != label || !ok {
					continue
				}
				i, j := place(&h.YTicks, written(settingOf(m, paths[0]))), place(&h.XTicks, written(settingOf(m, paths[1])))
				for len(h.Values) <= i {
					h.Values = append(h.Values, nil)
				}
				for len(h.Values[i]) <= j {
					h.Values[i] = append(h.Values[i], math.NaN())
				}
				h.Values[i][j] = s.Value
				cells++
			}
			if cells > 1 {
				f.Panels = append(f.Panels, h)
			}
		}
	}
	return f
}

// place is where a text stands among those seen, which it joins.
func place(seen *[]string, text string) int {
	i := slices.Index(*seen, text)
	if i < 0 {
		i = len(*seen)
		*seen = append(*seen, text)
	}
	return i
}
