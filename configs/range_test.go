package configs

import (
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	for value, want := range map[string]string{
		"{range: [0, 1.5], points: 4}":              "0 0.5 1 1.5",
		"{range: [0, 1], points: 11}":               "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1",
		"{points: 3, range: [2, -2]}":               "2 0 -2",
		"{range: [0.01, 1], points: 3, scale: log}": "0.01 0.1 1",
		"{range: [1, 8], points: 4, scale: log}":    "1 2 4 8",
		"{range: [-1, -9], points: 3, scale: log}":  "-1 -3 -9",
		"{range: [0, 1], points: 4}":                "0 0.333333333333 0.666666666667 1",
		"{range: [0, 1], points: 2, scale: linear}": "0 1",
	} {
		folder(t, map[string]string{"t.yaml": "a: 5\nsweep: {a: " + value + "}\n"})
		for _, overrides := range [][]string{nil, {"sweep.a=" + value}} {
			doc, err := Load("t.yaml", overrides...)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := doc.Rows()
			var got []string
			for _, r := range rows {
				got = append(got, r.Settings[0].Value)
			}
			if strings.Join(got, " ") != want || err != nil {
				t.Errorf("%s: %v, %v; want %s", value, got, err, want)
			}
		}
	}
	for value, want := range map[string]string{
		"{range: [0], points: 3}":                  `t.yaml:2: sweep path "a": range has 1 numbers, expected the two ends: {range: [0, 1.5], points: 7}`,
		"{range: [0, 1]}":                          `t.yaml:2: sweep path "a": points is 0, expected 2 to 2000`,
		"{range: [0, 1], points: 1}":               `points is 1, expected 2 to 2000`,
		"{range: [0, 1], points: 2001}":            `points is 2001, expected 2 to 2000`,
		"{range: [0, 1], points: 3, scale: log}":   `scale is log, and the range is from 0 to 1; expected two ends of one sign, neither of them 0`,
		"{range: [-1, 1], points: 3, scale: log}":  `scale is log, and the range is from -1 to 1`,
		"{range: [0, 1], points: 3, scale: cubic}": `scale is "cubic", expected linear or log`,
		"{range: [0, 1], point: 3}":                `t.yaml:2: unknown key "point"`,
		"{range: [0, x], points: 3}":               `expected a number, found "x"`,
		"{range: [1, 1], points: 3}":               `1 stands twice in the list`,
		"{range: [0, .inf], points: 3}":            `expected a finite number`,
		"{points: 3}":                              `expected a list of values, found a mapping ({points: 3})`,
	} {
		folder(t, map[string]string{"t.yaml": "a: 5\nsweep: {a: " + value + "}\n"})
		doc, err := Load("t.yaml")
		if err == nil {
			_, err = doc.Rows()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", value, err, want)
		}
	}
}
