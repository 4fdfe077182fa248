package store

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"sagbench/sampling/tensor"
)

// smallTrace is a trace of two steps of three images.
func smallTrace() *Trace {
	t := &Trace{Key: "0123456789", Images: 3, Height: 4, Width: 2}
	for k := range 2 {
		s := TraceStep{Index: 1 - k, Time: float64(10 * (1 - k)), Mask: tensor.New(3, 1, 4, 2), Attention: tensor.New(3, 8)}
		for i := range 3 * 4 * 2 * 3 {
			s.XStart, s.Degraded, s.Guided = append(s.XStart, uint8(i)), append(s.Degraded, uint8(2*i)), append(s.Guided, uint8(3*i+k))
		}
		for i := range s.Mask.Data {
			s.Mask.Data[i], s.Attention.Data[i] = float32(i%2), float32(i)/7
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

// A trace is read as it was written; with one flipped byte it is an error, or the
// same trace.
func TestTraceDamage(t *testing.T) {
	for _, want := range []*Trace{smallTrace(), {Key: "0123456789"}} {
		damageTrace(t, want)
	}
}

func damageTrace(t *testing.T, want *Trace) {
	path := filepath.Join(t.TempDir(), TraceFile)
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTrace(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%+v\n%+v", err, got, want)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(16, 1))
	for range 300 {
		data := append([]byte{}, whole...)
		at := random.IntN(len(data))
		data[at] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadTrace(path); err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("byte %d: another trace, without an error", at)
		}
	}
	for n := 0; n < len(whole); n += 7 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTrace(path); err == nil {
			t.Fatalf("%d of %d bytes are no error", n, len(whole))
		}
	}
}
