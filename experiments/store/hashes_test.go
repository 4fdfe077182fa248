package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file that was hashed may not be another one later, however it was replaced; a
// new mode or name of the same content is no change.
func TestUnchanged(t *testing.T) {
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		change  func(path string) error
		changed bool
	}{
		"nothing": {func(string) error { return nil }, false},
		"mode":    {func(path string) error { return os.Chmod(path, 0o644) }, false},
		"moved away and back": {func(path string) error {
			if err := os.Rename(path, path+".away"); err != nil {
				return err
			}
			return os.Rename(path+".away", path)
		}, false},
		"in place": {func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) }, true},
		"in place, the time set back": {func(path string) error {
			if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, at, at)
		}, true},
		"by rename": {func(path string) error {
			put(path+".new", "other")
			if err := os.Chtimes(path+".new", at, at); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, true},
		"removed": {os.Remove, true},
	} {
		folder := t.TempDir()
		path := filepath.Join(folder, "weights")
		put(path, "these")
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		h := Hashes{}
		if _, err := h.Of(path); err != nil {
			t.Fatal(err)
		}
		if err := c.change(path); err != nil {
			t.Fatal(err)
		}
		err := h.Unchanged(false)
		if (err != nil) != c.changed || err != nil && !strings.Contains(err.Error(), path+": changed since") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
