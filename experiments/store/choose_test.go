package store

import (
	"fmt"
	"strings"
	"testing"
)

// Rows are chosen by number, range, label, setting or title; what is no row's is an
// error that names the rows.
func TestChoose(t *testing.T) {
	var rows []Place
	for i, label := range []string{"Fashion-MNIST (uncond.)", "Fashion-MNIST (uncond.)", "Fashion-MNIST (cond.)", "Fashion-MNIST (cond.)", "a, b"} {
		rows = append(rows, PlaceOf(i, label, []Setting{{Path: "guidance.sag.scale", Value: fmt.Sprint(i % 2)}}))
	}
	for _, c := range []struct{ chosen, want string }{
		{"2", "2"},
		{"4, 1-2", "1 2 4"},
		{"3-9", "3 4 5"},
		{"Fashion-MNIST (cond.)", "3 4"},
		{"fashion-mnist (cond.) s = 1", "4"},
		{"Fashion-MNIST (cond.), s=0", "3"}, // one name
		{"s=1", "2 4"},
		{"s=1,5", "2 4 5"},
		{"a, b", "5"},
		{"5|1", "1 5"},
	} {
		chosen, err := Choose(rows, func(p Place) Place { return p }, strings.Split(c.chosen, "|"))
		var got []string
		for _, p := range chosen {
			got = append(got, fmt.Sprint(p.Number))
		}
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.chosen, got, err, c.want)
		}
	}
	for chosen, want := range map[string]string{
		"6":     `there is no row "6"; there are 1: Fashion-MNIST (uncond.) s=0; 2: `,
		"2-1":   `there is no row "2-1"`,
		"1,cat": `there is no row "cat"`,
		"":      `there is no row ""`,
		"-1":    `there is no row "-1"`,
	} {
		if got, err := Choose(rows, func(p Place) Place { return p }, []string{chosen}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %s", chosen, got, err, want)
		}
	}
	many := make([]Place, 100)
	for i := range many {
		many[i] = PlaceOf(i, "", nil)
	}
	if _, err := Choose(many, func(p Place) Place { return p }, []string{"x"}); err == nil || !strings.HasSuffix(err.Error(), "30: run; and 70 more") {
		t.Error(err)
	}
}
