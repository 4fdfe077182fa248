package submit

import (
	"slices"
	"testing"

	"sagbench/experiments/run"
	"sagbench/models/ort"
)

// What is said of the device reaches the tasks.
func TestRuntimeOfTasks(t *testing.T) {
	j := &job{Options: Options{
		Options: run.Options{Results: "results", Runtime: ort.Options{Threads: 3, AllowFallback: true, HostLoop: true}},
		Devices: []string{"cuda:0"}, Args: []string{"table1.yaml"},
	}}
	if err := j.locate(); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{{"--device", "cuda:0"}, {"--threads", "3"}, {"--allow-fallback"}, {"--host-loop"}} {
		if at := slices.Index(j.Run, want[0]); at < 0 || !slices.Equal(j.Run[at:][:len(want)], want) {
			t.Errorf("%v: expected %v", j.Run, want)
		}
	}
}
