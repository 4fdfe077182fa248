//go:build slow

package features

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
)

// TestFullSizeDINOv2 runs ViT-L/14, 304 M parameters, at 224×224 on random
// weights of the true shapes. SAGBENCH_FULL_SIZE keeps the checkpoint in a
// folder.
func TestFullSizeDINOv2(t *testing.T) {
	folder := os.Getenv("SAGBENCH_FULL_SIZE")
	if folder == "" {
		folder = t.TempDir()
	}
	path := filepath.Join(folder, "dinov2_vitl14_random.pth")
	if _, err := os.Stat(path); err != nil {
		shapes, err := newDINOv2().Parameters("ViT-L/14")
		if err != nil {
			t.Fatal(err)
		}
		if err := randomweights.Write(path, shapes, 1); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	n, err := newDINOv2().Extractor(t.Context(), path, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	t.Logf("opened in %s, %s", time.Since(start), peak(t))
	for _, batch := range []int{1, 8, 32} {
		best := time.Duration(math.MaxInt64)
		for range 3 {
			start = time.Now()
			x, err := n.Input(PIL, congruential(batch, 256, 256))
			if err != nil {
				t.Fatal(err)
			}
			out, err := n.Run(context.Background(), x, Pool)
			if err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
			pool, square := out[Pool].Tensor(), 0.0
			for _, v := range pool.Data {
				square += float64(v) * float64(v)
			}
			if rms := math.Sqrt(square / float64(len(pool.Data))); math.Abs(rms-1) > 1e-3 {
				t.Errorf("root mean square of the features is %g, want 1 after a LayerNorm with gain 1", rms)
			}
		}
		t.Logf("batch %d: %.2f images/s, %s", batch, float64(batch)/best.Seconds(), peak(t))
	}
}

// TestFullSizeInception holds the FID Inception of official size, on random
// weights, to the same features in any batch.
func TestFullSizeInception(t *testing.T) {
	c := &Inception{InputSize: 299, Width: 2048}
	shapes, err := c.Parameters(1008)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "inception.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	n, err := c.Extractor(t.Context(), path, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	sameInAnyBatch(t, n, congruential(9, 64, 64))
}

// peak is the process's largest resident memory so far, where Linux tells.
func peak(t *testing.T) string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "peak memory unknown"
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(lines, ", ")
}
