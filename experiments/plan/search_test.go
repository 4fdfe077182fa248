package plan

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/internal/tiny"
)

// undrawn is a metric that cannot be computed for draws of the images.
type undrawn struct{}

func (*undrawn) Column() eval.Column { return eval.Column{Name: "undrawn", Title: "U"} }
func (*undrawn) Needs() eval.Needs   { return eval.Needs{} }
func (*undrawn) MinImages() int      { return 1 }
func (*undrawn) Score(context.Context, *eval.Features, *eval.Features) ([]eval.Score, error) {
	return nil, nil
}

func TestSearchSettings(t *testing.T) {
	with := func(block string) []string { return []string{"samples: 8", "samples: 64\nsearch: " + block} }
	e := loadTiny(t, with("{metric: fid, budget: 100, first: 16}")...)
	if r := e.Rows[0]; r.Bootstrap != 200 || r.Samples != 64 || e.Search() == nil {
		t.Errorf("bootstrap %d, samples %d, search %+v", r.Bootstrap, r.Samples, e.Search())
	}
	rule := e.SearchRule()
	if rule.Rows != 2 || rule.Confidence != 0.95 || rule.Eta != 3 || rule.First != 16 || rule.Most != 64 || len(rule.Lower) != 1 || !rule.Lower[0] {
		t.Errorf("%+v", rule)
	}
	if r := loadTiny(t, with("{metric: [fid, recall], budget: 100, first: 16}")...).SearchRule(); len(r.Lower) != 2 || r.Lower[1] {
		t.Errorf("FID and recall: %+v", r)
	}
	if e := loadTiny(t); e.Search() != nil || e.Rows[0].Bootstrap != 0 {
		t.Errorf("a search without a block: %+v", e.Search())
	}
	e.Rows[0].Take(16)
	if r := e.Rows[0]; r.Samples != 16 || r.Most() != 64 || r.AsWritten().Samples != 64 {
		t.Errorf("%d of %d images", r.Samples, r.Most())
	}

	for _, c := range []struct {
		block, want string
		more        []string
	}{
		{"{metric: fid, budget: 31, first: 16}", "tiny.yaml:3: search: budget is 31, less than one round: 2 rows of 16 images are 32", nil},
		{"{metric: fid, budget: 100, first: 16}", "1 row: a search compares at least 2", []string{"[0, 0.5]", "[0]"}},
		{"{metric: fid, budget: 1000, first: 65}", "first is 65, and samples, the most that a row may get, is 64", nil},
		{"{metric: kid, budget: 100, first: 16}", "metric is kid, which is none of metrics: (fid, sfid, is, precision, recall); add it there", nil},
		{"{metric: recall, budget: 100, first: 2}", "first is 2: recall needs at least 4 images", nil},
		{"{metric: [fid, is, recall], budget: 100, first: 16}", "metric is fid, is, recall, expected one or two different ones", nil},
		{"{metric: [fid, fid], budget: 100, first: 16}", "metric is fid, fid, expected one or two different ones", nil},
		{"{metric: fid, first: 16}", "budget is missing", nil},
		{"{budget: 100, first: 16}", "metric is missing", nil},
		{"{metric: fid, budget: 100, first: 16, confidence: 1}", "is 1, expected 0.5 to 0.9999", nil},
		{"{metric: fid, budget: 100, first: 16, eta: 1}", "is 1, expected 2 to 10", nil},
		{"{metric: fid, budgte: 100}", `unknown key "budgte"`, nil},
		{"{metric: fid, budget: 100, first: 16}", "cannot be swept", []string{"sweep: {", "sweep: {search.eta: [2, 3], "}},
		{"{metric: fid, budget: 200, first: 16}", "differ in samples: their scores cannot be compared", []string{"sweep: {", "sweep: {samples: [64, 32], "}},
		{"{metric: fid, budget: 200, first: 16}", "differ in metrics", []string{"sweep: {", "sweep: {metrics: [[fid], [fid, recall]], "}},
	} {
		_, err := Load(tiny.Experiment(t, t.TempDir(), append(with(c.block), c.more...)...), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.block, err, c.want)
		}
	}

	r := e.Rows[0]
	r.Settings.Search.Metric = searchMetrics{"undrawn"}
	r.Metrics = []configs.Named[eval.Metric]{{Name: "undrawn", Value: &undrawn{}}}
	if err := r.checkSearch(configs.Block{}); err == nil || !strings.Contains(err.Error(), "without paired draws there is no interval") {
		t.Errorf("a metric without draws: %v", err)
	}
}

// A plan of a search shows its rounds with images and time before anything is drawn.
func TestSearchForecast(t *testing.T) {
	e := loadTiny(t, "samples: 8", "samples: 64\nsearch: {metric: fid, budget: 150, first: 16, eta: 2}", "[0, 0.5]", "[0, 0.5, 1]")
	for _, r := range e.Rows {
		r.Take(16)
	}
	f, err := e.Forecast(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Timed = true
	for i := range f.Rows {
		f.Rows[i].Time = 16 * time.Second
	}
	var out bytes.Buffer
	if err := f.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := `
search by fid: at most 150 of the 192 images of 3 rows, confidence 95 %
round  images a row  in all, two rows left  in all, every row left  time at most
1      16            48                     48                      48s
2      32            80                     96                      1m36s
3      50 to 64      144                    150                     2m30s
`
	if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "to do: 48 images in 3 rows") {
		t.Errorf("got\n%s\nwant%s", &out, want)
	}
}
