package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
)

// Whatever is in the file, its scores can be shown, or it is refused.
func FuzzReadMetrics(f *testing.F) {
	f.Add(fmt.Appendf(nil, `{"format": %d, "scores": [{"name": "fid", "value": 1.5, "decimals": 2}], "settings": [{"path": "a.b", "value": "1"}]}`, MetricsFormat))
	f.Add(fmt.Appendf(nil, `{"format": %d, "scores": [{"name": "fid", "decimals": 1000000000}]}`, MetricsFormat))
	f.Add([]byte(`{"format": 1e99}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), MetricsFile)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := ReadMetrics(path); err == nil && len(m.Summary()) > 1000*(1+len(m.Scores))+len(data) {
			t.Errorf("%d bytes from %d", len(m.Summary()), len(data))
		}
	})
}

// Whatever is in the file, its features fit each other, or they are not used.
func FuzzReadFeatures(f *testing.F) {
	path := filepath.Join(f.TempDir(), "features.npz")
	features := &eval.Features{N: 2, D: 3, Pool: []float32{1, 2, 3, 4, 5, 6}}
	if err := WriteFeatures(path, []byte("key"), features, images.Report{}); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "features.npz")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, want := range []eval.Parts{{Pool: true}, {Stats: true, Spatial: true}, {Logits: true, SpatialRows: true, Outputs: "x"}} {
			if got, _, ok := ReadFeatures(path, []byte("key"), want); ok && got.Validate() != nil {
				t.Error(got.Validate())
			}
		}
	})
}
