package eval

import (
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval/images"
	"sagbench/eval/npz"
)

// writeStatistics writes a file of two-dimensional statistics.
func writeStatistics(t *testing.T, spatial bool, p *Provenance) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ref.npz")
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, values []float64, shape ...int) {
		a, err := w.Array(name, npz.Float64, shape...)
		if err == nil {
			err = npz.WriteRows(a, values)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "_s"} {
		if suffix == "" || spatial {
			put("mu"+suffix, []float64{1, 2}, 2)
			put("sigma"+suffix, []float64{1, 0, 0, 1}, 2, 2)
		}
	}
	if p != nil {
		if err := p.Write(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Statistics of one resize, network or size are not compared with features of
// another; where the file says nothing, its layout speaks, and a note tells.
func TestAgree(t *testing.T) {
	said := &Provenance{Network: "inception", SHA256: "ab", Resize: "clean", InputSize: 299, Images: 5000}
	for _, c := range []struct {
		what            string
		spatial         bool
		p               *Provenance
		network, sha256 string
		resize          string
		size            int
		note, fault     string
	}{
		{"the same", true, said, "inception", "ab", "clean", 299, "", ""},
		{"other resize", true, said, "inception", "ab", "tf", 299, "", "resize clean"},
		{"other weights", true, said, "inception", "cd", "clean", 299, "", "sha256 ab"},
		{"other network", false, said, "dinov2", "ab", "clean", 299, "", "network inception"},
		{"other size", true, said, "inception", "ab", "clean", 107, "", "input size 299"},
		{"ADM's layout", true, nil, "inception", "ab", "tf", 299, "taken for ADM's", ""},
		{"ADM's layout, torch", true, nil, "inception", "ab", "torch", 299, "", "layout of ADM's"},
		{"mu alone", false, nil, "inception", "ab", "clean", 299, "do not say", ""},
	} {
		r, err := ReadReference(t.Context(), writeStatistics(t, c.spatial, c.p), images.Options{})
		if err != nil {
			t.Fatal(err)
		}
		notes, err := r.Agree(c.network, c.sha256, c.resize, c.size)
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: error %v, expected %q", c.what, err, c.fault)
		}
		if found := strings.Join(notes, ""); !strings.Contains(found, c.note) || c.note == "" && found != "" {
			t.Errorf("%s: notes %q, expected %q", c.what, notes, c.note)
		}
		if c.p != nil && r.Pool.N != 5000 {
			t.Errorf("%s: statistics of %d images", c.what, r.Pool.N)
		}
	}
	if _, err := ReadReference(t.Context(), writeStatistics(t, true, &Provenance{}), images.Options{}); err == nil {
		t.Error("provenance of no images")
	}
}
