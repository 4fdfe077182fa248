package main

import (
	"path/filepath"
	"testing"

	"sagbench/internal/tiny"
)

// Every family of the embedded models draws an image with guidance.
func TestFamiliesDraw(t *testing.T) {
	results := t.TempDir()
	succeed(t, "run", filepath.Join(tiny.Root(), "configs/families.yaml"), "samples=1", "sampler.ddpm.steps=1", "metrics=[]", "guidance.sag.scale=0.5", "--results", results)
	for _, family := range []string{"ADM", "IDDPM", "DiT", "SD"} {
		if pixels := drawnPixels(t, filepath.Join(results, "families"), family); len(pixels) != 32*32*3 {
			t.Errorf("%s: %d bytes of pixels", family, len(pixels))
		}
	}
}
