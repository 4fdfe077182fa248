// Package human writes what people read while a command runs: stages, counts and
// notes of the work go in, a bar on a terminal or a line now and then comes out.
// It also writes counts, sizes and durations as people do.
package human

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainEvery is how often a line is written where there is no terminal.
const plainEvery = 30 * time.Second

// A Progress tells people how far the work is: by a bar on a terminal, else by a
// line now and then. It is used by one goroutine at a time.
type Progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time

	bar     *progressbar.ProgressBar
	title   string
	noun    string
	total   int
	done    int       // of total, those from before start included
	part    float64   // of the batch that is being made
	resumed int       // done at the start
	start   time.Time // of this stage
	said    time.Time // when the last plain line was written
	warned  map[string]bool
}

// NewProgress is a progress that is written to f.
func NewProgress(f *os.File) *Progress {
	return &Progress{w: f, terminal: term.IsTerminal(int(f.Fd())), now: time.Now, warned: map[string]bool{}}
}

// Stage begins a stage of the work: done of total things, which noun names in the
// plural, are there already.
func (p *Progress) Stage(title, noun string, done, total int) {
	p.End()
	p.title, p.noun, p.total, p.done, p.resumed, p.part = title, noun, total, done, done, 0
	p.start = p.now()
	p.said = p.start
	if p.terminal {
		p.bar = progressbar.NewOptions(1000,
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetWidth(20), progressbar.OptionSetPredictTime(false),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
			progressbar.OptionShowDescriptionAtLineEnd(), progressbar.OptionUseANSICodes(true))
		p.show()
	}
}

// Add counts n more things that are done.
func (p *Progress) Add(n int) {
	p.done += n
	p.part = 0
	p.show()
}

// Working tells how much of the next things is done: 0.5 is half of one of them.
func (p *Progress) Working(part float64) {
	p.part = part
	p.show()
}

// Note writes a line about something out of the ordinary.
func (p *Progress) Note(text string) {
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.w, text)
}

// Warn writes a warning, once however many rows it holds for.
func (p *Progress) Warn(text string) {
	if !p.warned[text] {
		p.warned[text] = true
		p.Note("warning: " + text)
	}
}

// End ends the stage: the bar is removed.
func (p *Progress) End() {
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}

func (p *Progress) show() {
	if p.bar != nil {
		p.bar.Describe(p.line())
		if p.total > 0 {
			p.bar.Set(min(999, int(1000*(float64(p.done)+p.part)/float64(p.total)))) // 1000 would finish it
		}
		return
	}
	if !p.terminal && p.now().Sub(p.said) >= plainEvery {
		p.said = p.now()
		fmt.Fprintln(p.w, p.line())
	}
}

// line is the state in words: row 2/5 s=0.5: 48/512 images, 12.3 images/s, 38s left.
func (p *Progress) line() string {
	text := fmt.Sprintf("%s: %d/%d %s", p.title, p.done, p.total, p.noun)
	made := float64(p.done-p.resumed) + p.part
	seconds := p.now().Sub(p.start).Seconds()
	if made <= 0 || seconds < 0.5 {
		return text
	}
	rate := made / seconds
	left := time.Duration((float64(p.total-p.done) - p.part) / rate * float64(time.Second))
	speed := fmt.Sprintf("%.1f %s/s", rate, p.noun)
	if rate < 0.1 {
		speed = Duration(time.Duration(float64(time.Second)/rate)) + " for one"
	}
	return text + fmt.Sprintf(", %s, %s left", speed, Duration(left))
}

// Count is a number with commas: 1,562,500.
func Count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes is a size in units of 1000: 9.8 GB.
func Bytes(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d %s", n, units[0])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// Duration is a duration for people: 3d4h, 2h10m, 5m30s, 12s.
func Duration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}
