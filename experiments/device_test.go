//go:build device

package main

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/ort"
)

// .ci/device.sh runs these on the device that the variable names.
const testedDevice = "SAGBENCH_TEST_DEVICE"

// onDevice is an experiment of units of two images of the embedded DiT, whose
// autoencoder convolves: small enough for a GPU in software.
func onDevice(t *testing.T) (file string, args []string) {
	device := os.Getenv(testedDevice)
	if device == "" {
		t.Fatalf("$%s is not set; .ci/device.sh sets it", testedDevice)
	}
	file = filepath.Join(t.TempDir(), "device.yaml")
	tiny.Write(t, file, strings.ReplaceAll(`name: device
samples: 8
batch: 2
model: {family: dit, checkpoint: ROOT/models/pretrained/dit.pt, depth: 6, hidden_size: 128, input_size: 16, learn_sigma: true,
  num_classes: 10, num_heads: 4, patch_size: 2, vae: ROOT/models/pretrained/sd/vae, vae_scaling_factor: 1.049873}
sampler: {ddpm: {steps: 2}}
guidance: {sag: {scale: 0.5, layer: blocks.3.attn, blur_sigma: 1.5, blur_kernel: 9}}
reference: ROOT/models/pretrained/reference.npz
inception: {checkpoint: ROOT/models/pretrained/inception.pt, input_size: 107}
metrics: [fid]
`, "ROOT", tiny.Root()))
	return file, []string{"--device", device}
}

// drawnIn is what was drawn into a folder of results: the hashes of its samples.
func drawnIn(t *testing.T, results string) map[string]string {
	drawn := tiny.Tree(t, results)
	maps.DeleteFunc(drawn, func(name, _ string) bool { return !strings.Contains(name, "samples") })
	return drawn
}

// A unit is the same bytes on one device whatever else is drawn there: all of them by
// one process, each by one that is killed after it, and several at once.
func TestUnitsOfDevice(t *testing.T) {
	file, device := onDevice(t)
	draw := func(results string, args ...string) {
		succeed(t, slices.Concat([]string{"sample", file, "--results", results}, args)...)
	}
	whole, again, several := t.TempDir(), t.TempDir(), t.TempDir()
	draw(whole, device...)
	p := program(append([]string{"sample", file, "--results", again}, device...)...)
	p.start(t)
	for len(shards(again)) == 0 && !hasEnded(p) {
		time.Sleep(time.Millisecond)
	}
	p.Process.Kill()
	if status := p.status(t); status != -1 {
		t.Fatalf("exit status %d before a unit was drawn\n%s", status, &p.stderr)
	}
	draw(again, device...)
	draw(several, "--devices", device[1]+","+device[1])
	want := drawnIn(t, whole)
	if len(want) == 0 {
		t.Fatal("nothing was drawn")
	}
	t.Log("after a restart")
	tiny.Same(t, drawnIn(t, again), want)
	t.Log("two processes on one device")
	tiny.Same(t, drawnIn(t, several), want)
}

// The images of a device, and their features, are those of the CPU but for rounding.
func TestFIDOfDevice(t *testing.T) {
	file, device := onDevice(t)
	score := func(args ...string) (float64, *store.Metrics) {
		results := t.TempDir()
		succeed(t, slices.Concat([]string{"run", file, "--results", results}, args)...)
		found, err := store.FindMetrics(results)
		if err != nil || len(found) != 1 {
			t.Fatal(len(found), err)
		}
		return found[0].Scores[0].Value, found[0]
	}
	there, m := score(device...)
	here, _ := score("--device", "cpu")
	t.Logf("FID %.4f on %s, %.4f on the CPU: %+.4f", there, device[1], here, there-here)
	if math.IsNaN(there) || math.Abs(there-here) >= 0.05 {
		t.Errorf("FID %v, on the CPU %v: more than 0.05 apart", there, here)
	}
	full, err := ort.ParseDevice(device[1])
	if err != nil {
		t.Fatal(err)
	}
	if full.Name != "cpu" && (len(m.Placements) == 0 || m.Placements[0].Device != full.String()) {
		t.Errorf("the result says that it was drawn by %+v", m.Placements)
	}
	if !strings.HasPrefix(device[1], "openvino") && device[1] != "cpu" { // which has a memory of its own
		byHost, n := score(append(device, "--host-loop")...)
		t.Logf("FID %.4f with states that go through the host", byHost)
		if stay := m.Placements[0].Loop; stay != "states stay on the device" || n.Placements[0].Loop != "states go through the host at each step: --host-loop" || math.Abs(there-byHost) >= 0.02 {
			t.Errorf("FID %v, %s; by way of the host %v, %q", there, stay, byHost, n.Placements[0].Loop)
		}
	}
}
