package human

import (
	"bytes"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &Progress{w: &out, now: func() time.Time { return now }, warned: map[string]bool{}}
	p.Stage("row 1/2 s=0", "images", 100, 500)
	for range 10 {
		now = now.Add(10 * time.Second)
		p.Working(8)
		p.Add(20)
	}
	want := "row 1/2 s=0: 140/500 images, 1.6 images/s, 3m40s left\n" +
		"row 1/2 s=0: 200/500 images, 1.8 images/s, 2m42s left\n" +
		"row 1/2 s=0: 260/500 images, 1.9 images/s, 2m04s left\n"
	if out.String() != want {
		t.Errorf("%s, want\n%s", &out, want)
	}
	now = now.Add(time.Hour)
	p.Stage("row 2/2", "images", 0, 50_000)
	now = now.Add(1000 * time.Second)
	p.Working(16)
	if line := p.line(); line != "row 2/2: 0/50000 images, 1m02s for one, 36d3h left" {
		t.Errorf("%q", line)
	}
	out.Reset()
	p.Warn("biased")
	p.Warn("biased")
	if out.String() != "warning: biased\n" {
		t.Errorf("%q", &out)
	}
}
