package human

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A Log is a file that keeps what people are told, each line with its time. Before it
// is opened it keeps nothing. Any goroutine may use it.
type Log struct {
	mu  sync.Mutex
	to  io.Writer
	now func() time.Time
	err error // the first one of writing
}

// Open has the log append to the file at path, which is made where it is not there.
func (l *Log) Open(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to, l.now = f, time.Now
	return nil
}

// Write implements io.Writer for whole lines. It never fails: what people are told
// reaches them whether or not the log can be written. Err tells.
func (l *Log) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil || l.err != nil {
		return len(text), nil
	}
	time := l.now().Format(time.RFC3339)
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		fmt.Fprintf(&out, "%s %s", time, line)
	}
	_, l.err = io.WriteString(l.to, out.String())
	return len(text), nil
}

// Err is the first error of writing to the file.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
