// Package human writes what people read while a command runs: stages, counts and
// notes of the work go in, a line that changes on a terminal or a line now and then
// comes out. It also writes counts, sizes and durations as people do, and keeps
// control characters from terminals.
package human

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A Progress tells people how far the work is: by one line on a terminal that
// changes, else by a line now and then. It is used by one goroutine at a time.
type Progress struct {
	Quiet  bool // write notes and warnings alone
	Hidden bool // no stages: another process shows how far the work is

	sinks []sink
	now   func() time.Time

	title   string
	noun    string
	total   int
	done    int       // of total, those from before start included
	part    float64   // of the batch that is being made
	resumed int       // done at the start
	start   time.Time // of this stage
	running bool      // a stage is
	warned  map[string]bool

	work, worked float64   // of the whole, in any unit, and what is done of it; work is 0 where it is not known
	each         float64   // work of one thing of this stage
	began        time.Time // the whole
}

// NewProgress is a progress that is written to f.
func NewProgress(f *os.File) *Progress {
	p := &Progress{now: time.Now, warned: map[string]bool{}, sinks: []sink{&lines{w: f}}}
	if term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.sinks[0] = &screen{w: f, columns: func() int {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}}
	}
	return p
}

// Keep writes the progress to a log as well, as to a pipe.
func (p *Progress) Keep(l *Log) { p.sinks = append(p.sinks, &lines{w: l}) }

// Whole begins work of several stages: so much of it, in any unit, is to be done.
func (p *Progress) Whole(work float64) {
	p.work, p.worked, p.began = work, 0, p.now()
}

// Stage begins a stage of the work: done of total things, which noun names in the
// plural, are there already.
func (p *Progress) Stage(title, noun string, done, total int) {
	p.End()
	p.title, p.noun, p.total, p.done, p.resumed, p.part, p.each = title, noun, total, done, done, 0, 0
	p.start, p.running = p.now(), true
	for _, s := range p.sinks {
		s.begin(p.start)
	}
	p.show()
}

// Reached is Stage, or where that stage runs, how far it is by now.
func (p *Progress) Reached(title, noun string, done, total int) {
	if !p.running || p.noun != noun || p.total != total {
		p.Stage(title, noun, done, total)
		return
	}
	p.title, p.done = title, done
	p.show()
}

// Worth tells how much of the whole each thing of this stage is.
func (p *Progress) Worth(work float64) { p.each = work }

// Add counts n more things that are done.
func (p *Progress) Add(n int) {
	p.done += n
	p.worked += float64(n) * p.each
	p.part = 0
	p.show()
}

// Elsewhere counts work of the whole that is done, and is not of this stage.
func (p *Progress) Elsewhere(work float64) { p.worked += work }

// Working tells how much of the next things is done: 0.5 is half of one of them.
func (p *Progress) Working(part float64) {
	p.part = part
	p.show()
}

// Tell writes a line about what is done or to do, unless progress is quiet.
func (p *Progress) Tell(text string) {
	if !p.Quiet {
		p.Note(text)
	}
}

// Note writes a line about something out of the ordinary.
func (p *Progress) Note(text string) {
	for _, s := range p.sinks {
		s.note(short(Printable(text), longest))
	}
}

// Warn writes a warning, once however many rows it holds for.
func (p *Progress) Warn(text string) {
	if !p.warned[text] {
		p.warned[text] = true
		p.Note("warning: " + text)
	}
}

// End ends the stage: its line is removed.
func (p *Progress) End() {
	for _, s := range p.sinks {
		s.clear()
	}
	p.running = false
}

func (p *Progress) show() {
	if p.Quiet || p.Hidden || !p.running {
		return
	}
	now := p.now()
	for _, s := range p.sinks {
		s.show(p, now)
	}
}

// barOf is the line on a terminal, of so many columns at most: a bar where there is
// room for it, then as much of the title and of the state as fits.
func (p *Progress) barOf(columns int) string {
	title := strings.ReplaceAll(Printable(p.title), "\n", " ")
	forms := p.forms()
	whole := title + ": " + forms[0]
	if p.total > 0 {
		if bar := barAt((float64(p.done) + p.part) / float64(p.total)); Wide(whole)+len([]rune(bar)) <= columns {
			return bar + whole
		}
	}
	words := strings.SplitN(title, " ", 3)
	shortest := strings.Join(words[:min(2, len(words))], " ") // row 1/5
	for _, state := range forms {
		if Wide(shortest+": "+state) <= columns {
			return strings.TrimRight(cut(title, columns-Wide(": "+state)), " ") + ": " + state
		}
	}
	for _, state := range forms {
		if Wide(state) <= columns {
			return state
		}
	}
	return cut(forms[len(forms)-1], columns)
}

// cut is as much of a text as has so many columns.
func cut(text string, columns int) string {
	for i, r := range text {
		if columns -= Wide(string(r)); columns < 0 {
			return text[:i]
		}
	}
	return text
}

// barAt is a bar of 20 columns with its percentage.
func barAt(fraction float64) string {
	bar := progressbar.NewOptions(1000, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetWidth(20),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
	bar.RenderBlank()
	bar.Set(min(999, int(1000*fraction))) // 1000 would finish it
	return strings.Trim(bar.String(), "\r")
}

// Wide is the columns that a text takes at most: some fonts and languages have
// characters of two.
func Wide(text string) int {
	n := 0
	for _, r := range text {
		if n++; r >= 0x1100 {
			n++
		}
	}
	return n
}

// line is the state in words: row 2/5 s=0.5: 48/512 images, 12.3 images/s, 38s left;
// all: 23 %, 5m00s left.
func (p *Progress) line() string { return p.title + ": " + p.forms()[0] }

// forms are the state in words, from the longest to the shortest: how many things are
// done, how fast, and the time left of this stage and of the whole. The last one has the
// speed and the time left of the whole where it is known, or else of the stage.
func (p *Progress) forms() []string {
	count := fmt.Sprintf("%d/%d", p.done, p.total)
	var speed, brief, left, leftOfAll string
	made := float64(p.done-p.resumed) + p.part
	if seconds := p.now().Sub(p.start).Seconds(); made > 0 && seconds >= 0.5 {
		rate := made / seconds
		speed, brief = fmt.Sprintf("%.1f %s/s", rate, p.noun), fmt.Sprintf("%.1f/s", rate)
		if rate < 0.1 {
			each := Duration(time.Duration(float64(time.Second) / rate))
			speed, brief = each+" for one", each+" each"
		}
		left = Duration(time.Duration((float64(p.total-p.done) - p.part) / rate * float64(time.Second)))
	}
	worked := p.worked + p.part*p.each
	if seconds := p.now().Sub(p.began).Seconds(); p.work > 0 && worked > 0 && seconds >= 0.5 {
		leftOfAll = Duration(time.Duration(max(0, p.work-worked) / worked * seconds * float64(time.Second)))
	}
	full := joined(count+" "+p.noun, speed, suffixed(left, " left"))
	end := suffixed(left, " left")
	if leftOfAll != "" {
		full += fmt.Sprintf("; all: %.0f %%, %s left", 100*min(1, worked/p.work), leftOfAll)
		left, end = leftOfAll, "all: "+leftOfAll+" left"
	}
	forms := []string{full, joined(count, speed, end)}
	if speed != "" || end != "" {
		forms = append(forms, joined(speed, end), joined(brief, left))
	}
	return forms
}

// joined are the texts that are there with commas between them.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}

// suffixed is a text with an ending, if there is a text.
func suffixed(text, ending string) string {
	if text == "" {
		return ""
	}
	return text + ending
}
