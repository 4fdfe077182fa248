package work

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Options say how a worker works. The zero value is not useful; Defaults is.
type Options struct {
	Part      Part
	Mixed     bool          // draw also where another kind of device drew
	Heartbeat time.Duration // between two signs of life
	Stale     time.Duration // of silence after which a worker's claims are free
	Listing   time.Duration // that a list of what is there is good for
	Alone     time.Duration // after which a part of several that sees no other one gives up
	Patience  time.Duration // with a file system that gives errors
	Abandoned time.Duration // of silence after which a worker's temporary files may go
}

// Defaults are the times that real clusters get; tests have shorter ones.
func Defaults() Options {
	return Options{
		Heartbeat: 30 * time.Second, Stale: 5 * time.Minute, Listing: 30 * time.Second,
		Alone: time.Minute, Patience: 10 * time.Minute, Abandoned: time.Hour,
	}
}

// A Part says where a worker begins: part I of N, counted from 0, of all units. The
// zero value is no part: at the first unit that is missing.
type Part struct{ I, N int }

// maxParts bounds N against a mistyped number.
const maxParts = 1_000_000

// String is the part as the command line has it, "3/16"; "" for none.
func (p Part) String() string {
	if p.N == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", p.I, p.N)
}

// Set implements pflag.Value.
func (p *Part) Set(text string) error {
	i, n, _ := strings.Cut(text, "/")
	index, err1 := strconv.Atoi(i)
	of, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil || index < 0 || of < 1 || index >= of || of > maxParts {
		return fmt.Errorf("expected i/n with 0 ≤ i < n ≤ %d, such as 3/16", maxParts)
	}
	*p = Part{index, of}
	return nil
}

// Type implements pflag.Value.
func (*Part) Type() string { return "part" }
