package store

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sagbench/internal/tiny"
)

// drawn is an evaluation with draws of one metric.
func drawn(name string) *Evaluation {
	return &Evaluation{
		Format: EvaluationFormat, Protocol: "adm", Samples: 40, Settings: EvaluationSettings{Bootstrap: 40},
		Scores: []Score{{Name: "fid", Title: "FID", Value: 1.5, Direction: LowerIsBetter, Decimals: 2}},
		Inputs: map[string]Input{"samples": {InputFile: InputFile{name, "00"}}},
		Draws:  &EvaluationDraws{Images: 40, Names: "ab", Values: map[string][]float64{"fid": slices.Repeat([]float64{math.Pi, -1e-30}, 20)}},
	}
}

// What is written is read, of one set and of several; lists of numbers take a line.
func TestEvaluationsAreReadAgain(t *testing.T) {
	one := &Evaluations{Format: EvaluationFormat, Evaluations: []*Evaluation{drawn("a")}}
	two := &Evaluations{Format: EvaluationFormat, Evaluations: []*Evaluation{drawn("a"), drawn("b")}, Failed: []FailedSet{{"c", "why"}}}
	for _, all := range []*Evaluations{one, two} {
		data, err := all.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, []byte(`"fid": [3.141592653589793, -1e-30, `)) {
			t.Errorf("draws: %s", data)
		}
		path := filepath.Join(t.TempDir(), "e.json")
		tiny.Write(t, path, string(data))
		got, err := ReadEvaluations(path)
		if err != nil || len(got) != len(all.Evaluations) {
			t.Fatal(got, err)
		}
		for i, e := range got {
			if !slices.Equal(e.Draws.Values["fid"], all.Evaluations[i].Draws.Values["fid"]) || e.Inputs["samples"].Name != all.Evaluations[i].Inputs["samples"].Name {
				t.Errorf("%+v", e)
			}
		}
		if !IsEvaluation(path) {
			t.Error("is not taken for one")
		}
	}
	path := filepath.Join(t.TempDir(), MetricsFile)
	tiny.Write(t, path, `{"experiment": "e"}`)
	if IsEvaluation(path) || IsEvaluation(filepath.Dir(path)) {
		t.Error("a run's is taken for one")
	}
}

// Files of an earlier version, which have no checksum, are held against what can be
// written.
func TestDamagedEvaluations(t *testing.T) {
	valid, err := encodeJSON(drawn("a"))
	if err != nil {
		t.Fatal(err)
	}
	valid = flat(valid)
	for want, data := range map[string]string{
		"unexpected end of JSON":                     string(valid[:100]),
		`unknown field "later"`:                      strings.Replace(string(valid), `"protocol"`, `"later": 1, "protocol"`, 1),
		"has format 7, this program reads 1":         strings.Replace(string(valid), `"format": 1`, `"format": 7`, 1),
		"holds no evaluation":                        `{"format": 1, "evaluations": []}`,
		"evaluation 1 is null":                       `{"format": 1, "evaluations": [null]}`,
		"has format 2":                               `{"format": 2, "evaluations": [{}]}`,
		`"fid" has 1000 decimals, expected 0 to 17`:  strings.Replace(string(valid), `"decimals": 2`, `"decimals": 1000`, 1),
		`40 draws of "fid", expected 41, and 40 at`:  strings.Replace(string(valid), `"bootstrap": 40`, `"bootstrap": 41`, 1),
		"cannot unmarshal number 1e999":              strings.Replace(string(valid), "3.141592653589793", "1e999", 1),
		"draws of 40 images, and 39 samples":         strings.Replace(string(valid), `"samples": 40`, `"samples": 39`, 1),
		"draws of -40 images":                        strings.Replace(string(valid), `"images": 40`, `"images": -40`, 1),
		`"fid" is -1e+300, or a draw of it`:          strings.Replace(string(valid), "-1e-30", "-1e300", 1),
		`has two scores "fid" with draws`:            strings.Replace(string(valid), `"scores": [`, `"scores": [{"name": "fid"}, `, 1),
		"cannot unmarshal array into Go value":       `[]`,
		"not a JSON file of `sagbench eval --json`:": `{"format": "1"}`,
	} {
		path := filepath.Join(t.TempDir(), "e.json")
		tiny.Write(t, path, data)
		if _, err := ReadEvaluations(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Whatever is in the file, it is refused or can be compared.
func FuzzReadEvaluations(f *testing.F) {
	valid, err := drawn("a").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add(fmt.Appendf(nil, `{"format": 1, "evaluations": [%s, %s]}`, valid, valid))
	f.Add([]byte(`{"evaluations": [{"format": 1, "draws": {"values": {"fid": [1]}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := decodeEvaluations(data)
		if err != nil {
			return
		}
		for _, e := range all {
			if e.Draws == nil {
				continue
			}
			for name, values := range e.Draws.Values {
				if len(values) != e.Settings.Bootstrap || len(values) < 40 {
					t.Errorf("%d draws of %q", len(values), name)
				}
			}
		}
	})
}

// The worst class comes first, whichever way is better.
func TestClassesAreSorted(t *testing.T) {
	for direction, want := range map[string]string{LowerIsBetter: "b a c none", HigherIsBetter: "c a b none"} {
		p := &PerClass{}
		p.Add("none", 3, 3, nil, []Failure{{"fid", "few"}})
		for class, v := range map[string]float64{"a": 2, "b": 3, "c": 1} {
			p.Add(class, 5, 5, []Score{{Name: "fid", Value: v, Direction: direction}}, nil)
			p.Add(class, 5, 5, []Score{{Name: "other", Value: -v, Direction: direction}}, nil)
		}
		p.Sort()
		var got []string
		for _, c := range p.Classes {
			got = append(got, c.Class)
			if c.Class != "none" && len(c.Scores) != 2 {
				t.Errorf("%s has %d scores", c.Class, len(c.Scores))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is better: %s, want %s", direction, got, want)
		}
	}
}

// Names tell images apart by their place in the set, not by its folder or format.
func TestNamesSum(t *testing.T) {
	folder := NamesSum([]string{"a/0.png", "a/1.png", "b/0.png"})
	if got := NamesSum([]string{"set/a/0.jpg", "set/a/1.jpg", "set/b/0.JPG"}); got != folder {
		t.Error("the same names in a folder more, as JPEG")
	}
	for _, others := range [][]string{{"a/1.png", "a/0.png", "b/0.png"}, {"a/0.png", "a/1.png"}, {"0.png", "1.png", "0.png"}} {
		if NamesSum(others) == folder {
			t.Errorf("%q are taken for others", others)
		}
	}
	if NamesSum(nil) != "" {
		t.Error("no names have a sum")
	}
}

// Lines are added under the same head, whole or not at all.
func TestAppendCSV(t *testing.T) {
	head, path := []string{"metric", "value"}, filepath.Join(t.TempDir(), "scores.csv")
	for i, line := range []string{"fid,1\n", "is,2\n"} {
		if err := AppendCSV(path, []byte("metric,value\n"+line)); err != nil {
			t.Fatal(i, err)
		}
	}
	read := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if got := read(); got != "metric,value\nfid,1\nis,2\n" {
		t.Errorf("%q", got)
	}
	tiny.Write(t, path, "metric,value\nfid,1") // as an editor leaves it
	if err := AppendCSV(path, []byte("metric,value\nis,2\n")); err != nil || read() != "metric,value\nfid,1\nis,2\n" {
		t.Errorf("%v, %q", err, read())
	}
	for want, there := range map[string]string{
		`its first line is "metric,value,std", expected "metric,value"`: "metric,value,std\nfid,1,2\n",
		"wrong number of fields":             "metric,value\nfid,1\nis\n",
		`its first line is "metric,value\r"`: "metric,value\r\nfid,1\r\n",
	} {
		tiny.Write(t, path, there)
		for _, err := range []error{CheckAppend(path, head), AppendCSV(path, []byte("metric,value\nis,2\n"))} {
			if err == nil || !strings.Contains(err.Error(), want) || read() != there {
				t.Errorf("%v, want %s; the file is %q", err, want, read())
			}
		}
	}
	if err := CheckAppend(filepath.Join(filepath.Dir(path), "new"), head); err != nil {
		t.Error(err)
	}
}

// Lines of processes that add at once are all there.
func TestAppendCSVAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scores.csv")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := AppendCSV(path, fmt.Appendf(nil, "metric,value\nfid,%d\n", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	data, err := os.ReadFile(path)
	if err != nil || bytes.Count(data, []byte("\n")) != 21 || bytes.Count(data, []byte("metric")) != 1 {
		t.Errorf("%v, %q", err, data)
	}
}
