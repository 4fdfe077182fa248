package report

import (
	"testing"

	"sagbench/eval"
	"sagbench/experiments/store"
)

// The words follow the interval: made-up differences → the sentence.
func TestVerdict(t *testing.T) {
	row := func(settings ...store.Setting) *store.Metrics {
		return &store.Metrics{Experiment: "e", Samples: 264, Settings: settings}
	}
	half := store.Setting{Path: "guidance.sag.scale", Value: "0.5"}
	fid := store.Score{Name: "fid", Title: "FID", Direction: store.LowerIsBetter, Decimals: 2}
	sfid := store.Score{Name: "sfid", Title: "sFID", Direction: store.LowerIsBetter, Decimals: 2}
	is := store.Score{Name: "is", Title: "IS", Direction: store.HigherIsBetter, Decimals: 2}
	recall := store.Score{Name: "recall", Title: "Recall", Direction: store.HigherIsBetter, Decimals: 2}
	for _, c := range []struct {
		row  *store.Metrics
		all  []difference
		want string
	}{
		{row(half), []difference{
			{score: fid, value: 0.32, interval: eval.Interval{Low: 0.11, High: 0.54}},
			{score: sfid, value: -0.1, interval: eval.Interval{Low: -0.5, High: 0.4}},
			{score: recall, value: -0.09, interval: eval.Interval{Low: -0.12, High: -0.05}},
		}, "s = 0.5 changes FID by +0.32 [0.11, 0.54] (worse) and Recall by −0.09 [−0.12, −0.05] (worse); no difference in sFID can be told at 264 images."},
		{row(half), []difference{
			{score: fid, value: -0.32, interval: eval.Interval{Low: -0.54, High: -0.11}},
			{score: is, value: 0.2, interval: eval.Interval{Low: 0.1, High: 0.3}},
		}, "s = 0.5 changes FID by −0.32 [−0.54, −0.11] (better) and IS by +0.20 [0.10, 0.30] (better)."},
		{row(half), []difference{
			{score: fid, value: 0.2, interval: eval.Interval{Low: -0.1, High: 0.5}},
			{score: sfid, value: 0, interval: eval.Interval{Low: 0, High: 0}},
			{score: recall, value: 0.01, interval: eval.Interval{Low: 0, High: 0.02}},
		}, "s = 0.5: no difference in FID, sFID or Recall can be told at 264 images."},
		// An end that decides is never shown as zero.
		{row(half, store.Setting{Path: "sampler.ddim.steps", Value: "10"}), []difference{
			{score: recall, value: 0.03, interval: eval.Interval{Low: 0.0004, High: 0.06}},
		}, "s = 0.5, steps = 10 changes Recall by +0.0300 [0.0004, 0.0600] (better)."},
		{row(store.Setting{Path: "guidance.sag.scale", Value: "-0.3"}), []difference{
			{score: fid, value: 0.2, interval: eval.Interval{Low: -0.1, High: 0.5}},
		}, "s = −0.3: no difference in FID can be told at 264 images."},
		{row(), []difference{
			{score: fid, value: 3, interval: eval.Interval{Low: 2, High: 4}},
		}, "run changes FID by +3.00 [2.00, 4.00] (worse)."},
	} {
		for i := range c.all {
			c.all[i].of = c.row
		}
		if got := verdictOf(c.all); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
