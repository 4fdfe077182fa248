package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainEvery is how often a progress that is not shown on a terminal says where
// it is.
const plainEvery = 30 * time.Second

// A progress tells people what is going on: a bar on a terminal, else a line
// now and then.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time

	bar     *progressbar.ProgressBar
	title   string
	noun    string
	total   int
	done    int       // of total, those from before start included
	part    float64   // of the batch in the making
	resumed int       // done at the start
	start   time.Time // of this stage
	said    time.Time // the last plain line
	warned  map[string]bool
}

func newProgress(f *os.File) *progress {
	return &progress{w: f, terminal: term.IsTerminal(int(f.Fd())), now: time.Now, warned: map[string]bool{}}
}

// stage begins something new of which done of total are there already.
func (p *progress) stage(title, noun string, done, total int) {
	p.end()
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

// add counts n more that are done.
func (p *progress) add(n int) {
	p.done += n
	p.part = 0
	p.show()
}

// working tells how much of the next ones is done, in units of one.
func (p *progress) working(part float64) {
	p.part = part
	p.show()
}

// note prints a line about something out of the ordinary.
func (p *progress) note(text string) {
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.w, text)
}

// warn prints a warning, once however many rows it holds for.
func (p *progress) warn(text string) {
	if !p.warned[text] {
		p.warned[text] = true
		p.note("warning: " + text)
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}

func (p *progress) show() {
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
func (p *progress) line() string {
	text := fmt.Sprintf("%s: %d/%d %s", p.title, p.done, p.total, p.noun)
	made := float64(p.done-p.resumed) + p.part
	seconds := p.now().Sub(p.start).Seconds()
	if made <= 0 || seconds < 0.5 {
		return text
	}
	rate := made / seconds
	left := time.Duration((float64(p.total-p.done) - p.part) / rate * float64(time.Second))
	return text + fmt.Sprintf(", %s, %s left", p.rate(rate), round(left))
}

// rate is per second where there is at least one, else the time that one takes.
func (p *progress) rate(perSecond float64) string {
	if perSecond >= 0.1 {
		return fmt.Sprintf("%.1f %s/s", perSecond, p.noun)
	}
	return fmt.Sprintf("%s for one", round(time.Duration(float64(time.Second)/perSecond)))
}

// round is a duration for people: 3d4h, 2h10m, 5m30s, 12s.
func round(d time.Duration) string {
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
