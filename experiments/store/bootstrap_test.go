package store

import (
	"os"
	"path/filepath"
	"testing"
)

// Whatever is in the file, it is read whole or refused.
func FuzzReplicates(f *testing.F) {
	for _, seed := range []string{"fid,is\n1,2\n3,4\n", "fid\n1\nNaN\n", "fid,fid\n1,2\n3,4\n", "\"", "", "fid\n1e999\n2\n", "a,b\n1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, BootstrapFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (&Metrics{Format: MetricsFormat}).Write(folder); err != nil {
			t.Fatal(err)
		}
		r, err := ReadReplicates(folder, 2)
		if err != nil {
			return
		}
		for _, name := range r.Names {
			if v := r.Values[name]; len(v) != 2 || v[0]-v[0] != 0 || v[1]-v[1] != 0 {
				t.Errorf("%s: %v", name, v)
			}
		}
	})
}
