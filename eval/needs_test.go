package eval

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// What each metric needs of the two sets, and how many images.
func TestNeeds(t *testing.T) {
	stats, rows, spatial := Parts{Stats: true}, Parts{Pool: true, Stats: true}, Parts{Stats: true, Spatial: true}
	for name, build := range Metrics {
		m, want, images := build(), Needs{rows, rows}, 2
		switch name {
		case "fid", "fd_dinov2":
			want = Needs{stats, stats}
		case "sfid":
			want = Needs{spatial, spatial}
		case "is":
			want = Needs{stats, Parts{Pool: true, Stats: true, Logits: true}}
		case "precision", "recall":
			images = 4
		case "density", "coverage", "prdc_precision", "prdc_recall":
			images = 6
		case "kid":
			images = 1000
		case "clip_score": // nothing of the reference
			want, images = Needs{Parts{}, rows}, 1
		}
		if got := NeedsOf(m); got != want || m.MinImages() != images {
			t.Errorf("%s needs %+v and %d images, want %+v and %d", name, got, m.MinImages(), want, images)
		}
	}
	for _, m := range []*KID{{}, {Subsets: 10, SubsetSize: 1000, Shrink: true}} {
		if m.MinImages() != 2 {
			t.Errorf("%+v needs %d images, want 2", m, m.MinImages())
		}
	}
	if got, want := NeedsOf(), (Needs{stats, stats}); got != want {
		t.Errorf("no metric needs %+v, want %+v", got, want)
	}
	all := NeedsOf(Metrics["is"](), Metrics["sfid"]())
	if want := (Needs{spatial, Parts{Pool: true, Stats: true, Spatial: true, Logits: true}}); all != want {
		t.Errorf("IS and sFID need %+v, want %+v", all, want)
	}
	if got, want := all.Generated.Resampled(), (Parts{true, true, true, true, true, ""}); got != want {
		t.Errorf("their bootstrap needs %+v, want %+v", got, want)
	}
	if got := stats.Resampled(); got != rows {
		t.Errorf("FID's bootstrap needs %+v, want %+v", got, rows)
	}
}

// A network without spatial features or logits is refused for the metrics that
// need them, each by its name.
func TestCheckOutputs(t *testing.T) {
	metrics := []Metric{Metrics["is"](), Metrics["fid"](), Metrics["sfid"]()}
	err := CheckOutputs("small.onnx", Parts{}, metrics...)
	const want = "small.onnx has no spatial features, which sfid needs; leave it out of the metrics\n" +
		"small.onnx has no class logits, which is needs; leave it out of the metrics"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := CheckOutputs("whole", Parts{Spatial: true, Logits: true}, metrics...); err != nil {
		t.Error(err)
	}
	if err := CheckOutputs("small.onnx", Parts{}, Metrics["fid"]()); err != nil {
		t.Error(err)
	}
}

// meanShift is a whole new metric: the distance of the means. With its row in
// a table it is scored like the others.
type meanShift struct{ statisticsOfPool }

func (meanShift) Column() Column { return Column{"mean_shift", "|Δμ|", Lower, 3} }

func (m meanShift) Score(_ context.Context, ref, gen *Features) ([]Score, error) {
	r, faultR := ref.poolStats()
	g, faultG := gen.poolStats()
	if err := errors.Join(faultR, faultG); err != nil {
		return nil, err
	}
	return []Score{m.Column().score(math.Sqrt(meanDistance(r, g, MeanFloat64)), "")}, nil
}

func TestAddedMetric(t *testing.T) {
	table := maps.Clone(Metrics)
	table["mean_shift"] = func() Metric { return meanShift{} }
	m := table["mean_shift"]()
	ref := gaussians(rand.New(rand.NewPCG(1, 2)), 50, 4, 0)
	gen := &Features{N: ref.N, D: ref.D}
	for _, v := range ref.Pool {
		gen.Pool = append(gen.Pool, v+3)
	}
	report, err := Evaluate(t.Context(), ref, gen, m, table["fid"]())
	if err != nil {
		t.Fatal(err)
	}
	near(t, report.Scores[0].Name, report.Scores[0].Value, 6, 1e-6) // √(4·3²)
	near(t, report.Scores[1].Name, report.Scores[1].Value, 36, 1e-4)
	if got, want := NeedsOf(m), (Needs{Parts{Stats: true}, Parts{Stats: true}}); got != want || m.MinImages() != 2 {
		t.Errorf("it needs %+v and %d images", got, m.MinImages())
	}
	if err := CheckDraws(MinReplicates, m, table["fid"]()); err == nil || !strings.Contains(err.Error(), "no bootstrap interval of mean_shift") {
		t.Errorf("a bootstrap of a metric that has none: %v", err)
	}
	if err := errors.Join(CheckDraws(0, m), CheckDraws(MinReplicates, table["fid"]())); err != nil {
		t.Error(err)
	}
	if _, err := Evaluate(t.Context(), &Features{Source: "empty.npz"}, gen, m); err == nil || !strings.Contains(err.Error(), "mean_shift: empty.npz has no pool statistics") {
		t.Errorf("against nothing: %v", err)
	}
}
