// Package page makes one HTML file of a result: what a page shows goes in as
// plain values, a file that needs nothing beside it comes out. It opens from disk,
// asks no network for anything, and is the same bytes for the same values. It
// knows nothing of experiments and files of results.
package page

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"math"
)

// A Page is what is shown, in the order in which it is shown. What is empty is left
// out, heading and all.
type Page struct {
	Title    string
	Lead     string    // a sentence: how many rows of how many images
	Verdicts []Verdict // what each row changes
	Caution  string    // what to keep in mind about all verdicts
	Table    Table
	Figures  []Figures
	Strips   []Strip // rows of images: image i of each started from the same noise
	NoImages string  // why there are no strips
	Anatomy  []Anatomy
	Unshown  string // which rows have an anatomy that is not shown, and why
	Method   []string
	BibTeX   string
	Warnings []string
	Command  string // what repeats the experiment
	Files    []File
}

// A Verdict is what can be said about one comparison.
type Verdict struct {
	Group string // model or label; "" where there is one alone
	Text  string // a whole sentence
	Mark  Mark   // of the metric that comes first
}

// A Mark says which way a difference goes. Shape and word carry it, colour only
// beside them.
type Mark int

// The marks.
const (
	NoMark Mark = iota
	Better
	Worse
	Undecided
)

// Symbol is the mark's shape.
func (m Mark) Symbol() string { return [...]string{"", "▲", "▼", "○"}[m] }

// Word is what the mark means; also its class in the style sheet.
func (m Mark) Word() string { return [...]string{"", "better", "worse", "undecided"}[m] }

// A Table has one row a setting. Its columns can be sorted by a click.
type Table struct {
	Columns []Column
	Rows    [][]Cell // parallel to Columns
	Legend  []string // lines below it
}

// A Column is the head of one.
type Column struct {
	Title  string // FID ↓
	Number bool   // aligned to the right and sorted by Cell.Value
}

// A Cell is one entry.
type Cell struct {
	Text   string  // 6.84
	Margin string  // behind ±, "" where there is no interval
	Change string  // "+0.32 [0.11, 0.54]": difference to the baseline, "" where there is none
	Mark   Mark    // of Change
	Value  float64 // that the column is sorted by; NaN for none
}

// Order is what the column is sorted by, as an attribute.
func (c Cell) Order() string {
	if math.IsNaN(c.Value) {
		return ""
	}
	return fmt.Sprintf("%.17g", c.Value)
}

// Figures are panels under one heading.
type Figures struct {
	Title, Text string
	Panels      []Drawing
}

// A Drawing is a picture made of lines: Panel, Path and Heat.
type Drawing interface {
	// svg draws it; id is unique in the page.
	svg(id string) string
}

// A Strip is one setting's images.
type Strip struct {
	Label  string
	Images []Image
}

// An Anatomy is what guidance does to one row's images at a few steps.
type Anatomy struct {
	Label   string
	Columns []string // what each picture of a line is
	Lines   []AnatomyLine
}

// An AnatomyLine is one image at one step.
type AnatomyLine struct {
	Label  string
	Images []Image // parallel to Columns
}

// An Image is a picture in a format that browsers know.
type Image struct {
	MIME          string // image/png, image/jpeg
	Data          []byte
	Width, Height int // in pixels, as it is shown
}

// URI is the picture itself as an address.
func (i Image) URI() template.URL { return dataURI(i.MIME, i.Data) }

// A File can be saved from the page.
type File struct {
	Name, MIME string
	Data       []byte
}

// URI is the file itself as an address.
func (f File) URI() template.URL { return dataURI(f.MIME, f.Data) }

func dataURI(mime string, data []byte) template.URL {
	return template.URL("data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(data))
}

var (
	//go:embed page.css
	style string
	//go:embed page.js
	script string
	//go:embed page.html
	source string
)

var parsed = template.Must(template.New("page").Funcs(template.FuncMap{
	"add":    func(a, b int) int { return a + b },
	"style":  func() template.CSS { return template.CSS(style) },
	"script": func() template.JS { return template.JS(script) },
	"draw":   func(d Drawing, id string) template.HTML { return template.HTML(d.svg(id)) },
}).Parse(source))

// HTML is the file.
func (p *Page) HTML() ([]byte, error) {
	var out bytes.Buffer
	if err := parsed.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return out.Bytes(), nil
}
