package eval

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sagbench/eval/neighbours"
)

// Every protocol reads every metric, under one name and with options that are
// valid, and the programs' own readings are those of docs/evaluation.md.
func TestProtocols(t *testing.T) {
	names := slices.Sorted(maps.Keys(Metrics))
	for name := range Protocols {
		p, err := ProtocolOf(name)
		if err != nil || p.Name != name || p.Source == "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if found := slices.Sorted(maps.Keys(p.Metrics)); !slices.Equal(found, names) {
			t.Errorf("%s: metrics %v, expected %v", name, found, names)
		}
		for _, own := range p.Own {
			if p.Metrics[own] == nil {
				t.Errorf("%s: no metric %q", name, own)
			}
		}
		for metric, build := range p.Metrics {
			if m := build(); m.Column().Name != metric {
				t.Errorf("%s: %s builds %s", name, metric, m.Column().Name)
			} else if v, ok := m.(interface{ Validate() error }); ok && v.Validate() != nil {
				t.Errorf("%s: %s: %v", name, metric, v.Validate())
			}
		}
	}
	if _, err := ProtocolOf("tf-fid"); err == nil || !strings.Contains(err.Error(), "torch-fidelity") {
		t.Errorf("unknown protocol: %v", err)
	}
	if m := Protocols["torch-fidelity"].Metrics["is"]().(*InceptionScore); m.Splits != 10 || !m.Shuffle {
		t.Errorf("torch-fidelity's IS: %+v", m)
	}
	if m := Protocols["pytorch-fid"].Metrics["fid"]().(*FID); m.Mean != MeanFloat64 {
		t.Errorf("pytorch-fid's FID: %+v", m)
	}
	if m := Protocols["adm"].Metrics["precision"]().(*Precision); m.K != 3 || m.Distance != neighbours.DistanceADM {
		t.Errorf("adm's precision: %+v", m)
	}
}

// With independent features the root of (Σ₁+εI)(Σ₂+εI) is Σ√((σ₁²+ε)(σ₂²+ε)).
func TestOffset(t *testing.T) {
	a := &Stats{Mean: []float64{0, 0, 1}, Cov: []float64{4, 0, 0, 0, 0, 0, 0, 0, 9}}
	b := &Stats{Mean: []float64{0, 0, 0}, Cov: []float64{1, 0, 0, 0, 25, 0, 0, 0, 0}}
	const e = 1e-6
	root := math.Sqrt((4+e)*(1+e)) + math.Sqrt(e*(25+e)) + math.Sqrt((9+e)*e)
	f, err := (&FID{Mean: MeanFloat64, Offset: e}).distance(a, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "distance", f.Distance, 1+4+9+1+25-2*root, 1e-12)
	if a.Cov[0] != 4 {
		t.Error("the statistics themselves were changed")
	}
	if (&FID{Mean: MeanFloat64, Offset: math.NaN()}).Validate() == nil {
		t.Error("an offset that is no number")
	}
}

func TestShrink(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	ref, gen := gaussians(r, 60, 4, 0), gaussians(r, 50, 4, 0.2)
	m := &KID{Subsets: 5, SubsetSize: 1000, Seed: 1}
	if _, err := m.Score(t.Context(), ref, gen); err == nil {
		t.Error("subsets of 1000 of 50 images")
	}
	m.Shrink = true
	if s := value(t, m, ref, gen); !strings.Contains(s.Note, "subsets of 50") || s.Std == 0 {
		t.Errorf("%+v", s)
	}
}
