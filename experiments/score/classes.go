package score

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
)

// maxClasses bounds the classes of a set: who has more has labels of images.
const maxClasses = 20_000

// byClass are the classes of the images of both sets, broken images included.
type byClass struct{ reference, samples []images.About }

// classesOf reads the classes of a set's images. It is an error where none has any.
func (s fileSet) classesOf(ctx context.Context) ([]images.About, error) {
	set, err := eval.ReadReference(ctx, s.path, s.read)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	if set.Images == nil {
		return nil, fmt.Errorf("%s: holds no images, of which scores by class are: give the images themselves", s.path)
	}
	var all []images.About
	classes := map[string]bool{}
	for a, err := range set.Images.Abouts() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, images.WithPath(err, s.path)
		}
		all = append(all, images.About{Name: a.Name, Class: a.Class})
		classes[a.Class] = true
	}
	delete(classes, "")
	switch {
	case len(classes) == 0:
		return nil, fmt.Errorf("%s: says nothing of classes: they are the array arr_1 of an .npz, the folders of images where there are two or more, or labels beside images", s.path)
	case len(classes) > maxClasses:
		return nil, fmt.Errorf("%s: has %s classes, more than the %s that are read: are its labels those of single images?", s.path, human.Count(len(classes)), human.Count(maxClasses))
	}
	return all, nil
}

// indices are, by class, the images of a set whose features there are: all but the broken
// ones. The images without a class are counted.
func indices(abouts []images.About, f *eval.Features, read images.Report) (of map[string][]int, without int, err error) {
	broken := map[string]bool{}
	for _, b := range read.Broken {
		broken[b.Name] = true
	}
	of = map[string][]int{}
	n := 0
	for _, a := range abouts {
		if broken[a.Name] {
			continue
		}
		if a.Class == "" {
			without++
		} else {
			of[a.Class] = append(of[a.Class], n)
		}
		n++
	}
	if n != f.N {
		return nil, 0, fmt.Errorf("%s: classes of %d images, features of %d: it was changed meanwhile, or features of single images are of others", f.Source, n, f.N)
	}
	return of, without, nil
}

// scoreClasses adds the scores of each class, by one network's metrics, to the outcome.
func (e *Engine) scoreClasses(ctx context.Context, j job, c plan.Comparison, ref, gen *eval.Features, readRef, readGen images.Report, out *outcome) error {
	refOf, refWithout, errRef := indices(j.classes.reference, ref, readRef)
	genOf, genWithout, errGen := indices(j.classes.samples, gen, readGen)
	if err := errors.Join(errRef, errGen); err != nil {
		return err
	}
	if out.perClass == nil {
		out.perClass = &store.PerClass{SamplesWithout: genWithout, ReferenceWithout: refWithout}
		out.perClass.OnlyReference, out.perClass.OnlySamples = missing(refOf, genOf), missing(genOf, refOf)
		for _, n := range apartNotes(out.perClass, ref, gen) {
			e.say(out, n)
		}
	}
	var metrics []eval.Metric
	var blind []string
	for _, m := range c.Metrics() {
		if m.Needs().Reference == (eval.Parts{}) {
			blind = append(blind, m.Column().Title)
			continue
		}
		metrics = append(metrics, m)
	}
	if blind != nil {
		e.say(out, fmt.Sprintf("by class there is no %s, which does not look at the reference", strings.Join(blind, ", ")))
	}
	shared := inOrder(slices.DeleteFunc(slices.Collect(maps.Keys(genOf)), func(class string) bool { return refOf[class] == nil }))
	if len(shared) == 0 {
		return fmt.Errorf("%s and %s have no class in common: the one has %s, the other %s", ref.Source, gen.Source, someOf(refOf), someOf(genOf))
	}
	e.progress.Stage("classes", "classes", 0, len(shared))
	defer e.progress.End()
	few, fewest := 0, math.MaxInt
	for _, class := range shared {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, errRef := ref.Subset(refOf[class])
		g, errGen := gen.Subset(genOf[class])
		if err := errors.Join(errRef, errGen); err != nil {
			return err
		}
		if n := min(r.N, g.N); n <= g.D {
			few, fewest = few+1, min(fewest, n)
		}
		scores, failed := scoreClass(ctx, r, g, metrics)
		out.perClass.Add(class, g.N, r.N, scores, failed)
		e.progress.Add(1)
	}
	if few > 0 && slices.ContainsFunc(metrics, func(m eval.Metric) bool { return m.Needs().Generated.Stats }) {
		e.say(out, fmt.Sprintf("%d of %d classes have no more images, on one side, than the %d features (%d at least): their covariances are singular, and their FIDs too high; they compare only with those of as many images", few, len(shared), gen.D, fewest))
	}
	out.perClass.Sort()
	return nil
}

// scoreClass scores the images of one class; what it lacks is among the failures.
func scoreClass(ctx context.Context, ref, gen *eval.Features, metrics []eval.Metric) (scores []store.Score, failed []store.Failure) {
	for _, m := range metrics {
		if least := m.MinImages(); min(ref.N, gen.N) < least {
			failed = append(failed, store.Failure{Metric: m.Column().Name, Reason: fmt.Sprintf("takes %d images on either side", least)})
			continue
		}
		report, _ := eval.Evaluate(ctx, ref, gen, m) // its error is that of its failures
		more, without, _ := scoresOf(report, ref, gen)
		scores, failed = append(scores, more...), append(failed, without...)
	}
	return scores, failed
}

// missing are the classes of one set that another lacks.
func missing(of, other map[string][]int) (classes []string) {
	for class := range of {
		if other[class] == nil {
			classes = append(classes, class)
		}
	}
	return inOrder(classes)
}

// inOrder sorts classes: numbers by their size, before others.
func inOrder(classes []string) []string {
	slices.SortFunc(classes, func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		switch {
		case errX == nil && errY == nil:
			return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
		case (errX == nil) != (errY == nil):
			if errX == nil {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	return classes
}

// someOf names some classes.
func someOf(of map[string][]int) string {
	classes := inOrder(slices.Collect(maps.Keys(of)))
	const most = 8
	if more := len(classes) - most; more > 0 {
		classes = append(classes[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(classes, ", ")
}

// apartNotes tell what the classes of the two sets do not have in common.
func apartNotes(p *store.PerClass, ref, gen *eval.Features) (notes []string) {
	for _, side := range []struct {
		set     *eval.Features
		only    []string
		without int
	}{{ref, p.OnlyReference, p.ReferenceWithout}, {gen, p.OnlySamples, p.SamplesWithout}} {
		name := filepath.Base(side.set.Source)
		if n := len(side.only); n > 0 {
			of := map[string][]int{}
			for _, class := range side.only {
				of[class] = nil
			}
			notes = append(notes, fmt.Sprintf("classes of %s alone (%d), which have no scores: %s", name, n, someOf(of)))
		}
		if side.without > 0 {
			notes = append(notes, fmt.Sprintf("%s of the %s images of %s have no class and count in none", human.Count(side.without), human.Count(side.set.N), name))
		}
	}
	return notes
}
