package models

import (
	"context"
	"slices"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// TestSessions: as many sessions are kept as the weights allow, the last used.
func TestSessions(t *testing.T) {
	opened := 0
	s := NewSessions(checkpoint.StateDict{"w": {Shape: []int{sessionLimit / 3}}}, func(width int) (*ort.Session, error) {
		opened++
		m, err := onnx.Build(nil, func(m *onnx.Module) {
			x := m.Input("x", checkpoint.F32, onnx.Batch, width)
			m.Output("y", m.Add(x, x))
		})
		if err != nil {
			return nil, err
		}
		return ort.Open(m, ort.Options{})
	})
	defer s.Close()
	run := func(widths ...int) (kept []int) {
		for _, width := range widths {
			if _, err := s.Run(context.Background(), width, map[string]ort.Array{"x": ort.Floats(tensor.New(2, width))}); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range s.kept {
			kept = append(kept, k.key)
		}
		return kept
	}
	if kept, want := run(1, 2, 1, 3), []int{2, 1, 3}; !slices.Equal(kept, want) || opened != 3 {
		t.Errorf("kept sessions of %v of %d, want %v of 3", kept, opened, want)
	}
	s.Rest()
	if kept, want := run(4, 3), []int{1, 4, 3}; !slices.Equal(kept, want) || opened != 4 {
		t.Errorf("kept sessions of %v of %d, want %v of 4", kept, opened, want)
	}
}
