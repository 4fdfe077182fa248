package rows

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRows compares rows in a file with what was appended, across views, and with
// pages given back.
func TestRows(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	for _, limit := range []int{1 << 20, 4000} { // in memory; in a file
		r := &Rows{Limit: limit}
		r.Expect(10_000)
		var want []float32
		for batch := range 100 {
			var values []float32
			for i := range 100 {
				values = append(values, float32(batch*1000+i))
			}
			if err := r.Append(values); err != nil {
				t.Fatal(err)
			}
			want = append(want, values...)
			if batch%30 != 7 {
				continue
			}
			got, err := r.Values()
			if err != nil || len(got) != len(want) || got[len(got)-1] != want[len(want)-1] {
				t.Fatalf("limit %d, batch %d: %d values, %v; want %d", limit, batch, len(got), err, len(want))
			}
		}
		if inFile := r.file != nil; inFile != (limit == 4000) {
			t.Errorf("limit %d: in a file: %v", limit, inFile)
		}
		got, err := r.Values()
		if err != nil || r.Len() != len(want) {
			t.Fatal(err)
		}
		for round := range 2 {
			for i, v := range want {
				if got[i] != v {
					t.Fatalf("limit %d, round %d: value %d is %v, want %v", limit, round, i, got[i], v)
				}
			}
			r.Touched(restAfter)
			r.Rest()
		}
		if left, _ := filepath.Glob(filepath.Join(folder, "*")); left != nil {
			t.Errorf("left behind: %v", left)
		}
		if err := r.Close(); err != nil || r.Len() != 0 {
			t.Errorf("closed: %d values, %v", r.Len(), err)
		}
	}
}

// TestNoFolder: the error names what to do.
func TestNoFolder(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	r := &Rows{Limit: 8}
	err := r.Append([]float32{1, 2, 3})
	if err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("got %v", err)
	}
}

// TestFullFolder: a file that cannot grow is an error, not a signal.
func TestFullFolder(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	r := &Rows{Limit: 8, file: full}
	if err := r.Append([]float32{1, 2, 3}); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("got %v", err)
	}
}
