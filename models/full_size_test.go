//go:build slow

package models

import (
	"context"
	"math"
	"path/filepath"
	"testing"
	"time"

	"sagbench/models/checkpoint/randomweights"
	"sagbench/sampling"
)

// TestFullSize builds and runs ADM 256×256 unconditional, 553 M parameters, on
// random weights of the true shapes: a 2.2 GB checkpoint, one call.
func TestFullSize(t *testing.T) {
	c := newADM()
	official["256x256_diffusion_uncond"].flags(c)
	shapes, err := c.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "256x256_diffusion_uncond.pt")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m, err := c.Open(path, Options{Taps: []sampling.Tap{{Layer: "output_blocks.2.1", Heads: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	opened := time.Since(start)
	x := noise(t, 1, 3, 256, 256)
	p, err := m.(Generator).Denoise(context.Background(), x, sampling.Timestep{Value: 500}, sampling.Cond{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("prepared in %s, one call in %s", opened, time.Since(start)-opened)
	var square float64
	for _, v := range p.Eps.Data {
		square += float64(v) * float64(v)
	}
	if rms := math.Sqrt(square / float64(len(p.Eps.Data))); math.IsNaN(rms) || rms < 1e-3 || rms > 1e3 {
		t.Errorf("root mean square of ε is %g", rms)
	}
	if p.Attn.RowLen() != 64 {
		t.Errorf("the map of output_blocks.2.1 has %d positions, want 8×8", p.Attn.RowLen())
	}
}
