package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/search"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
)

// A hunt is how far the search of an experiment is. It follows from the files of the
// rounds that are decided.
type hunt struct {
	rule   search.Rule
	named  store.SearchRule
	rounds []*store.SearchRound // that are decided
	left   []int                // rows, by their places in the experiment's, in that order
	count  int                  // of the rows that are left, those that --rows leaves out included
	drawn  int                  // images of all rows in the rounds that are decided
	next   int                  // images of each row that is left in the next round; 0: the search is over
}

// newHunt is a search before its first round, for which the rows get their images.
func newHunt(e *plan.Experiment) *hunt {
	h := &hunt{rule: e.SearchRule(), named: e.Rule()}
	for i, r := range e.Rows {
		r.Take(h.rule.First)
		h.left = append(h.left, i)
	}
	h.next, h.count = h.rule.First, h.rule.Rows
	return h
}

// apply goes on behind a round. The rows that are left get the images of the next one.
func (h *hunt) apply(round *store.SearchRound, rows []*plan.Row) {
	h.rounds = append(h.rounds, round)
	h.drawn, h.next, h.left, h.count = round.Drawn, round.Next, nil, 0
	for _, r := range round.Rows {
		if r.Dropped {
			continue
		}
		h.count++
		i := placeOf(rows, r)
		if i < 0 {
			continue
		}
		h.left = append(h.left, i)
		if round.Next > 0 {
			rows[i].Take(round.Next)
		}
	}
}

// placeOf is where a row of a round stands among the experiment's; -1 where it is left
// out of them.
func placeOf(rows []*plan.Row, r store.SearchRow) int {
	return slices.IndexFunc(rows, func(own *plan.Row) bool { return own.Index == r.Row })
}

// begun is the next round as far as it is known before it is decided; evaluations are
// the evaluation ids of the rows' scores.
func (h *hunt) begun(runs []*plan.Run, evaluations []string) *store.SearchRound {
	round := &store.SearchRound{Format: store.SearchFormat, Search: h.named, Round: len(h.rounds) + 1, Images: h.next, Drawn: h.drawn}
	for _, i := range h.left {
		r := runs[i]
		before := 0
		if len(h.rounds) > 0 {
			before = h.rounds[len(h.rounds)-1].Images
		}
		round.Drawn += h.next - before
		round.Rows = append(round.Rows, store.SearchRow{Row: r.Index, Title: r.Title(), Run: r.ID, Evaluation: evaluations[i]})
	}
	return round
}

// same reports whether a round that was decided is the one that was begun.
func same(decided, begun *store.SearchRound) bool {
	open := *decided
	open.Next, open.Rows = 0, nil
	for _, r := range decided.Rows {
		r.Against, r.Differences, r.Dropped = "", nil, false
		open.Rows = append(open.Rows, r)
	}
	return reflect.DeepEqual(&open, begun)
}

// seek finds how far the experiment's search is, if it has one. The rows that are left
// get the images of the next round.
func (s *session) seek() error {
	if s.Search() == nil {
		return nil
	}
	if slices.ContainsFunc(s.runs, func(r *plan.Run) bool { return len(r.Metrics) == 0 }) {
		return human.Misusef("%s: its search drops rows by their scores, and nothing is to be scored: use `sagbench run`, or search=null to draw all images of all rows", s.Name)
	}
	if len(s.Left) > 0 {
		return human.Misusef("%s: --rows leaves rows out, and its search decides which rows to draw: give its sweep other values, or search=null to draw the chosen rows whole", s.Name)
	}
	s.hunt = newHunt(s.Experiment)
	s.evaluations = nil
	for _, r := range s.runs {
		m, _, err := s.engine.PrepareRow(r)
		if err != nil {
			return err
		}
		s.evaluations = append(s.evaluations, m.Evaluation)
	}
	for s.hunt.next > 0 {
		there, err := s.decided()
		if err != nil {
			return err
		}
		if there == nil {
			return nil
		}
		s.apply(there)
	}
	return nil
}

// apply goes on behind a round.
func (s *session) apply(round *store.SearchRound) {
	s.hunt.apply(round, s.Experiment.Rows)
	if round.Next == 0 {
		return
	}
	for _, i := range s.hunt.left {
		s.rows[i] = rowState{}
	}
	s.drawing = -1
}

// decided is what has been decided about the next round, by whomever; nil where nothing
// has. What another search has decided there, people are told once in what it differs.
func (s *session) decided() (*store.SearchRound, error) {
	there, err := store.ReadSearchRound(s.folder, len(s.hunt.rounds)+1, s.noteOnce)
	if err != nil || there == nil {
		return nil, err
	}
	begun := s.hunt.begun(s.runs, s.evaluations)
	if same(there, begun) {
		return there, nil
	}
	if !s.changed {
		s.changed = true
		s.Progress.Note("note: the search in " + filepath.Join(s.folder, store.SearchFolder) + " was another one; it is decided anew, with the images that are there:\n" + strings.Join(changes(there, begun), "\n"))
	}
	return nil, nil
}

// changes are lines about what differs between two searches, by a round of each.
func changes(there, here *store.SearchRound) []string {
	rule := func(r store.SearchRule) map[string]string {
		data, _ := json.Marshal(r) // of numbers and names: it cannot fail
		values := flat(data)
		delete(values, "level") // follows from the others
		return values
	}
	lines := differences(rule(there.Search), rule(here.Search))
	runs := func(r *store.SearchRound) (titles, evaluations map[string]string) {
		titles, evaluations = map[string]string{}, map[string]string{}
		for _, row := range r.Rows {
			titles[row.Run], evaluations[row.Run] = row.Title, row.Evaluation
		}
		return titles, evaluations
	}
	was, wasBy := runs(there)
	is, isBy := runs(here)
	list := func(what string, of *store.SearchRound, others map[string]string) {
		var titles []string
		for _, row := range of.Rows {
			if _, both := others[row.Run]; !both {
				titles = append(titles, row.Title)
			}
		}
		if len(titles) > 0 {
			lines = append(lines, "  rows "+what+": "+strings.Join(titles, "; "))
		}
	}
	list("that are new", here, was)
	list("that are gone", there, is)
	scored := 0
	for run, by := range isBy {
		if was, both := wasBy[run]; both && was != by {
			scored++
		}
	}
	if scored > 0 {
		lines = append(lines, fmt.Sprintf("  how %d rows are scored: reference, feature network, metrics, bootstrap or versions", scored))
	}
	if len(lines) == 0 {
		lines = append(lines, fmt.Sprintf("  names or places of rows, or a file of an earlier round than round %d", here.Round))
	}
	return lines
}

// A round is the work.Job of one round of a search: the rows that are left, as far as
// this round's images.
type round struct {
	*session
	of []int // rows of the session
}

// Rows implements work.Job.
func (r round) Rows() (rows []work.Row) {
	all := r.session.Rows()
	for _, i := range r.of {
		rows = append(rows, all[i])
	}
	return rows
}

// unit is the session's unit.
func (r round) unit(u work.Unit) work.Unit { return work.Unit{Row: r.of[u.Row], K: u.K} }

// Missing implements work.Job.
func (r round) Missing(row int) ([]int, error) { return r.session.Missing(r.of[row]) }

// There implements work.Job.
func (r round) There(u work.Unit) (bool, error) { return r.session.There(r.unit(u)) }

// Draw implements work.Job.
func (r round) Draw(ctx context.Context, u work.Unit) error { return r.session.Draw(ctx, r.unit(u)) }

// Finish implements work.Job.
func (r round) Finish(ctx context.Context, row int) (bool, error) {
	return r.session.Finish(ctx, r.of[row])
}

// Finished implements work.Job. A row of a round that has been decided is finished,
// though its scores may be those of a later round by now. Scores are looked at first:
// they are another round's only if this one was decided before.
func (r round) Finished(row int) (bool, error) {
	done, err := r.session.Finished(r.of[row])
	if err != nil || done {
		return done, err
	}
	there, err := r.decided()
	return there != nil, err
}

// maxAgain bounds how often a round is begun again because its scores are those of
// another one.
const maxAgain = 10

// search draws an experiment round by round, together with all others who do.
func (s *session) search(ctx context.Context) error {
	for again := 0; s.hunt.next > 0; {
		h := s.hunt
		s.Progress.Tell(fmt.Sprintf("search, round %d: %d rows of %s images", len(h.rounds)+1, len(h.left), human.Count(h.next)))
		if err := s.draw(ctx, round{s, h.left}); err != nil {
			return err
		}
		decided, err := s.decide(ctx)
		if err != nil {
			if again++; again == maxAgain || ctx.Err() != nil {
				return err
			}
			for _, i := range h.left { // its scores are computed again
				s.rows[i] = rowState{}
			}
			continue
		}
		again = 0
		s.apply(decided)
		s.Progress.Tell(decisionOf(decided))
	}
	if err := store.DropSearchRounds(s.folder, len(s.hunt.rounds)+1); err != nil {
		return err
	}
	return s.draw(ctx, s) // what was damaged meanwhile
}

// decide decides the round whose images are drawn and scored, unless another worker has
// done that.
func (s *session) decide(ctx context.Context) (*store.SearchRound, error) {
	there, err := s.decided()
	if err != nil || there != nil {
		return there, err
	}
	s.worker.Tell(func(a *work.About) { a.Row, a.Doing, a.Step, a.Steps = "", "deciding a round", 0, 0 })
	begun := s.hunt.begun(s.runs, s.evaluations)
	rows, scores, err := s.scoresOf(begun)
	if err != nil {
		// They may be the scores of the next round, which somebody draws already.
		if there, late := s.decided(); late != nil || there != nil {
			return there, late
		}
		return nil, err
	}
	outcomes, err := s.hunt.rule.Decide(rows)
	if err != nil {
		return nil, err
	}
	left := 0
	for i, o := range outcomes {
		row := &begun.Rows[i]
		row.Dropped = o.Dropped
		if !o.Dropped {
			left++
		}
		if o.Against >= 0 {
			row.Against = begun.Rows[o.Against].Title
		}
		for m, d := range o.Differences {
			row.Differences = append(row.Differences, store.SearchDifference{Metric: scores[i][m].Name, Value: scores[i][m].Value, Change: d.Value, Low: d.Low, High: d.High})
		}
	}
	begun.Next = s.hunt.rule.Next(begun.Images, begun.Drawn, left)
	return begun, begun.Write(s.folder)
}

// scoresOf are the scores and draws of a round's rows, and the scores again as files
// have them. It is an error where they are not of this round's images.
func (s *session) scoresOf(begun *store.SearchRound) (rows []search.Row, scores [][]store.Score, err error) {
	for _, row := range begun.Rows {
		r := s.runs[placeOf(s.Experiment.Rows, row)]
		m, err := store.ReadMetrics(filepath.Join(r.Folder, store.MetricsFile))
		if err != nil {
			return nil, nil, err
		}
		if m.Run != row.Run || m.Samples != begun.Images || m.Evaluation != row.Evaluation {
			return nil, nil, fmt.Errorf("%s: scores of run %s over %d images (evaluation %s), expected %s over %d (%s)", filepath.Join(r.Folder, store.MetricsFile), m.Run, m.Samples, m.Evaluation, row.Run, begun.Images, row.Evaluation)
		}
		draws, err := store.ReadReplicates(r.Folder, r.Bootstrap)
		if err != nil {
			return nil, nil, err
		}
		if sum, err := draws.Sum(); err != nil || sum != m.Draws {
			return nil, nil, errors.Join(err, fmt.Errorf("%s: is not of the scores in %s", filepath.Join(r.Folder, store.BootstrapFile), store.MetricsFile))
		}
		var own []store.Score
		one := search.Row{}
		for _, name := range begun.Search.Metrics {
			score, ok := m.Score(name)
			values := draws.Values[name]
			if !ok || values == nil {
				return nil, nil, fmt.Errorf("%s: no score or no draws of %s", r.Folder, name)
			}
			own = append(own, score)
			one.Values, one.Draws = append(one.Values, score.Value), append(one.Draws, values)
		}
		rows, scores = append(rows, one), append(scores, own)
	}
	return rows, scores, nil
}

// decisionOf tells people what a round has decided.
func decisionOf(r *store.SearchRound) string {
	var dropped, left []string
	for _, row := range r.Rows {
		if row.Dropped {
			dropped = append(dropped, row.Title)
		} else {
			left = append(left, row.Title)
		}
	}
	text := fmt.Sprintf("search, round %d: %d of %d rows dropped", r.Round, len(dropped), len(r.Rows))
	if len(dropped) > 0 {
		text += " (" + strings.Join(dropped, "; ") + ")"
	}
	if r.Next > 0 {
		return text
	}
	text += fmt.Sprintf("; the search is over after %s of %s images", human.Count(r.Drawn), human.Count(r.Search.Samples*r.Search.Rows))
	switch {
	case len(left) == 1:
		return text + ": the best row is " + left[0]
	case len(r.Search.Metrics) > 1:
		return text + ": no other row is seen to beat these in both: " + strings.Join(left, "; ")
	}
	return text + ": these rows cannot be told apart: " + strings.Join(left, "; ")
}

// searched is what the search decided about a row; nil where there is none, or before it
// is over.
func (s *session) searched(row int) *store.Searched {
	if s.hunt == nil || s.hunt.next > 0 {
		return nil
	}
	var last *store.Searched
	for _, round := range s.hunt.rounds {
		for _, r := range round.Rows {
			if r.Row == s.runs[row].Index {
				last = &store.Searched{
					Round: round.Round, Rounds: len(s.hunt.rounds), Rule: s.hunt.named, Drawn: s.hunt.drawn,
					Against: r.Against, Differences: r.Differences, Dropped: r.Dropped,
				}
			}
		}
	}
	return last
}

// A SearchStatus is how far a search is.
type SearchStatus struct {
	Round  int  `json:"round"`  // that is being drawn; the last one where the search is over
	Images int  `json:"images"` // of each row in it
	Rows   int  `json:"rows"`   // that are in it; where the search is over: that are left
	Drawn  int  `json:"drawn"`  // images of all rows in the rounds that are decided
	Budget int  `json:"budget"`
	Over   bool `json:"over"`
}

// searchStatus is how far an experiment's search is, from the files of its rounds alone,
// with what it says of each row; nil where there is no search. The rows get the images
// that the search has given them.
func searchStatus(e *plan.Experiment, folder string) (*SearchStatus, []RowStatus, error) {
	dropped := make([]RowStatus, len(e.Rows))
	if e.Search() == nil {
		return nil, dropped, nil
	}
	h := newHunt(e)
	for h.next > 0 {
		there, err := store.ReadSearchRound(folder, len(h.rounds)+1, func(string) {})
		if err != nil {
			return nil, nil, err
		}
		if there == nil || !reflect.DeepEqual(there.Search, h.named) || slices.ContainsFunc(there.Rows, func(r store.SearchRow) bool {
			i := placeOf(e.Rows, r)
			return i < 0 && len(e.Left) == 0 || i >= 0 && e.Rows[i].Title() != r.Title
		}) {
			break
		}
		for _, r := range there.Rows {
			if i := placeOf(e.Rows, r); i >= 0 && r.Dropped {
				dropped[i].Dropped, dropped[i].Differences = there.Round, r.Differences
			}
		}
		h.apply(there, e.Rows)
	}
	s := &SearchStatus{Round: len(h.rounds) + 1, Images: h.next, Rows: h.count, Drawn: h.drawn, Budget: h.rule.Budget, Over: h.next == 0}
	if s.Over {
		s.Round, s.Images = len(h.rounds), h.rounds[len(h.rounds)-1].Images
	}
	return s, dropped, nil
}

// String is the state in words.
func (s *SearchStatus) String() string {
	if s.Over {
		return fmt.Sprintf("search: over after %d rounds, %s of at most %s images; %d rows left, of %s images", s.Round, human.Count(s.Drawn), human.Count(s.Budget), s.Rows, human.Count(s.Images))
	}
	return fmt.Sprintf("search: round %d, %d rows of %s images; %s of at most %s in the rounds before", s.Round, s.Rows, human.Count(s.Images), human.Count(s.Drawn), human.Count(s.Budget))
}
