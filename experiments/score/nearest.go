package score

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/neighbours"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
)

// Nearest says what is looked for among the reference images: neighbours of the samples in
// the features of the main network.
type Nearest struct {
	Neighbours int // of each sample; 0: nothing is looked for
	Samples    int // that are shown: those closest to the reference
}

// checkImages is an error where a set has no images that neighbours could be shown of.
func (s fileSet) checkImages(ctx context.Context) error {
	set, err := eval.ReadReference(ctx, s.path, s.read)
	if err != nil {
		return err
	}
	defer set.Close()
	if set.Images == nil {
		return fmt.Errorf("%s: holds statistics or features, and --neighbours shows images: give a set that has them", s.path)
	}
	return nil
}

// findNearest finds the samples that are closest to the reference, and what they are
// close to, with the pixels of all.
func (e *Engine) findNearest(ctx context.Context, j job, c plan.Comparison, ref, gen *eval.Features, readRef, readGen images.Report, out *outcome) error {
	k := j.nearest.Neighbours
	if k > ref.N {
		return fmt.Errorf("%s has %d images, fewer than the %d neighbours that are asked for", ref.Source, ref.N, k)
	}
	e.progress.Stage("nearest reference images", "samples", 0, gen.N)
	defer e.progress.End()
	all, err := neighbours.Nearest(ctx, gen.Products, ref.Pool, gen.Pool, gen.D, k)
	if err != nil {
		return err
	}
	order, copies := make([]int, len(all)), 0
	for i, found := range all {
		order[i] = i
		if found[0].Distance == 0 {
			copies++
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(all[a][0].Distance, all[b][0].Distance) })
	order = order[:min(j.nearest.Samples, len(order))]
	if copies > 0 {
		e.say(out, fmt.Sprintf("%d of %d samples have exactly the features of a reference image: they are copies of it", copies, gen.N))
	}
	n := &store.Neighbours{Network: c.Name, Reference: ref.N}
	samples, others := map[int]*store.Picture{}, map[int]*store.Picture{}
	at := func(of map[int]*store.Picture, i int) *store.Picture {
		if of[i] == nil {
			of[i] = &store.Picture{Index: i}
		}
		return of[i]
	}
	for _, i := range order {
		s := store.NearSample{Picture: at(samples, i)}
		for _, found := range all[i] {
			s.Nearest = append(s.Nearest, store.Neighbour{Picture: at(others, found.Index), Distance: found.Distance})
		}
		n.Samples = append(n.Samples, s)
	}
	errRef := j.reference.pictures(ctx, others, readRef)
	set, ok := j.samples.(fileSet)
	if !ok {
		return errors.New("score: pictures of what is no file")
	}
	if err := errors.Join(errRef, set.pictures(ctx, samples, readGen)); err != nil {
		return err
	}
	out.nearest = n
	return nil
}

// pictures reads names and pixels of images, by their places among those that are not
// broken.
func (s fileSet) pictures(ctx context.Context, of map[int]*store.Picture, read images.Report) error {
	set, err := eval.ReadReference(ctx, s.path, s.read)
	if err != nil {
		return err
	}
	defer set.Close()
	broken := map[string]bool{}
	for _, b := range read.Broken {
		broken[b.Name] = true
	}
	at, left := -1, len(of)
	for p, err := range set.Images.Images() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return images.WithPath(err, s.path)
		}
		if left == 0 {
			break
		}
		if broken[p.Name] {
			continue
		}
		at++
		picture := of[at]
		if picture == nil {
			continue
		}
		left--
		picture.Name = p.Name
		if picture.Image, err = p.Decode(); err != nil {
			return fmt.Errorf("%s: %s: %w", s.path, p.Name, err)
		}
	}
	if left > 0 {
		return fmt.Errorf("%s: has fewer images than features were made of: it was changed meanwhile", s.path)
	}
	return nil
}
