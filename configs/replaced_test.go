package configs

import (
	"strings"
	"testing"
)

// What an override undoes of a sweep, or of what rows set, is said; what it sets for
// rows that had the same, or leaves as it was, is not.
func TestReplaced(t *testing.T) {
	folder(t, map[string]string{"x.yaml": `a: {b: 1, c: 1}
name: x
sweep: {a.b: [1, 2, 3, 4, 5, 6]}
rows:
- {label: one}
- {label: two, d: {e: 2}, sweep: {a.b: [7]}}
`})
	const swept = "a.b=9 takes the place of what the rows differ in (1, 2, 3, 4, and 3 more): all of them have it, and of 7 rows 2 are left; sweep.a.b=[VALUES] compares other values"
	const set = "d.e=3 takes the place of what the rows differ in (none, 2): all of them have it; sweep.d.e=[VALUES] compares other values"
	for override, want := range map[string]string{
		"a.b=9": swept, "d.e=3": set, "a.b=9 d.e=3": swept + "|" + strings.Replace(set, "it;", "it, and of 7 rows 2 are left;", 1),
		"": "", "a.c=5": "", "new=1": "", "sweep.a.b=[1,2]": "", "rows.1.d.e=4": "", "a={b:0,c:2}": "",
	} {
		doc, err := Load("x.yaml", strings.Fields(override)...)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(doc.Replaced(), "|"); got != want {
			t.Errorf("%q: %q, want %q", override, got, want)
		}
	}
}
