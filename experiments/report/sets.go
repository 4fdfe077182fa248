package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// An evaluatedSet is a set of samples in a file of eval's JSON.
type evaluatedSet struct {
	*store.Evaluation
	name string // the set's, with that of the file where others have the same
	file string // path
}

// readSets are the sets of all files, in their order.
func readSets(files []string) ([]evaluatedSet, error) {
	var sets []evaluatedSet
	var faults []error
	for _, file := range files {
		all, err := store.ReadEvaluations(file)
		faults = append(faults, err)
		for _, e := range all {
			sets = append(sets, evaluatedSet{e, e.Inputs["samples"].Name, file})
		}
	}
	short := human.ShortPaths(files)
	own := map[string]int{}
	for _, s := range sets {
		own[s.name]++
	}
	for i, s := range sets {
		if own[s.name] > 1 {
			sets[i].name = short[slices.Index(files, s.file)] + ": " + s.name
		}
	}
	seen := map[string]int{}
	for i, s := range sets {
		if seen[s.name]++; seen[s.name] > 1 {
			sets[i].name += fmt.Sprintf(" (%d)", seen[s.name])
		}
	}
	return sets, errors.Join(faults...)
}

// setDifferences compares the sets of files of eval's JSON with the first of them, or with
// the one that is called so.
func setDifferences(files []string, o DifferenceOptions) (found []difference, notes []string, err error) {
	sets, err := readSets(files)
	if err != nil {
		return nil, nil, fmt.Errorf("compare: %w", err)
	}
	place := func(i int) store.Place { return store.Place{Number: i + 1, Names: []string{sets[i].name}} }
	all := make([]int, len(sets))
	for i := range all {
		all[i] = i
	}
	chosen, base := all, 0
	if o.Rows != nil {
		if chosen, err = store.Choose(all, place, o.Rows); err != nil {
			return nil, nil, human.Misusef("--rows: %w", err)
		}
	}
	if o.Baseline != "" {
		bases, err := store.Choose(all, place, []string{o.Baseline})
		if err == nil && len(bases) > 1 {
			err = fmt.Errorf("%q is several sets", o.Baseline)
		}
		if err != nil {
			return nil, nil, human.Misusef("--baseline: %w", err)
		}
		base = bases[0]
	}
	var faults []error
	told := map[string]bool{}
	for _, i := range chosen {
		if i == base {
			continue
		}
		more, err := sets[i].less(sets[base], o.Metrics)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s and %s: %w", sets[i].name, sets[base].name, err))
		}
		found = append(found, more...)
		for _, n := range sets[i].remarks(sets[base]) {
			if !told[n] {
				told[n] = true
				notes = append(notes, warning+n)
			}
		}
	}
	if err = errors.Join(faults...); err == nil && len(found) == 0 {
		err = errors.New("no set beside the baseline, or no metric in common; there is nothing to compare")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("compare: %w", err)
	}
	correct(found)
	return found, notes, nil
}

// less compares the set's scores with those of a baseline. It is an error where one has no
// draws, or they were evaluated in different ways.
func (s evaluatedSet) less(base evaluatedSet, metrics []string) (out []difference, err error) {
	if apart := s.apart(base); apart != nil {
		return nil, fmt.Errorf("they were evaluated in different ways, and their scores do not compare: %s; evaluate them alike", strings.Join(apart, "; "))
	}
	for _, one := range []evaluatedSet{s, base} {
		if one.Draws == nil {
			err = errors.Join(err, fmt.Errorf("%s holds no draws of %s: make it anew with `sagbench eval … --bootstrap 200 --json FILE`; features that are in the cache are not computed again", one.file, one.Inputs["samples"].Name))
		}
	}
	if err != nil {
		return nil, err
	}
	for _, name := range metrics {
		if s.Draws.Values[name] == nil || base.Draws.Values[name] == nil {
			return nil, fmt.Errorf("there is no metric %q in both; known: %s", name, strings.Join(slices.Sorted(maps.Keys(s.Draws.Values)), ", "))
		}
	}
	for _, score := range s.Scores {
		i := slices.IndexFunc(base.Scores, func(b store.Score) bool { return b.Name == score.Name })
		mine, theirs := s.Draws.Values[score.Name], base.Draws.Values[score.Name]
		if i < 0 || mine == nil || theirs == nil || len(metrics) > 0 && !slices.Contains(metrics, score.Name) {
			continue
		}
		d := newDifference(score, base.Scores[i], mine, theirs, s.pairs(base))
		d.row, d.baseline, d.images, d.others = s.name, base.name, s.Samples, base.Samples
		out = append(out, d)
	}
	return out, nil
}

// pairs says what makes pairs of the images of two sets: that draw b holds the same of
// both takes the same seed and number, and that they belong together, the same names in
// the same order, or the same content.
func (s evaluatedSet) pairs(base evaluatedSet) string {
	a, b := s.Draws, base.Draws
	switch {
	case a.Seed != b.Seed || a.Images != b.Images:
		return ""
	case a.Names != "" && a.Names == b.Names:
		return byName
	case s.sameImages(base):
		return byContent
	}
	return ""
}

// sameImages reports whether two evaluations scored the same images in the same order. One
// file holds others where other ones were chosen of it.
func (s evaluatedSet) sameImages(base evaluatedSet) bool {
	a, b := s.Inputs["samples"], base.Inputs["samples"]
	if a.Images != nil && b.Images != nil && a.Images.Content != "" && b.Images.Content != "" {
		return a.Images.Content == b.Images.Content
	}
	x, y := s.Settings, base.Settings
	return a.SHA256 == b.SHA256 && x.First == y.First && x.Random == y.Random && x.SubsetSeed == y.SubsetSeed
}

// apart says in what two evaluations differ that their scores depend on beside the
// samples.
func (s evaluatedSet) apart(base evaluatedSet) (found []string) {
	differs := func(what, ours, theirs string) {
		if ours != theirs {
			found = append(found, fmt.Sprintf("%s (%s, %s)", what, ours, theirs))
		}
	}
	a, b := s.Settings, base.Settings
	differs("protocol", s.Protocol, base.Protocol)
	differs("network", a.Network, b.Network)
	differs("resize", a.Resize, b.Resize)
	differs("input size", strconv.Itoa(a.InputSize), strconv.Itoa(b.InputSize))
	for _, use := range slices.Sorted(maps.Keys(s.Inputs)) {
		ours, theirs := s.Inputs[use], base.Inputs[use]
		if use == "samples" || theirs.SHA256 == "" {
			continue
		}
		what := "content of the " + use
		if use != "reference" && use != "network" {
			what = "content of " + use
		}
		differs(what, fmt.Sprintf("%.12s…", ours.SHA256), fmt.Sprintf("%.12s…", theirs.SHA256))
		differs("settings of "+use, canonical(ours.Network), canonical(theirs.Network))
	}
	for _, m := range a.Metrics {
		for name, options := range m {
			for _, n := range b.Metrics {
				if others, both := n[name]; both {
					differs("options of "+name, canonical(options), canonical(others))
				}
			}
		}
	}
	return found
}

// canonical is a value as JSON, with sorted keys.
func canonical(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// remarks are what does not keep two evaluations from being compared, but has to be known.
func (s evaluatedSet) remarks(base evaluatedSet) (found []string) {
	if s.Samples != base.Samples {
		found = append(found, fmt.Sprintf("%s has %s images, %s %s: FID, sFID, IS, recall and coverage change with the number, and a part of these differences is due to it; evaluate equal numbers",
			s.name, human.Count(s.Samples), base.name, human.Count(base.Samples)))
	}
	if s.sameImages(base) {
		found = append(found, fmt.Sprintf("%s and %s have the same content", s.name, base.name))
	}
	if a, b := canonical(s.Versions), canonical(base.Versions); a != b {
		found = append(found, fmt.Sprintf("%s and %s were evaluated by different versions (%s, %s), which may differ in last digits", s.name, base.name, a, b))
	}
	if a, b := s.Settings.Device, base.Settings.Device; a != b {
		found = append(found, fmt.Sprintf("%s and %s were evaluated on different devices (%s, %s), which differ in last digits", s.name, base.name, a, b))
	}
	if a, b := s.Inputs["reference"].Images, base.Inputs["reference"].Images; a != nil && b != nil && len(a.Broken) != len(b.Broken) {
		found = append(found, fmt.Sprintf("of the reference %s, broken images were left out for %s and not for %s, or others", filepath.Base(s.Inputs["reference"].Name), s.name, base.name))
	}
	if s.Settings.Bootstrap != base.Settings.Bootstrap {
		found = append(found, fmt.Sprintf("%s has %s draws, %s %s: the first %s of both are compared", s.name, human.Count(s.Settings.Bootstrap), base.name, human.Count(base.Settings.Bootstrap), human.Count(min(s.Settings.Bootstrap, base.Settings.Bootstrap))))
	}
	return found
}
