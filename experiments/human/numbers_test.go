package human

import (
	"testing"
)

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 98_304_000_000: "98.3 GB", 2e15: "2000.0 TB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
