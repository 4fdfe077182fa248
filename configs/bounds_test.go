package configs

import (
	"fmt"
	"strings"
	"testing"
)

type bounded struct {
	Count  int       `yaml:"count" min:"1" max:"10"`
	Seed   uint64    `yaml:"seed" min:"0" max:"18446744073709551615"`
	Start  *float64  `yaml:"start" min:"0" max:"1"`
	Scales []float64 `yaml:"scales" min:"-2" max:"2"`
	inner  `yaml:",inline"`
	Deep   []inner `yaml:"deep"`
}

type inner struct {
	Width int `yaml:"width" min:"2" max:"4" doc:"of it"`
}

func TestBounds(t *testing.T) {
	var b bounded
	text := "count: 10\nseed: 18446744073709551615\nstart: null\nscales: [-2, 0.5]\nwidth: 4\ndeep: [{width: 2}]\n"
	if err := mustParse(t, text).Decode(&b); err != nil {
		t.Error(err)
	}
	wantError(t, mustParse(t, "count: 11\nstart: 1.01\nscales: [3, 0, -2.5]\nwidth: 1\n").Decode(&b), `
case.yaml:1: count: is 11, expected 1 to 10
case.yaml:2: start: is 1.01, expected 0 to 1
case.yaml:3: scales.0: is 3, expected -2 to 2
case.yaml:3: scales.2: is -2.5, expected -2 to 2
case.yaml:4: width: is 1, expected 2 to 4`)
	wantError(t, mustParse(t, "deep:\n  - width: 9223372036854775807\n").Decode(&b), "case.yaml:2: deep.0.width: is 9223372036854775807, expected 2 to 4")

	var out strings.Builder
	if err := Describe(&out, "x", &inner{3}); err != nil || !strings.Contains(out.String(), "| `width` | whole number | `3` | 2 to 4 | of it |") {
		t.Error(err, out.String())
	}
	if err := CheckBounds(&bounded{Count: 1, inner: inner{2}}); err != nil {
		t.Error(err)
	}
	wantError(t, CheckBounds(&bounded{Count: -1}), "configs.bounded: the default of count is not within 1 to 10")
	wantError(t, CheckBounds(struct {
		N *int `yaml:"n" min:"1"`
	}{}), `struct { N *int "yaml:\"n\" min:\"1\"" }: n lacks min or max`)
	if err := mustParse(t, "n: 1").Decode(&struct {
		N int `yaml:"n" min:"one"`
	}{}); !strings.Contains(fmt.Sprint(err), "the tag min of N") {
		t.Error(err)
	}
}

// However much is wrong, and however long what it quotes, the message is short and
// names the file.
func TestLongFaultsAreShort(t *testing.T) {
	long := strings.Repeat("é", 100_000)
	for name, text := range map[string]string{
		"keys":       "a: 1\n" + strings.Repeat("x", 300) + ": 1\n" + many("key%d: 1\n", 30_000),
		"long key":   "a: 1\n? " + long + "\n: 1\n",
		"long value": "a: 1\nseed: \"" + long + "\"\n",
		"duplicates": "a: 1\n" + many("a: %d\n", 30_000),
		"bad values": "deep:\n" + many("  - {width: %d}\n", 20_000),
		"own words":  "a: 1\nword: " + long + "\n",
	} {
		b, err := Parse("case.yaml", []byte(text))
		if err == nil {
			err = b.Decode(&struct {
				bounded `yaml:",inline"`
				A       int  `yaml:"a"`
				Word    word `yaml:"word"`
			}{})
		}
		if got := fmt.Sprint(err); len(got) > 2000 || !strings.HasPrefix(got, "case.yaml:") {
			t.Errorf("%s: %d bytes: %s", name, len(got), shorten(got, 300))
		}
	}
}

type word string

func (w *word) Validate() error {
	if *w != "" {
		return fmt.Errorf("%s is unknown", *w)
	}
	return nil
}

func many(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}
