package run

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/loop"
	"sagbench/models/ort"
)

// Every embedded family that can be called on a device draws the same images, but for
// rounding, by way of the host and with states that stay where they are; here they stay in
// the CPU's memory, and the graphs are those of any device.
func TestStatesThatStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "families.yaml")
	tiny.Write(t, file, "include: "+filepath.Join(tiny.Root(), "configs/families-fashion.yaml")+"\n")
	e, err := plan.Load(file, []string{"guidance.sag.scale=0.5", "sampler.ddpm.steps=4"})
	if err != nil {
		t.Fatal(err)
	}
	at := store.Span{From: 1, To: 4}
	opt := ort.Options{Device: os.Getenv("SAGBENCH_TEST_DEVICE")}
	for _, r := range e.Rows {
		n, err := OpenRow(t.Context(), r, opt)
		if err != nil {
			t.Fatal(err)
		}
		b, err := begin(t.Context(), r, n, at)
		if err != nil {
			t.Fatal(err)
		}
		want, err := b.sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.closeStages()
		n.stages = loop.NewStages(opt)
		steps := 0
		got, err := b.onDevice(t.Context(), func(int, int) { steps++ })
		if err != nil || n.way != "states stay on the device" || steps != 4 {
			t.Fatalf("%s: %v, %s, %d steps", r.Title(), err, n.way, steps)
		}
		mean, largest := 0.0, 0.0
		for i, v := range want.Data {
			d := math.Abs(float64(got.Data[i] - v))
			mean, largest = mean+d/float64(len(want.Data)), max(largest, d)
		}
		t.Logf("%s: largest %.2g, mean %.2g", r.Title(), largest, mean)
		if mean > 1e-4 {
			t.Errorf("%s: off by %.2g, %.2g in the mean", r.Title(), largest, mean)
		}
		n.Close()
	}
}

// The record of a row's devices holds the graphs of its networks and those between their
// calls, and none of a row that was drawn before; and it tells of --host-loop.
func TestRecordedLoop(t *testing.T) {
	e := load(t, tiny.Experiment(t, t.TempDir()), "metrics=[]")
	o := options(t, t.TempDir())
	o.Progress.Quiet = true
	s := newSession(e, o)
	defer s.close()
	if err := s.identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, r := range s.runs[:2] {
		if err := s.prepare(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		keys, err := networkKeys(r.Row, r.Contents)
		if err != nil {
			t.Fatal(err)
		}
		for _, graph := range []struct{ key, name string }{{keys[0], "network"}, {loopKey, fmt.Sprintf("row %d", i)}} {
			s.runtimeOf(graph.key).Placed(ort.Placement{Graph: graph.name + "          ", Device: "webgpu:0"})
		}
		if err := s.recordDevices(r, 0); err != nil {
			t.Fatal(err)
		}
		found, err := store.ReadPlacements(r.Folder)
		if err != nil || len(found) != 2 {
			t.Errorf("row %d: %d graphs, expected its network's and one between: %+v, %v", i, len(found), found, err)
		}
	}
	for device, want := range map[string]string{"webgpu:0": throughHost + "--host-loop", "cpu": "", "openvino": ""} {
		n := &Network{}
		if n.prepareLoop(ort.Options{Device: device, HostLoop: true}); n.way != want || n.stages != nil {
			t.Errorf("%s: %q, expected %q", device, n.way, want)
		}
	}
}
