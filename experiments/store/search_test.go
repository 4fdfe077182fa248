package store

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// A round of a search is read as it was written; a file that is damaged, of another
// round or of another version is told of, and decides nothing.
func TestSearchRound(t *testing.T) {
	folder := t.TempDir()
	quiet := func(text string) { t.Errorf("said %s", text) }
	if r, err := ReadSearchRound(folder, 1, quiet); r != nil || err != nil {
		t.Errorf("%v, %v where nothing is decided", r, err)
	}
	want := &SearchRound{
		Format: SearchFormat, Search: SearchRule{Metrics: []string{"fid"}, Budget: 100, Confidence: 0.95, First: 10, Eta: 2, Samples: 40, Rows: 2, Level: 0.025},
		Round: 1, Images: 10, Drawn: 20, Next: 20,
		Rows: []SearchRow{{Title: "s=0", Run: "0123456789", Evaluation: "9876543210"}, {Row: 1, Title: "s=1", Against: "s=0", Dropped: true,
			Differences: []SearchDifference{{Metric: "fid", Value: 12.5, Change: 2, Low: 1, High: 3}}}},
	}
	for round := range 3 {
		want.Round = round + 1
		if err := want.Write(folder); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := ReadSearchRound(folder, 3, quiet); !reflect.DeepEqual(r, want) || err != nil {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	path := filepath.Join(folder, SearchFolder, "round-2.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, changed := range map[string][]byte{
		"is damaged or was edited": bytes.Replace(data, []byte("12.5"), []byte("12.6"), 1),
		"unexpected":               data[:len(data)/2],
		"has format 7":             bytes.Replace(data, []byte(`"format": 1`), []byte(`"format": 7`), 1),
		"unknown field":            bytes.Replace(data, []byte(`"drawn"`), []byte(`"grown"`), 1),
	} {
		if err := os.WriteFile(path, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		said := ""
		if r, err := ReadSearchRound(folder, 2, func(text string) { said = text }); r != nil || err != nil || !strings.Contains(said, what) || !strings.Contains(said, "the round is decided again") {
			t.Errorf("%v, %v, said %q, want %q", r, err, said, what)
		}
	}
	if err := os.Rename(filepath.Join(folder, SearchFolder, "round-3.json"), path); err != nil {
		t.Fatal(err)
	}
	said := ""
	if r, _ := ReadSearchRound(folder, 2, func(text string) { said = text }); r != nil || !strings.Contains(said, "is of round 3") {
		t.Errorf("%v, said %q", r, said)
	}
	if err := DropSearchRounds(folder, 2); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(folder, SearchFolder, "*")); len(names) != 1 {
		t.Errorf("%v is left", names)
	}
}
