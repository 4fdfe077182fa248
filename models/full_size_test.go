//go:build slow

package models

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sagbench/models/checkpoint/randomweights"
	"sagbench/sampling"
)

// TestFullSize builds and runs the biggest official network of each family over
// pixels or with class labels on random weights of the true shapes: a checkpoint
// of up to 2.7 GB, one call with a map.
func TestFullSize(t *testing.T) {
	adm, iddpm, dit := NewADM(), NewIDDPM(), NewDiT()
	official["256x256_diffusion_uncond"].flags(adm)
	iddpm.NumChannels, iddpm.NumResBlocks, iddpm.LearnSigma, iddpm.ClassCond = 192, 3, true, true
	dit.Model = "DiT-XL/2"
	for _, c := range []struct {
		name      string
		family    WithParameters
		tap       sampling.Tap
		positions int
	}{
		{"256x256_diffusion_uncond", adm, sampling.Tap{Layer: "output_blocks.2.1", Heads: 4}, 8 * 8},
		{"imagenet64_cond_270M_250K", iddpm, sampling.Tap{Layer: "output_blocks.2.1"}, 8 * 8},
		{"DiT-XL-2-256x256", dit, sampling.Tap{Layer: "blocks.13.attn"}, 16 * 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			shapes, err := c.family.Parameters()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), c.name+".pt")
			if err := randomweights.Write(path, shapes, 1); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			m, err := c.family.Open(path, Options{Taps: []sampling.Tap{c.tap}})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			opened := time.Since(start)
			if opened > time.Second {
				t.Errorf("opening took %s; it should read the headers alone", opened)
			}
			g := m.(Generator)
			x := noise(t, append([]int{1}, g.SampleShape()...)...)
			p, err := g.Denoise(context.Background(), x, sampling.Timestep{Value: 500}, sampling.Cond{Labels: []int64{7}})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("opened in %s, the first call in %s, %s", opened, time.Since(start)-opened, peak(t))
			var square float64
			for _, v := range p.Eps.Data {
				square += float64(v) * float64(v)
			}
			if rms := math.Sqrt(square / float64(len(p.Eps.Data))); math.IsNaN(rms) || rms < 1e-3 || rms > 1e3 {
				t.Errorf("root mean square of ε is %g", rms)
			}
			if p.Attn.RowLen() != c.positions {
				t.Errorf("the map of %s has %d positions, want %d", c.tap.Layer, p.Attn.RowLen(), c.positions)
			}
		})
	}
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
