package eval

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// FD-DINOv2 is the FID of its features with means in float64, as dgm-eval's
// compute_FD_with_reps, under its own name.
func TestFDDINOv2(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ref, gen := gaussians(r, 300, 12, 0), gaussians(r, 200, 12, 1)
	fid, err := (&FID{Mean: MeanFloat64}).Score(t.Context(), ref, gen)
	if err != nil {
		t.Fatal(err)
	}
	m := Metrics["fd_dinov2"]()
	fd, err := m.Score(t.Context(), ref, gen)
	if err != nil || len(fd) != 1 {
		t.Fatal(fd, err)
	}
	if fd[0].Value != fid[0].Value || fd[0].Title != "FD-DINOv2" || fd[0].Name != "fd_dinov2" || fd[0].Direction != Lower {
		t.Errorf("%+v, FID is %v", fd[0], fid[0].Value)
	}
	if NetworkOf(m) != "dinov2" || NetworkOf(Metrics["fid"]()) != "" {
		t.Errorf("networks %q and %q", NetworkOf(m), NetworkOf(Metrics["fid"]()))
	}
	if _, err := Evaluate(t.Context(), ref, gen, m); err == nil || !strings.Contains(err.Error(), "features of dinov2") {
		t.Errorf("features of an unknown network: %v", err)
	}
	ref.Network, gen.Network = "dinov2", "dinov2"
	if report, err := Evaluate(t.Context(), ref, gen, m); err != nil || report.Scores[0].Value != fd[0].Value {
		t.Errorf("%+v, %v", report, err)
	}
	few := gaussians(r, 10, 12, 0)
	if fd, err = m.Score(t.Context(), ref, few); err != nil || len(fd[0].Warnings) != 1 || !strings.Contains(fd[0].Warnings[0], "FD-DINOv2 is biased") {
		t.Errorf("10 images of 12 dimensions: %+v, %v", fd, err)
	}
}
