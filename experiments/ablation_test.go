package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/sampling/guidance"
)

// embeddedFamilies are the labels of configs/families-fashion.yaml.
var embeddedFamilies = []string{"ADM", "IDDPM", "DiT", "SD"}

// The experiments on the embedded models have a row for each family and value,
// and nothing but the swept path differs within a family.
func TestFamilyExperiments(t *testing.T) {
	for _, c := range []struct{ name, swept, values string }{
		{"families", "s", "0 0.5"},
		{"ablation-scale", "s", "0 0.1 0.3 0.5 0.8"},
		{"ablation-blur", "blur_sigma", "0.5 1 1.5 3 5"},
		{"ablation-threshold", "mask_threshold", "0 0.5 1 1.5 2"},
		{"ablation-mask", "mask", "none high_frequency random square self_attention"},
	} {
		e, err := loadExperiment(filepath.Join("../configs", c.name+".yaml"), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		var got, want []string
		for _, r := range e.rows {
			got = append(got, r.title())
			if len(r.settings) != 1 || len(r.metrics) != 5 || len(r.taps) > 1 || r.Samples <= 256 {
				t.Errorf("%s: %s: %v, %d metrics of %d images, %d tapped layers", c.name, r.title(), r.settings, len(r.metrics), r.Samples, len(r.taps))
			}
		}
		for _, family := range embeddedFamilies {
			for _, value := range strings.Fields(c.values) {
				want = append(want, fmt.Sprintf("%s %s=%s", family, c.swept, value))
			}
		}
		if e.name != c.name || !slices.Equal(got, want) {
			t.Errorf("%s: rows %q, want %q", e.name, got, want)
		}
	}
}

// configs/guidances.yaml compares every guidance but the classifier's, which has
// a table of its own, with its network alone.
func TestGuidancesExperiment(t *testing.T) {
	e, err := loadExperiment("../configs/guidances.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	baselines, compared := 0, []string{"classifier"}
	for _, r := range e.rows {
		if len(r.guidances) == 0 {
			baselines++
			continue
		}
		if name := r.guidances[0].Name; len(r.guidances) == 1 && !slices.Contains(compared, name) {
			compared = append(compared, name)
		}
	}
	if slices.Sort(compared); baselines != 2 || !slices.Equal(compared, guidance.Registry.Names()) {
		t.Errorf("%d baselines, and rows of %v; want 2 and %v", baselines, compared, guidance.Registry.Names())
	}
}

// Every family of the embedded models draws an image with guidance.
func TestFamiliesDraw(t *testing.T) {
	results := t.TempDir()
	succeed(t, "run", "../configs/families.yaml", "samples=1", "sampler.ddpm.steps=1", "metrics=[]", "guidance.sag.scale=0.5", "--results", results)
	for _, family := range embeddedFamilies {
		if pixels := drawnPixels(t, filepath.Join(results, "families"), family); len(pixels) != 32*32*3 {
			t.Errorf("%s: %d bytes of pixels", family, len(pixels))
		}
	}
}
