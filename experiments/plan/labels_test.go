package plan

import (
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
)

func loadLabelled(t *testing.T, overrides ...string) (*Row, error) {
	t.Helper()
	e, err := Load(tiny.Experiment(t, t.TempDir(), "sweep: {guidance.sag.scale: [0, 0.5]}\n", ""), overrides)
	if err != nil {
		return nil, err
	}
	return e.Rows[0], nil
}

// Labels count in the run id, but for random ones, which all were before there was a
// choice; run.yaml is the same run.
func TestLabelsInRunIDs(t *testing.T) {
	id := func(r *Row) string {
		t.Helper()
		got, err := r.RunID(strings.Repeat("ab", 32))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[string]string{}
	for _, labels := range []string{"", "labels=random", "labels=balanced", "labels=[3]", "labels=[3, 4]", "labels={3: 8}", "labels={3: 5, 7: 3}"} {
		overrides := []string{"samples=8"}
		if labels != "" {
			overrides = append(overrides, labels)
		}
		r, err := loadLabelled(t, overrides...)
		if err != nil {
			t.Error(err)
			continue
		}
		data, err := r.Document()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "run.yaml")
		tiny.Write(t, path, string(data))
		again, err := Load(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if id(again.Rows[0]) != id(r) || strings.Contains(string(data), "labels") == r.Labels.Random() {
			t.Errorf("%s: run id %s, of its run.yaml %s\n%s", labels, id(r), id(again.Rows[0]), data)
		}
		if before, twice := seen[id(r)]; twice != (labels == "labels=random") || twice && before != "" {
			t.Errorf("%q and %q have one run id", before, labels)
		}
		seen[id(r)] = labels
	}
	more, err := loadLabelled(t, "samples=80", "labels=balanced")
	if err != nil || seen[id(more)] != "labels=balanced" {
		t.Errorf("with more images: another run, %v", err)
	}
}

func TestLabelErrors(t *testing.T) {
	for labels, want := range map[string]string{
		"uniform":              `labels: is "uniform", expected random, balanced, a list of classes`,
		"207":                  "write [207]",
		"[]":                   "is an empty list",
		"{}":                   "is an empty mapping",
		"[1, -1]":              "is class -1, expected 0 to",
		"[1, 99999999999]":     "is class 99999999999, expected 0 to",
		"[cat]":                "expected a whole number",
		"{cat: 3}":             `"cat" is no class, expected its number`,
		"{03: 8}":              `"03" is no class`,
		"{3: 0, 4: 8}":         "is 0 images of class 3, expected 1 to",
		"{3: 1000000000000}":   "images of class 3, expected 1 to",
		"{3: many}":            "expected a whole number",
		"{3: 4, 7: 3}":         "asks for 7 images of 2 classes together, and samples is 8",
		"{3: [4]}":             "expected a whole number",
		"true":                 `is "true"`,
		"{3: 4, 7: {a: 3}}":    "expected a whole number",
		"[[1]]":                "expected a whole number",
		"{3: 8, 3.0: 1, x: 2}": "is no class",
	} {
		if _, err := loadLabelled(t, "labels=!replace "+labels); strings.HasPrefix(labels, "{") && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: no %q in %v", labels, want, err)
		}
		if _, err := loadLabelled(t, "labels="+labels); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", labels, want, err)
		}
	}
	for _, c := range []struct{ labels, want string }{
		{"balanced", "family adm, with the flags of the row, is not conditioned on classes; remove it"},
		{"random", ""},
	} {
		_, err := loadLabelled(t, "model.class_cond=false", "labels="+c.labels)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of an unconditional network: %v", c.labels, err)
		}
	}
	r, err := loadLabelled(t, "labels=[3, 10]")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CheckLabels(10); err == nil || !strings.Contains(err.Error(), "labels: class 10 is none of the network's, which are 0 to 9") {
		t.Error(err)
	}
	if err := r.CheckLabels(11); err != nil {
		t.Error(err)
	}
}
