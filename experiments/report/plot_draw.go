package report

import (
	"bytes"
	"image/color"
	"math"
	"slices"
	"strconv"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// lineColors are those of Okabe and Ito (2008), which people with any kind of
// colour vision tell apart, without the yellow that is hard to see on white.
var lineColors = []color.Color{
	color.NRGBA{0x00, 0x72, 0xB2, 0xFF}, // blue
	color.NRGBA{0xD5, 0x5E, 0x00, 0xFF}, // vermilion
	color.NRGBA{0x00, 0x9E, 0x73, 0xFF}, // bluish green
	color.NRGBA{0xCC, 0x79, 0xA7, 0xFF}, // reddish purple
	color.NRGBA{0xE6, 0x9F, 0x00, 0xFF}, // orange
	color.NRGBA{0x56, 0xB4, 0xE9, 0xFF}, // sky blue
	color.NRGBA{0x00, 0x00, 0x00, 0xFF}, // black
}

// lineMarkers tell the lines apart without colour.
var lineMarkers = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{},
	polygon{{X: 1.25}, {Y: 1.25}, {X: -1.25}, {Y: -1.25}},                               // diamond
	polygon{{X: 1.1, Y: 0.8}, {X: -1.1, Y: 0.8}, {Y: -1.1}},                             // triangle on its tip
	polygon{{X: 1.3, Y: 0.4}, {X: -1.3, Y: 0.4}, {X: -1.3, Y: -0.4}, {X: 1.3, Y: -0.4}}, // bar
	draw.RingGlyph{}, draw.SquareGlyph{},
}

// A polygon is a filled marker, its corners in radii around the point.
type polygon []vg.Point

// DrawGlyph implements draw.GlyphDrawer.
func (p polygon) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	corners := make([]vg.Point, len(p))
	for i, q := range p {
		corners[i] = at.Add(q.Scale(style.Radius))
	}
	c.FillPolygon(style.Color, corners)
}

// A plotSize is a picture's size on paper, and what its texts and lines are reduced
// to against the usual one.
type plotSize struct {
	width, height vg.Length
	scale         vg.Length
	above         bool // the legend stands above the plot, for which there is no room aside; the caption is the title
}

// legend is the most that the legend's width may be.
func (s plotSize) legend() vg.Length {
	if s.above {
		return s.width - 3*figureMargin
	}
	return s.width * 2 / 5
}

// plotSizes are the sizes that a plot can have.
var plotSizes = map[string]plotSize{
	"page":   {17 * vg.Centimeter, 10.5 * vg.Centimeter, 1, false},
	"column": {8.4 * vg.Centimeter, 6.2 * vg.Centimeter, 0.7, true},
}

// usualSize is the one that a run writes.
const usualSize = "page"

// The layout of a figure.
const (
	figureMargin = 10 * vg.Inch / 72
	figureDPI    = 192
	bandOpacity  = 0x33
)

var gridColor = color.NRGBA{0xCC, 0xCC, 0xCC, 0xFF}

// svg draws the figure as SVG. Its text names Liberation Sans and the fonts of
// the same widths that other systems have.
func (f *figure) svg() ([]byte, error) {
	c := vgsvg.New(f.size.width, f.size.height)
	f.draw(draw.New(c))
	var out bytes.Buffer
	if _, err := c.WriteTo(&out); err != nil {
		return nil, err
	}
	const family = `style="font-family:Liberation Sans`
	return bytes.ReplaceAll(out.Bytes(), []byte(family+";"), []byte(family+",Arial,Helvetica,sans-serif;")), nil
}

// png draws the figure as PNG, with the fonts that the program brings along.
func (f *figure) png() ([]byte, error) {
	c := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(f.size.width, f.size.height), vgimg.UseDPI(int(figureDPI/f.size.scale)))}
	f.draw(draw.New(c))
	var out bytes.Buffer
	_, err := c.WriteTo(&out)
	return out.Bytes(), err
}

// draw puts the plot on the canvas, and the legend to the right of it or above it,
// where no line can be.
func (f *figure) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	k := f.size.scale
	c = draw.Crop(c, figureMargin*k, -figureMargin*k, figureMargin*k, -figureMargin*k)
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.xLabel, f.yLabel
	p.Title.Padding, p.X.Label.Padding, p.Y.Label.Padding = 8*k, 4*k, 4*k
	if f.size.above {
		p.Title.Text = ""
	}
	for style, size := range map[*text.Style]vg.Length{&p.Title.TextStyle: 12, &p.X.Label.TextStyle: 11, &p.Y.Label.TextStyle: 11, &p.X.Tick.Label: 10, &p.Y.Tick.Label: 10, &p.Legend.TextStyle: 11} {
		style.Font.Variant, style.Font.Size = "Sans", size*k
	}
	p.Title.TextStyle.Font.Weight = font.WeightBold
	p.X.Padding, p.Y.Padding = 0, 0

	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = gridColor, nil
	p.Add(grid)
	legend := p.Legend
	legend.Top, legend.Left = true, true
	legend.Padding, legend.ThumbnailWidth = 6*k, 28*k
	for _, curve := range f.curves { // below every line
		if band := curve.band(); band != nil {
			p.Add(band)
		}
	}
	for _, curve := range f.curves {
		line, markers := curve.plotters(k)
		p.Add(line, markers)
		legend.Add(fit(legend.TextStyle, curve.label, f.size.legend()-legend.ThumbnailWidth), line, markers)
	}
	f.axes(p)

	if len(f.curves) == 1 && f.curves[0].label == "" {
		p.Draw(c)
		return
	}
	box := legend.Rectangle(c)
	if f.size.above {
		legend.Draw(c)
		p.Draw(draw.Crop(c, 0, 0, 0, box.Min.Y-box.Max.Y-8*k))
		return
	}
	aside := box.Max.X - box.Min.X + 14*k
	top := p.Title.TextStyle.Rectangle(f.title).Size().Y + p.Title.Padding
	legend.Draw(draw.Crop(c, c.Max.X-c.Min.X-aside+14*k, 0, 0, -top))
	p.Draw(draw.Crop(c, 0, -aside, 0, 0))
}

// plotters are the curve's line and its markers.
func (c curve) plotters(k vg.Length) (*plotter.Line, *plotter.Scatter) {
	points := make(plotter.XYs, len(c.points))
	for i, p := range c.points {
		points[i] = plotter.XY{X: p.x, Y: p.y}
	}
	tone := lineColors[c.style%len(lineColors)]
	line := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: tone, Width: 1.8 * k}}
	markers := &plotter.Scatter{XYs: points, GlyphStyle: draw.GlyphStyle{Color: tone, Radius: 4 * k, Shape: lineMarkers[c.style%len(lineMarkers)]}}
	return line, markers
}

// band is the area of the curve's intervals; nil where fewer than two points have
// one.
func (c curve) band() *plotter.Polygon {
	var upper, lower plotter.XYs
	for _, p := range c.points {
		if p.low <= p.high { // not where they are NaN
			upper, lower = append(upper, plotter.XY{X: p.x, Y: p.high}), append(lower, plotter.XY{X: p.x, Y: p.low})
		}
	}
	if len(upper) < 2 {
		return nil
	}
	slices.Reverse(lower)
	tone := color.NRGBAModel.Convert(lineColors[c.style%len(lineColors)]).(color.NRGBA)
	tone.A = bandOpacity
	return &plotter.Polygon{XYs: []plotter.XYs{append(upper, lower...)}, Color: tone}
}

// axes sets the ranges, a margin beyond the outermost points, and the ticks: of
// x at the swept values, of y at round numbers.
func (f *figure) axes(p *plot.Plot) {
	first, last := f.ticks[0].value, f.ticks[len(f.ticks)-1].value
	p.X.Min, p.X.Max = widen(first, last)
	p.X.Tick.Marker = plot.ConstantTicks(f.xTicks(first, last))
	var values []float64
	for _, c := range f.curves {
		for _, point := range c.points {
			values = append(values, point.y)
			if point.low <= point.high {
				values = append(values, point.low, point.high)
			}
		}
	}
	p.Y.Min, p.Y.Max = widen(slices.Min(values), slices.Max(values))
	p.Y.Tick.Marker = plot.ConstantTicks(roundTicks(p.Y.Min, p.Y.Max))
}

// xTicks marks every swept value, from first to last, and labels those whose text
// has room.
func (f *figure) xTicks(first, last float64) []plot.Tick {
	const columns = 70 // characters that fit below the plot
	ticks := make([]plot.Tick, len(f.ticks))
	taken := math.Inf(-1) // columns to the left of it
	for i, t := range f.ticks {
		ticks[i].Value = t.value
		at, half := (t.value-first)/(last-first)*columns, float64(len(t.text)+1)/2
		if at-half >= taken {
			ticks[i].Label = t.text
			taken = at + half
		}
	}
	return ticks
}

// widen is the range from low to high with a margin, and with an extent where
// they are equal as drawn.
func widen(low, high float64) (float64, float64) {
	margin := 0.06 * (high - low)
	if least := 1e-6 * max(math.Abs(low), math.Abs(high)); margin < least {
		margin = max(least, 0.05*math.Abs(high))
	}
	if margin == 0 {
		margin = 1
	}
	return low - margin, high + margin
}

// roundTicks are four to eight multiples of 1, 2 or 5 times a power of ten.
func roundTicks(low, high float64) []plot.Tick {
	const about = 6
	exponent := math.Floor(math.Log10((high - low) / about))
	step := math.Pow(10, exponent)
	for _, factor := range []float64{2, 2.5, 2} { // 2, 5, 10
		if (high-low)/step <= about+1 {
			break
		}
		step *= factor
	}
	decimals := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	var ticks []plot.Tick
	for i := math.Ceil(low / step); i*step <= high && len(ticks) < 4*about; i++ {
		v := i * step
		label := strconv.FormatFloat(v+0, 'f', decimals, 64)
		if decimals > 5 || math.Abs(high) >= 1e6 || math.Abs(low) >= 1e6 {
			label = strconv.FormatFloat(v, 'g', 4, 64)
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	return ticks
}

// fit is the label, cut short with … where it is wider than width.
func fit(style text.Style, label string, width vg.Length) string {
	short := label
	for runes := []rune(label); len(runes) > 1 && style.Width(short) > width; {
		runes = runes[:len(runes)-1]
		short = string(runes) + "…"
	}
	return short
}
