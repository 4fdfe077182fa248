package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sagbench/eval"
	"sagbench/eval/images"
)

// flips calls check 200 times with one byte of a file changed, at places and in
// ways that a fixed seed gives; the file is whole again in the end. It returns how
// many of the flips check calls found.
func flips(t *testing.T, path string, check func() (found bool)) (found int) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(13, 5))
	for range 200 {
		bad := bytes.Clone(whole)
		bad[random.IntN(len(bad))] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if check() {
			found++
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	return found
}

// someMetrics are results with something in every field.
func someMetrics() *Metrics {
	file := InputFile{"a.npz", strings.Repeat("0", 64)}
	return &Metrics{
		Format: MetricsFormat, Experiment: "e", Run: "0123456789", Row: 1, Label: "Cat", Settings: []Setting{{"guidance.sag.scale", "0.5"}},
		Samples: 16, Evaluation: "9876543210", Protocol: "adm", Bootstrap: 40, Notes: []string{"a note"},
		Scores: []Score{{Name: "fid", Title: "FID", Value: 12.3456789, Direction: LowerIsBetter, Decimals: 2, Note: "how",
			Interval: &eval.Interval{Low: 11, High: 13}, Warnings: []string{"beware"}}},
		Published: map[string]float64{"fid": 2.5}, Inputs: Inputs{Checkpoint: file, Reference: file, Networks: map[string]InputFile{"inception": file}, Samples: file},
		Versions: map[string]string{"sagbench": Version}, Config: json.RawMessage(`{"seed":7}`),
	}
}

// One changed byte of a file of results is found when the file is read, or changes
// nothing of what is read: never another number.
func TestFlippedBytes(t *testing.T) {
	t.Run("metrics.json and bootstrap.csv", func(t *testing.T) {
		folder, m := t.TempDir(), someMetrics()
		draws := &Replicates{Names: []string{"fid"}, Values: map[string][]float64{}}
		for b := range 40 {
			draws.Values["fid"] = append(draws.Values["fid"], 12+float64(b)/7)
		}
		var err error
		if m.Draws, err = draws.Sum(); err != nil {
			t.Fatal(err)
		}
		if err := draws.Write(folder); err != nil {
			t.Fatal(err)
		}
		if err := m.Write(folder); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, MetricsFile)
		back, err := ReadMetrics(path)
		if err != nil {
			t.Fatal(err)
		}
		if back.Folder = ""; !reflect.DeepEqual(back.Scores, m.Scores) || !reflect.DeepEqual(back.Notes, m.Notes) || back.Checksum != m.Checksum || len(m.Checksum) != 64 {
			t.Errorf("read back: %+v", back)
		}
		n := flips(t, path, func() bool { _, err := ReadMetrics(path); return err != nil })
		if n != 200 {
			t.Errorf("metrics.json: %d of 200 flipped bytes were found", n)
		}
		n = flips(t, filepath.Join(folder, BootstrapFile), func() bool { _, err := ReadReplicates(folder, 40); return err != nil })
		if n != 200 {
			t.Errorf("bootstrap.csv: %d of 200 flipped bytes were found", n)
		}
		if _, err := ReadReplicates(folder, 40); err != nil {
			t.Error(err)
		}
	})
	t.Run("devices.json", func(t *testing.T) {
		folder := t.TempDir()
		want := []Placement{{Graph: "0123456789", Device: "cuda:0", Hardware: "NVIDIA", Precision: "float16", Nodes: map[string]int{"CUDAExecutionProvider": 810, "CPUExecutionProvider": 6}, Elsewhere: map[string]int{"Cos": 6}}}
		if err := AddPlacements(folder, want); err != nil {
			t.Fatal(err)
		}
		if back, err := ReadPlacements(folder); err != nil || !reflect.DeepEqual(back, want) {
			t.Fatalf("read back: %+v, %v", back, err)
		}
		n := flips(t, filepath.Join(folder, DevicesFile), func() bool {
			_, err := ReadPlacements(folder)
			return err != nil && AddPlacements(folder, want) != nil
		})
		if n != 200 {
			t.Errorf("devices.json: %d of 200 flipped bytes were found", n)
		}
	})
	t.Run("eval's JSON", func(t *testing.T) {
		for _, sets := range [][]*Evaluation{{drawn("a")}, {drawn("a"), drawn("b")}} {
			data, err := (&Evaluations{Format: EvaluationFormat, Evaluations: sets}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "eval.json")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadEvaluations(path); err != nil {
				t.Fatal(err)
			}
			if n := flips(t, path, func() bool { _, err := ReadEvaluations(path); return err != nil }); n != 200 {
				t.Errorf("%d of 200 flipped bytes were found", n)
			}
		}
	})
	t.Run("search/round-1.json", func(t *testing.T) {
		folder, quiet := t.TempDir(), func(string) {}
		want := &SearchRound{Format: SearchFormat, Round: 1, Images: 10, Search: SearchRule{Metrics: []string{"fid"}, Budget: 100, First: 10, Eta: 2},
			Rows: []SearchRow{{Title: "s=0"}, {Row: 1, Title: "s=1", Dropped: true, Differences: []SearchDifference{{Metric: "fid", Value: 12.5, Low: 1, High: 3}}}}}
		if err := want.Write(folder); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadSearchRound(folder, 1, quiet); err != nil || !reflect.DeepEqual(r, want) {
			t.Fatalf("read back: %+v, %v", r, err)
		}
		n := flips(t, filepath.Join(folder, SearchFolder, "round-1.json"), func() bool {
			r, err := ReadSearchRound(folder, 1, quiet) // nil: the round is decided again
			return r == nil || err != nil
		})
		if n != 200 {
			t.Errorf("%d of 200 flipped bytes were found", n)
		}
	})
	t.Run("features.npz", func(t *testing.T) {
		for _, n := range []int{3, 9} { // no more images than features: their rows are kept
			rows := make([]float32, n*4)
			for i := range rows {
				rows[i] = float32(i*i%17) / 3
			}
			stats, err := eval.StatsOf(rows, 4, nil)
			if err != nil {
				t.Fatal(err)
			}
			f := &eval.Features{N: n, D: 4, Pool: rows, Stats: stats, Spatial: stats, Logits: rows, SpatialRows: rows, Outputs: map[string][]float32{"extra": rows}}
			read := images.Report{Decoded: n, Converted: map[images.Conversion]int{images.Grey: 2}, Broken: []images.Broken{{Name: "b.png", Err: os.ErrInvalid}}}
			path, key, want := filepath.Join(t.TempDir(), "features.npz"), []byte("key"), eval.Parts{Pool: true, Stats: true, Spatial: true, Logits: true, SpatialRows: true, Outputs: "extra"}
			if err := WriteFeatures(path, key, f, read); err != nil {
				t.Fatal(err)
			}
			wantFeatures, wantReport, ok := ReadFeatures(path, key, want)
			if !ok || fmt.Sprint(wantReport) != fmt.Sprint(read) || !reflect.DeepEqual(wantFeatures.Pool, rows) {
				t.Fatalf("read back: %v %+v %+v", ok, wantReport, wantFeatures)
			}
			flips(t, path, func() bool {
				f, r, ok := ReadFeatures(path, key, want)
				if ok && (!reflect.DeepEqual(f, wantFeatures) || !reflect.DeepEqual(r, wantReport)) {
					t.Errorf("a changed byte gave other features: %+v %+v", f, r)
				}
				return !ok
			})
		}
	})
	t.Run("samples", func(t *testing.T) {
		s := &Images{Folder: filepath.Join(t.TempDir(), "samples"), Height: 2, Width: 1, Classes: 10, Seed: 5}
		want := numbered(0, 40)
		if err := s.Put(Span{0, 40}, want); err != nil {
			t.Fatal(err)
		}
		read := func(path string) {
			found := flips(t, path, func() bool {
				var notes []string
				if err := s.Scan(40, true, func(n string) { notes = append(notes, n) }); err != nil {
					t.Fatal(err)
				}
				if len(s.Missing(40)) > 0 { // its images are drawn again
					return len(notes) > 0
				}
				var got []uint8
				err := s.Each(t.Context(), Span{0, 40}, func(pixels []uint8) error { got = append(got, pixels...); return nil })
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("a changed byte gave other images (%v)", err)
				}
				return false
			})
			if found == 0 {
				t.Errorf("%s: no flipped byte was found", path)
			}
		}
		read(filepath.Join(s.Folder, "000000-000039.npz"))
		if err := s.Scan(40, true, func(string) {}); err != nil {
			t.Fatal(err)
		}
		if err := s.Merge(t.Context(), 40); err != nil {
			t.Fatal(err)
		}
		whole := filepath.Join(s.Folder, "samples_40x2x1x3.npz")
		read(whole)
		flips(t, whole, func() bool { // the first images of a file that nobody has looked through
			opened, err := OpenImages(whole)
			if err != nil || opened.Missing(5) != nil {
				return true
			}
			var got []uint8
			err = opened.Each(t.Context(), Span{0, 5}, func(pixels []uint8) error { got = append(got, pixels...); return nil })
			if err == nil && !bytes.Equal(got, want[:len(got)]) {
				t.Errorf("a changed byte gave other images")
			}
			return err != nil
		})
		data, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		data[bytes.LastIndex(data, numbered(39, 40))] ^= 1 // the last image
		if err := os.WriteFile(whole, data, 0o600); err != nil {
			t.Fatal(err)
		}
		opened, err := OpenImages(whole)
		if err != nil {
			t.Fatal(err)
		}
		if err := opened.Each(t.Context(), Span{0, 5}, func([]uint8) error { return nil }); err == nil || !strings.Contains(err.Error(), "samples_40x2x1x3.npz: arr_0: the data is damaged") {
			t.Errorf("the first images of a damaged file: %v", err)
		}
	})
}
