package human

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A sink is where a progress is written to.
type sink interface {
	begin(now time.Time)             // a stage begins
	show(p *Progress, now time.Time) // how far it is, unless that was said a moment ago
	note(text string)                // a line that stays
	clear()                          // nothing is in work
}

// Where there is no terminal a line is written this long after the start, then
// after ever longer times.
const plainFirst, plainMost = 30 * time.Second, 10 * time.Minute

// lines is a pipe or a file: it gets a line now and then.
type lines struct {
	w    io.Writer
	said time.Time // when the last line was written
	wait time.Duration
}

func (l *lines) begin(now time.Time) {
	if l.wait == 0 {
		l.said, l.wait = now, plainFirst
	}
}

func (l *lines) show(p *Progress, now time.Time) {
	if now.Sub(l.said) < l.wait {
		return
	}
	l.said, l.wait = now, min(2*l.wait, plainMost)
	l.note(Printable(p.line()))
}

func (l *lines) note(text string) { fmt.Fprintln(l.w, text) }

func (*lines) clear() {}

// barEvery is how often the line on a terminal changes.
const barEvery = 100 * time.Millisecond

// A screen is a terminal: one line of it changes. It is written over with spaces, so
// that no terminal has to know more than a carriage return.
type screen struct {
	w       io.Writer
	columns func() int
	said    time.Time // when the line was written
	shown   bool      // it stands there
}

func (s *screen) begin(time.Time) { s.said = time.Time{} }

func (s *screen) show(p *Progress, now time.Time) {
	if now.Sub(s.said) < barEvery {
		return
	}
	// A cursor in the last column may already be on the next line.
	room := s.columns() - 1
	fmt.Fprint(s.w, blank(room)+p.barOf(room))
	s.said, s.shown = now, true
}

func (s *screen) note(text string) {
	s.clear()
	fmt.Fprintln(s.w, Wrap(text, s.columns(), 2))
}

func (s *screen) clear() {
	if s.shown {
		fmt.Fprint(s.w, blank(s.columns()-1))
		s.shown = false
	}
}

// blank empties a line of so many columns.
func blank(columns int) string { return "\r" + strings.Repeat(" ", max(0, columns)) + "\r" }
