// Package human writes what people read while a command runs: stages, counts and
// notes of the work go in, a line that changes on a terminal or a line now and then
// comes out. It also writes counts, sizes and durations as people do, and keeps
// control characters from terminals.
package human

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Where there is no terminal a line is written this long after the start, then
// after ever longer times.
const plainFirst, plainMost = 30 * time.Second, 10 * time.Minute

// barEvery is how often the line on a terminal changes.
const barEvery = 100 * time.Millisecond

// A Progress tells people how far the work is: by one line on a terminal that
// changes, else by a line now and then. It is used by one goroutine at a time.
type Progress struct {
	Quiet  bool // write notes and warnings alone
	Hidden bool // no stages: another process shows how far the work is

	w     io.Writer
	width func() int // columns of the terminal; nil where there is none
	now   func() time.Time

	title   string
	noun    string
	total   int
	done    int       // of total, those from before start included
	part    float64   // of the batch that is being made
	resumed int       // done at the start
	start   time.Time // of this stage
	running bool      // a stage is
	shown   bool      // a line stands on the terminal
	said    time.Time // when the last line was written
	wait    time.Duration
	warned  map[string]bool

	work, worked float64   // of the whole, in any unit, and what is done of it; work is 0 where it is not known
	each         float64   // work of one thing of this stage
	began        time.Time // the whole
}

// NewProgress is a progress that is written to f.
func NewProgress(f *os.File) *Progress {
	p := &Progress{w: f, now: time.Now, warned: map[string]bool{}}
	if term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.width = func() int {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}
	}
	return p
}

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
	if p.wait == 0 {
		p.said, p.wait = p.start, plainFirst
	}
	if p.width != nil {
		p.said = time.Time{}
		p.show()
	}
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
	p.clear()
	fmt.Fprintln(p.w, short(Printable(text), longest))
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
	p.clear()
	p.running = false
}

func (p *Progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func (p *Progress) show() {
	every := p.wait
	if p.width != nil {
		every = barEvery
	}
	now := p.now()
	if p.Quiet || p.Hidden || !p.running || now.Sub(p.said) < every {
		return
	}
	p.said = now
	if p.width == nil {
		p.wait = min(2*p.wait, plainMost)
		fmt.Fprintln(p.w, Printable(p.line()))
		return
	}
	// A cursor in the last column may already be on the next line.
	fmt.Fprint(p.w, "\r"+p.barOf(p.width()-1)+"\x1b[K")
	p.shown = true
}

// barOf is the line on a terminal, of so many columns at most: a bar where there is
// room for it, the numbers, and as much of the title as then fits.
func (p *Progress) barOf(columns int) string {
	title := []rune(strings.ReplaceAll(Printable(p.title), "\n", " "))
	numbers := p.numbers()
	room := columns - Wide(numbers)
	if p.total > 0 {
		if bar := barAt((float64(p.done) + p.part) / float64(p.total)); room-Wide(string(title)) >= len([]rune(bar)) {
			return bar + string(title) + numbers
		}
	}
	const shortest = len("row 1/5")
	cut := len(title)
	for cut > shortest && Wide(string(title[:cut])) > room {
		cut--
	}
	var out strings.Builder
	for _, r := range string(title[:cut]) + numbers {
		if columns -= Wide(string(r)); columns < 0 {
			break
		}
		out.WriteRune(r)
	}
	return out.String()
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
func (p *Progress) line() string { return p.title + p.numbers() }

func (p *Progress) numbers() string {
	text := fmt.Sprintf(": %d/%d %s", p.done, p.total, p.noun)
	made := float64(p.done-p.resumed) + p.part
	if seconds := p.now().Sub(p.start).Seconds(); made > 0 && seconds >= 0.5 {
		rate := made / seconds
		speed := fmt.Sprintf("%.1f %s/s", rate, p.noun)
		if rate < 0.1 {
			speed = Duration(time.Duration(float64(time.Second)/rate)) + " for one"
		}
		text += fmt.Sprintf(", %s, %s left", speed, Duration(time.Duration((float64(p.total-p.done)-p.part)/rate*float64(time.Second))))
	}
	worked := p.worked + p.part*p.each
	if seconds := p.now().Sub(p.began).Seconds(); p.work > 0 && worked > 0 && seconds >= 0.5 {
		left := max(0, p.work-worked) / worked * seconds
		text += fmt.Sprintf("; all: %.0f %%, %s left", 100*min(1, worked/p.work), Duration(time.Duration(left*float64(time.Second))))
	}
	return text
}
