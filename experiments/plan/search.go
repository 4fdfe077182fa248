package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/search"
	"sagbench/experiments/store"
)

// A Search finds the best rows of a sweep with fewer images than all rows would take.
// The zero value is no search.
type Search struct {
	Metric     searchMetrics `yaml:"metric" type:"name, or list of two" doc:"that rows are compared by, one of metrics: or two of them: {metric: fid} finds the best row; {metric: [fid, recall]} the rows that no other one beats in both"`
	Budget     int           `yaml:"budget" min:"0" max:"2000000000" doc:"images of all rows together, at most"`
	Confidence float64       `yaml:"confidence" min:"0.5" max:"0.9999" doc:"probability, at least, that the best row is not dropped"`
	First      int           `yaml:"first" min:"2" max:"10000000" doc:"images of each row in the first round; samples: is what a row may get at most"`
	Eta        int           `yaml:"eta" min:"2" max:"10" doc:"how many times as many images each round has as the one before"`
}

// searchMetrics are the names of metrics: one name, or a list.
type searchMetrics []string

// UnmarshalBlock implements configs.Unmarshaler.
func (m *searchMetrics) UnmarshalBlock(b configs.Block) error {
	if b.IsList() {
		return b.Decode((*[]string)(m))
	}
	*m = make(searchMetrics, 1)
	return b.Decode(&(*m)[0])
}

// defaultSearch is a search before its block is read.
func defaultSearch() Search { return Search{Confidence: 0.95, First: 512, Eta: 3} }

// searchDraws are the draws of the images where an experiment that searches asks for
// none.
const searchDraws = 200

// On reports whether there is a search.
func (s *Search) On() bool { return len(s.Metric) > 0 || s.Budget > 0 }

// Validate implements configs.Validator.
func (s *Search) Validate() error {
	switch {
	case !s.On():
		return nil
	case len(s.Metric) == 0:
		return fmt.Errorf("metric is missing: search: {metric: fid, budget: 60000}")
	case len(s.Metric) > 2 || len(s.Metric) == 2 && s.Metric[0] == s.Metric[1]:
		return fmt.Errorf("metric is %s, expected one or two different ones", strings.Join(s.Metric, ", "))
	case s.Budget == 0:
		return fmt.Errorf("budget is missing: how many images all rows may take together: search: {metric: fid, budget: 60000}")
	}
	return nil
}

// checkSearch checks the search of a row against its metrics.
func (r *Row) checkSearch(b configs.Block) error {
	if !r.Search.On() {
		return nil
	}
	at, _ := b.At("search")
	var faults []error
	for _, name := range r.Search.Metric {
		i := slices.IndexFunc(r.Metrics, func(m configs.Named[eval.Metric]) bool { return m.Name == name })
		if i < 0 {
			var names []string
			for _, m := range r.Metrics {
				names = append(names, m.Name)
			}
			faults = append(faults, at.Errorf("metric is %s, which is none of metrics: (%s); add it there", name, strings.Join(names, ", ")))
			continue
		}
		metric := r.Metrics[i].Value
		if _, ok := metric.(eval.Resampler); !ok {
			faults = append(faults, at.Errorf("metric is %s, which cannot be computed for draws of the images: without paired draws there is no interval to drop a row by", name))
		}
		if least := metric.MinImages(); r.Search.First < least {
			faults = append(faults, at.Errorf("first is %d: %s needs at least %d images", r.Search.First, name, least))
		}
	}
	return configs.Join(faults...)
}

// checkSearch checks the search of all rows: they have to have the same one, and scores
// that can be compared.
func (e *Experiment) checkSearch(rows []configs.Row) error {
	first := e.Rows[0]
	at, _ := rows[0].Block.At("search")
	for i, r := range e.Rows[1:] {
		if !reflect.DeepEqual(r.Search, first.Search) {
			own, has := rows[i+1].Block.At("search")
			if !has {
				own = at
			}
			return own.Errorf("rows %q and %q have different ones; a search is the whole experiment's, and cannot be swept", first.Title(), r.Title())
		}
	}
	if !first.Search.On() {
		return nil
	}
	var faults []error
	for _, r := range e.Rows[1:] {
		for _, one := range []struct {
			name        string
			mine, other any
		}{
			{"samples", r.Samples, first.Samples},
			{"bootstrap", r.Bootstrap, first.Bootstrap},
			{"reference", r.ReferencePath, first.ReferencePath},
			{"protocol", r.ProtocolName, first.ProtocolName},
			{"network", r.Network, first.Network},
			{"metrics", r.Metrics, first.Metrics},
			{"a block of a feature network", networkSettings(r), networkSettings(first)},
		} {
			if !reflect.DeepEqual(one.mine, one.other) {
				faults = append(faults, at.Errorf("rows %q and %q differ in %s: their scores cannot be compared", first.Title(), r.Title(), one.name))
			}
		}
		if len(faults) > 0 {
			break
		}
	}
	if err := e.SearchRule().Check(); err != nil && len(faults) == 0 {
		faults = append(faults, at.Errorf("%w", err))
	}
	return configs.Join(faults...)
}

// networkSettings are what a row's comparisons compute with.
func networkSettings(r *Row) (all []string) {
	for _, c := range r.Comparisons {
		all = append(all, c.Key(c.Weights.Path))
	}
	return all
}

// Search is the experiment's search; nil where it has none.
func (e *Experiment) Search() *Search {
	if s := &e.Rows[0].Settings.Search; s.On() {
		return s
	}
	return nil
}

// SearchRule is how the experiment's search goes.
func (e *Experiment) SearchRule() search.Rule {
	first, s := e.Rows[0], e.Rows[0].Settings.Search
	r := search.Rule{Rows: len(e.Rows) + len(e.Left), Confidence: s.Confidence, First: s.First, Eta: s.Eta, Most: first.Most(), Budget: s.Budget}
	for _, name := range s.Metric {
		for _, m := range first.Metrics {
			if m.Name == name {
				r.Lower = append(r.Lower, m.Value.Column().Direction == eval.Lower)
			}
		}
	}
	return r
}

// Most are the images that the row may get, which samples: says; a search gives it
// fewer in its rounds, and these are its Samples meanwhile.
func (r *Row) Most() int {
	if r.most > 0 {
		return r.most
	}
	return r.Samples
}

// Take gives a row of a search so many images.
func (r *Row) Take(images int) {
	r.most = r.Most()
	r.Samples = images
}

// AsWritten is the row with the images that samples: says.
func (r *Row) AsWritten() *Row {
	written := *r
	written.Samples = r.Most()
	return &written
}

// Rule is the search's rule as files of results have it.
func (e *Experiment) Rule() store.SearchRule {
	rule, s := e.SearchRule(), e.Search()
	return store.SearchRule{Metrics: s.Metric, Budget: rule.Budget, Confidence: rule.Confidence, First: rule.First, Eta: rule.Eta, Samples: rule.Most, Rows: rule.Rows, Level: rule.Level()}
}

// rounds are lines about the rounds of the search; "" where there is none.
func (f *Forecast) rounds() string {
	if f.search == nil {
		return ""
	}
	e := f.search
	rule, s := e.SearchRule(), e.Search()
	few, many := rule.Rounds(2), rule.Rounds(rule.Rows)
	var out strings.Builder
	fmt.Fprintf(&out, "search by %s: at most %s of the %s images of %d rows, confidence %g %%\n",
		strings.Join(s.Metric, " and "), human.Count(min(rule.Budget, rule.Rows*rule.Most)), human.Count(rule.Rows*rule.Most), rule.Rows, 100*rule.Confidence)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "round\timages a row\tin all, two rows left\tin all, every row left")
	if f.Timed {
		fmt.Fprint(w, "\ttime at most")
	}
	fmt.Fprintln(w)
	least, most, before, beforeMost := 0, 0, 0, 0
	perImage := f.timeOfImage()
	for k, n := range few {
		rows := 2
		if k == 0 {
			rows = rule.Rows
		}
		least, before = least+rows*(n-before), n
		images, all, last := human.Count(n), "— (the budget ends)", most
		if k < len(many) {
			most, beforeMost = most+rule.Rows*(many[k]-beforeMost), many[k]
			all, last = human.Count(most), most
			if many[k] < n {
				images = human.Count(many[k]) + " to " + images
			}
		} else {
			images = "up to " + images
			last = min(rule.Budget, max(most, least))
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s", k+1, images, human.Count(least), all)
		if f.Timed {
			fmt.Fprintf(w, "\t%s", human.Duration(time.Duration(last)*perImage))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return out.String()
}

// timeOfImage is what an image takes on the average over the rows that were timed.
func (f *Forecast) timeOfImage() time.Duration {
	images, total := 0, time.Duration(0)
	for _, p := range f.Rows {
		images, total = images+p.Images, total+p.Time
	}
	if images == 0 {
		return 0
	}
	return total / time.Duration(images)
}
