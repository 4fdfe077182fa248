package page

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Point is a value at a place, with an interval where there is one.
type Point struct {
	X, Y      float64
	Low, High float64 // of Y; NaN where there is no interval
	Label     string  // the setting: 0.5
}

// A Panel is one metric of one group against the setting that is swept.
type Panel struct {
	Title, XLabel, YLabel string
	Points                []Point // by ascending X
	Categories            bool    // X only counts: no line joins the points
}

// A Path shows two metrics of one group against each other, from setting to setting.
type Path struct {
	Title, XLabel, YLabel string
	Points                []Point // in the order of the setting
}

// A Heat shows one metric of one group over two settings.
type Heat struct {
	Title, XLabel, YLabel string
	XTicks, YTicks        []string
	Values                [][]float64 // [y][x]; NaN where there is no row
	Decimals              int
	LowerIsBetter         bool
}

// The place of a panel in its picture, in pixels of the picture.
const (
	width, height = 260, 190
	left, right   = 46, 12
	top, bottom   = 24, 34
)

// scale maps values to pixels.
type scale struct {
	low, high float64 // values
	from, to  float64 // pixels
}

func (s scale) at(v float64) float64 { return s.from + (v-s.low)/(s.high-s.low)*(s.to-s.from) }

// newScale is the scale of values with a margin on both sides.
func newScale(values []float64, from, to float64) scale {
	values = slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	low, high := slices.Min(values), slices.Max(values)
	margin := 0.08 * (high - low)
	if margin == 0 {
		margin = max(0.05*math.Abs(high), 1e-6)
	}
	return scale{low - margin, high + margin, from, to}
}

// ticks are three to six round numbers on the scale, as they are written.
func (s scale) ticks() (values []float64, texts []string) {
	const about = 4
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/about)))
	for _, factor := range []float64{2, 2.5, 2} { // 2, 5, 10
		if (s.high-s.low)/step <= about+1 {
			break
		}
		step *= factor
	}
	decimals := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	for i := math.Ceil(s.low / step); i*step <= s.high && len(values) < 10; i++ {
		values = append(values, i*step)
		texts = append(texts, strconv.FormatFloat(i*step+0, 'f', decimals, 64))
	}
	return values, texts
}

// A canvas collects the elements of a picture.
type canvas struct{ strings.Builder }

func (c *canvas) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(c, `<path class="%s" d="M%.2f %.2fL%.2f %.2f"/>`, class, x1, y1, x2, y2)
}

// join is a path through the points.
func (c *canvas) join(class string, closed bool, points [][2]float64) {
	fmt.Fprintf(c, `<path class="%s" d="`, class)
	for i, p := range points {
		letter := "L"
		if i == 0 {
			letter = "M"
		}
		fmt.Fprintf(c, "%s%.2f %.2f", letter, p[0], p[1])
	}
	if closed {
		c.WriteString("Z")
	}
	c.WriteString(`"/>`)
}

// point marks a value; the first of a path is hollow.
func (c *canvas) point(x, y float64, class, title string) {
	fmt.Fprintf(c, `<circle class="%s" cx="%.2f" cy="%.2f" r="3.6"><title>%s</title></circle>`, class, x, y, html.EscapeString(title))
}

// wrap is the picture, described for those who do not see it.
func (c *canvas) wrap(id, title, description string) string {
	return fmt.Sprintf(`<svg viewBox="0 0 %d %d" role="img" aria-labelledby="%s-t %s-d" xmlns="http://www.w3.org/2000/svg"><title id="%s-t">%s</title><desc id="%s-d">%s</desc>%s</svg>`,
		width, height, id, id, id, html.EscapeString(title), id, html.EscapeString(description), c.String())
}

// frame draws title, axes and the ticks of y.
func (c *canvas) frame(title, xLabel, yLabel string, y scale) {
	c.text(2, 12, "title", "start", cut(title, 38))
	c.text((left+width-right)/2, height-5, "quiet", "middle", xLabel)
	fmt.Fprintf(c, `<text transform="translate(10 %d) rotate(-90)" class="quiet" text-anchor="middle">%s</text>`, (top+height-bottom)/2, html.EscapeString(yLabel))
	values, texts := y.ticks()
	for i, v := range values {
		c.line("rule", left, y.at(v), width-right, y.at(v))
		c.text(left-4, y.at(v)+3.5, "quiet", "end", texts[i])
	}
}

// cut shortens a text to n characters.
func cut(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// spoken describes points in words.
func spoken(points []Point, xLabel, yLabel string) string {
	var parts []string
	for _, p := range points {
		text := fmt.Sprintf("%s %s: %.4g", xLabel, p.Label, p.Y)
		if p.bounded() {
			text += fmt.Sprintf(" (%.4g to %.4g)", p.Low, p.High)
		}
		parts = append(parts, text)
	}
	return yLabel + ". " + strings.Join(parts, "; ")
}

func (p Point) bounded() bool { return !math.IsNaN(p.Low) && !math.IsNaN(p.High) }

// extent are the values that have to be seen: those of the points and their intervals.
func extent(points []Point) []float64 {
	var all []float64
	for _, p := range points {
		all = append(all, p.Y, p.Low, p.High)
	}
	return all
}

func (p *Panel) svg(id string) string {
	c := &canvas{}
	y := newScale(extent(p.Points), height-bottom, top)
	var places []float64
	for _, q := range p.Points {
		places = append(places, q.X)
	}
	x := newScale(places, left, width-right)
	c.frame(p.Title, p.XLabel, p.YLabel, y)
	free := math.Inf(-1) // where the next label has room
	for _, q := range p.Points {
		at, half := x.at(q.X), float64(len([]rune(q.Label)))*3.1
		c.line("rule", at, height-bottom, at, height-bottom+4)
		if at-half > free {
			c.text(at, height-bottom+15, "quiet", "middle", cut(q.Label, 16))
			free = at + half + 2
		}
	}
	var upper, lower, line [][2]float64
	for _, q := range p.Points {
		line = append(line, [2]float64{x.at(q.X), y.at(q.Y)})
		if q.bounded() {
			upper = append(upper, [2]float64{x.at(q.X), y.at(q.High)})
			lower = append([][2]float64{{x.at(q.X), y.at(q.Low)}}, lower...)
		}
	}
	if p.Categories {
		for i := range upper {
			low := lower[len(lower)-1-i]
			c.line("whisker", upper[i][0], upper[i][1], low[0], low[1])
		}
	} else {
		if len(upper) > 1 {
			c.join("band", true, append(upper, lower...))
		}
		c.join("curve", false, line)
	}
	for _, q := range p.Points {
		c.point(x.at(q.X), y.at(q.Y), "point", spoken([]Point{q}, p.XLabel, p.YLabel))
	}
	return c.wrap(id, p.Title, spoken(p.Points, p.XLabel, p.YLabel))
}

func (p *Path) svg(id string) string {
	c := &canvas{}
	y := newScale(extent(p.Points), height-bottom, top)
	var places []float64
	for _, q := range p.Points {
		places = append(places, q.X)
	}
	x := newScale(places, left, width-right)
	c.frame(p.Title, p.XLabel, p.YLabel, y)
	values, texts := x.ticks()
	for i, v := range values {
		c.line("rule", x.at(v), height-bottom, x.at(v), height-bottom+4)
		c.text(x.at(v), height-bottom+15, "quiet", "middle", texts[i])
	}
	var line [][2]float64
	for _, q := range p.Points {
		line = append(line, [2]float64{x.at(q.X), y.at(q.Y)})
	}
	c.join("curve", false, line)
	for i, q := range p.Points {
		class := "point"
		if i == 0 {
			class = "start"
		}
		c.point(line[i][0], line[i][1], class, fmt.Sprintf("%s: %s %.4g, %s %.4g", q.Label, p.XLabel, q.X, p.YLabel, q.Y))
		label, anchor, dx := cut(q.Label, 14), "start", 6.0
		if line[i][0]+dx+6.5*float64(len([]rune(label))) > width {
			anchor, dx = "end", -6
		}
		c.text(line[i][0]+dx, line[i][1]-5, "", anchor, label)
	}
	var parts []string
	for _, q := range p.Points {
		parts = append(parts, fmt.Sprintf("%s: %s %.4g, %s %.4g", q.Label, p.XLabel, q.X, p.YLabel, q.Y))
	}
	return c.wrap(id, p.Title, strings.Join(parts, "; "))
}

func (h *Heat) svg(id string) string {
	c := &canvas{}
	c.text(2, 12, "title", "start", cut(h.Title, 38))
	c.text((left+width-right)/2, height-5, "quiet", "middle", h.XLabel)
	fmt.Fprintf(c, `<text transform="translate(10 %d) rotate(-90)" class="quiet" text-anchor="middle">%s</text>`, (top+height-bottom)/2, html.EscapeString(h.YLabel))
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range h.Values {
		for _, v := range row {
			if !math.IsNaN(v) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	wide, tall := float64(width-left-right)/float64(len(h.XTicks)), float64(height-top-bottom)/float64(len(h.YTicks))
	var parts []string
	for i, row := range h.Values {
		y := float64(top) + float64(len(h.YTicks)-1-i)*tall
		c.text(left-4, y+tall/2+3.5, "quiet", "end", cut(h.YTicks[i], 7))
		for j, v := range row {
			if math.IsNaN(v) {
				continue
			}
			good := 0.5
			if high > low {
				good = (v - low) / (high - low)
			}
			if h.LowerIsBetter {
				good = 1 - good
			}
			x := left + float64(j)*wide
			text := strconv.FormatFloat(v, 'f', h.Decimals, 64)
			fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" style="fill:var(--curve);opacity:%.2f"><title>%s</title></rect>`, x+.5, y+.5, wide-1, tall-1, 0.05+0.5*good, html.EscapeString(text))
			if wide >= 6*float64(len(text)) && tall >= 13 {
				c.text(x+wide/2, y+tall/2+3.5, "", "middle", text)
			}
			parts = append(parts, fmt.Sprintf("%s %s, %s %s: %s", h.XLabel, h.XTicks[j], h.YLabel, h.YTicks[i], text))
		}
	}
	for j, text := range h.XTicks {
		c.text(left+(float64(j)+.5)*wide, height-bottom+15, "quiet", "middle", cut(text, max(2, int(wide/6))))
	}
	return c.wrap(id, h.Title, strings.Join(parts, "; "))
}
