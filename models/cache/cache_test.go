package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// names are what lies in a folder.
func names(t *testing.T, folder string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func keep(t *testing.T, s Store, key string, content []byte) string {
	t.Helper()
	if err := s.Keep([]byte(key), func(path string) error { return os.WriteFile(path, content, 0o644) }); err != nil {
		t.Fatal(err)
	}
	path, damaged := s.Find([]byte(key))
	if path == "" || damaged {
		t.Fatalf("%s is not found after it was kept", key)
	}
	return path
}

// A file is found while each of its bytes is the one that was kept.
func TestFlippedBytes(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	r := rand.New(rand.NewPCG(13, 0))
	content := make([]byte, 10000)
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	for _, s := range stores {
		path := keep(t, s, "key", content)
		if other, damaged := s.Find([]byte("other")); other != "" || damaged {
			t.Errorf("another key has the file %s", other)
		}
		for range 200 {
			flipped := bytes.Clone(content)
			flipped[r.IntN(len(flipped))] ^= byte(1 + r.IntN(255))
			if err := os.WriteFile(path, flipped, 0o644); err != nil {
				t.Fatal(err)
			}
			if found, damaged := s.Find([]byte("key")); found != "" || !damaged {
				t.Fatalf("%s with a flipped byte is used", s.Name)
			}
			if found, damaged := s.Find([]byte("key")); found != "" || damaged {
				t.Fatalf("%s: the damaged file is still there", s.Name)
			}
		}
		keep(t, s, "key", content)
		failed := errors.New("failed")
		if err := s.Keep([]byte("key"), func(path string) error { return failed }); !errors.Is(err, failed) || len(names(t, filepath.Dir(path))) != 1 {
			t.Errorf("after a failure: %v, %v", err, names(t, filepath.Dir(path)))
		}
	}
}

// Full folders lose what was used longest ago, leftovers, and the files of version
// 0.1.0; files of others stay.
func TestSweep(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	s := Features
	s.Limit = 250
	var paths []string
	for i, key := range []string{"a", "b"} {
		paths = append(paths, keep(t, s, key, bytes.Repeat([]byte(key), 100)))
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(paths[i], at, at); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Dir(paths[0])
	old := strings.Repeat("0123456789abcdef", 2)
	for _, name := range []string{"other.txt", old + ".npz", "." + old + ".npz123", "." + old + ".npz124", "new-1/file.npz", "mine/file.npz"} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 1000), 0o644)); err != nil {
			t.Fatal(err)
		}
		if at := time.Now().Add(-2 * time.Hour); !strings.HasSuffix(name, "124") {
			os.Chtimes(path, at, at)
		}
	}
	s.Find([]byte("a")) // the last that was used
	c := keep(t, s, "c", bytes.Repeat([]byte("c"), 100))
	want := []string{"." + old + ".npz124", filepath.Base(paths[0]), filepath.Base(c), "mine", "other.txt"}
	slices.Sort(want)
	if got := names(t, folder); !slices.Equal(got, want) {
		t.Errorf("left %v, expected %v", got, want)
	}
	var whileMade []string
	if err := s.Keep([]byte("d"), func(path string) error {
		if err := os.WriteFile(path, make([]byte, 10), 0o644); err != nil {
			return err
		}
		keep(t, s, "c", bytes.Repeat([]byte("c"), 100))
		_, _, err := Clear()
		whileMade = names(t, filepath.Dir(path))
		return err
	}); err != nil || !slices.Equal(whileMade, []string{"file.npz"}) {
		t.Errorf("what is being made was taken for a leftover: %v, %v", whileMade, err)
	}
	if _, parts, err := Parts(); err != nil || len(parts) != 1 || parts[0].Files != 3 || parts[0].Bytes != 2010 || parts[0].Limit != Features.Limit {
		t.Errorf("parts %+v, %v", parts, err)
	}
	if files, size, err := Clear(); files != 1 || size != 10 || err != nil {
		t.Errorf("Clear: %d files, %d bytes, %v", files, size, err)
	}
	if got := names(t, folder); !slices.Equal(got, []string{"mine", "other.txt"}) {
		t.Errorf("after Clear: %v", got)
	}
}

// What a killed process was making is gone after the next one has made something.
func TestKilledProcess(t *testing.T) {
	const marker = "CACHE_TEST_WRITES_AND_HANGS"
	if os.Getenv(marker) != "" {
		Features.Keep([]byte("killed"), func(path string) error {
			if err := os.WriteFile(path, make([]byte, 1000), 0o644); err != nil {
				return err
			}
			os.Stdout.WriteString("written\n")
			time.Sleep(time.Minute)
			return nil
		})
		return
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	child := exec.Command(os.Args[0], "-test.run=TestKilledProcess")
	child.Env = append(os.Environ(), marker+"=1")
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 8)
	if _, err := out.Read(buffer); err != nil {
		t.Fatal(err)
	}
	folder, _ := Features.folder()
	keep(t, Features, "beside", []byte("beside"))
	if got := names(t, folder); len(got) != 2 {
		t.Errorf("while the other is at work: %v", got)
	}
	child.Process.Kill()
	child.Wait()
	keep(t, Features, "after", []byte("after"))
	if got := names(t, folder); len(got) != 2 || slices.ContainsFunc(got, scratch.MatchString) {
		t.Errorf("after it was killed: %v", got)
	}
}
