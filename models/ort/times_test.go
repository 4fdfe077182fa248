package ort

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sagbench/sampling/tensor"
)

// The times of a profile are summed by provider; what is no node counts for nothing.
func TestProfiled(t *testing.T) {
	folder := t.TempDir()
	profile := `[{"cat":"Session","name":"model_run","dur":99,"args":{}},
{"cat":"Node","name":"conv_fence_before","dur":5,"args":{"op_name":"Conv"}},
{"cat":"Node","name":"conv_kernel_time","dur":1200,"args":{"provider":"CUDAExecutionProvider","op_name":"Conv"}},
{"cat":"Node","name":"cos_kernel_time","dur":30,"args":{"provider":"CPUExecutionProvider"}},
{"cat":"Node","name":"sin_kernel_time","dur":20,"args":{"provider":"CPUExecutionProvider"}}]`
	if err := os.WriteFile(filepath.Join(folder, "call_2026.json"), []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Times{810, 2 * time.Millisecond, profiled(folder)}.String()
	if want := "a call of 810 nodes took 2ms, of which by the host's clock CUDAExecutionProvider 1.2ms, CPUExecutionProvider 50µs"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if by := profiled(t.TempDir()); len(by) != 0 {
		t.Errorf("%v of no profile", by)
	}
}

// The second call on a device is timed, once; on the CPU none is.
func TestTimed(t *testing.T) {
	device := os.Getenv("SAGBENCH_TEST_DEVICE")
	var told []Times
	s := doubled(t, Options{Device: device, Threads: 1, Timed: func(x Times) { told = append(told, x) }})
	for range 4 {
		if _, err := s.Run(t.Context(), map[string]Array{"x": Floats(tensor.New(2, 3))}); err != nil {
			t.Fatal(err)
		}
	}
	if device == "" {
		if len(told) != 0 {
			t.Errorf("%v on the CPU", told)
		}
		return
	}
	if len(told) != 1 || told[0].Nodes != len(s.Model().Nodes) || len(told[0].By) == 0 || told[0].Call <= 0 {
		t.Errorf("%v", fmt.Sprint(told))
	}
	t.Log(told)
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "sagbench-profile-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
