package score

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/models"
)

// unitImages is how many images of a set a process makes features of at a time where
// several share the set: 64 calls of the network, and a block of eval.Accumulator.
const unitImages = 64 * FeatureBatch

// A Share has several processes make the features of sets together. Part 0 goes on with
// them; the others only help.
type Share struct {
	Folder string // that they have in common
	Work   work.Options
}

func (s *Share) helps() bool { return s != nil && s.Work.Part.I > 0 }

// errHelped is where a process ends that only helps: features are made, and another
// process has them.
var errHelped = errors.New("another process goes on with the features")

// sharedFeatures are what Features returns, made together with other processes where
// there are some; key tells of what they are.
func (x *Extractor) sharedFeatures(ctx context.Context, from Source, opt images.Options, want eval.Parts, key []byte, tick func(int)) (*eval.Features, images.Report, error) {
	if x.share != nil && from.N > unitImages {
		f, report, err := x.share.features(ctx, x, from, opt, want, key, tick)
		if err == nil || ctx.Err() != nil || x.share.helps() {
			return f, report, err
		}
		// Alone the error is that of one process: it lists all broken images.
	}
	return x.Features(ctx, from, opt, want, tick)
}

// features are what Features returns, made together with the other processes; key tells
// of what they are.
func (s *Share) features(ctx context.Context, x *Extractor, from Source, opt images.Options, want eval.Parts, key []byte, tick func(int)) (*eval.Features, images.Report, error) {
	var none images.Report
	u := &unitJob{x: x, from: from, opt: opt, key: key, rows: rowsFor(want), tick: tick, folder: filepath.Join(s.Folder, fmt.Sprintf("%x %v", key[:8], want))}
	if err := os.MkdirAll(u.folder, 0o755); err != nil {
		return nil, none, err
	}
	defer u.close()
	agreed := work.Plan{Data: key, Differs: func(data []byte) error {
		if string(data) != string(key) {
			return errors.New("  other images, or another network")
		}
		return nil
	}}
	w, err := work.Join(ctx, work.Disk{}, u.folder, work.About{Device: x.options.Device}, agreed, s.Work)
	if err != nil {
		return nil, none, err
	}
	defer w.Leave()
	u.by = w.ID
	if err := w.Work(ctx, u); err != nil {
		return nil, none, err
	}
	if s.helps() {
		return nil, none, errHelped
	}
	return u.replay(want)
}

// rowsFor are the parts of a unit: the rows from which those that are wanted follow.
func rowsFor(want eval.Parts) eval.Parts {
	return eval.Parts{Pool: true, Logits: want.Logits, SpatialRows: want.Spatial || want.SpatialRows, Outputs: want.Outputs}
}

// A unitJob is the work.Job of making features: one row, whose units are files of
// features of unitImages images.
type unitJob struct {
	x      *Extractor
	from   Source
	opt    images.Options
	key    []byte
	rows   eval.Parts
	folder string
	by     string
	tick   func(int)
	there  int // units, as far as tick was told

	at   int // image that next gives
	next func() (images.Pending, error, bool)
	stop func()
}

var _ work.Job = (*unitJob)(nil)

func (u *unitJob) file(k int) string { return filepath.Join(u.folder, fmt.Sprintf("%06d.npz", k)) }

func (u *unitJob) size(k int) int { return min(unitImages, u.from.N-k*unitImages) }

// Rows implements work.Job.
func (u *unitJob) Rows() []work.Row {
	return []work.Row{{Key: "features", Units: (u.from.N + unitImages - 1) / unitImages}}
}

// Missing implements work.Job.
func (u *unitJob) Missing(int) (missing []int, err error) {
	names, err := work.Disk{}.Names(u.folder)
	there := map[string]bool{}
	for _, n := range names {
		there[filepath.Join(u.folder, n)] = true
	}
	done := 0
	for k := range u.Rows()[0].Units {
		if there[u.file(k)] {
			done += u.size(k)
		} else {
			missing = append(missing, k)
		}
	}
	u.tick(done - u.there)
	u.there = done
	return missing, err
}

// There implements work.Job.
func (u *unitJob) There(at work.Unit) (bool, error) { return store.Exists(u.file(at.K)), nil }

// Draw implements work.Job.
func (u *unitJob) Draw(ctx context.Context, at work.Unit) error {
	begin := at.K * unitImages
	part := Source{u.from.Name, u.size(at.K), u.slice(begin)}
	c := newCollector(u.x, u.rows, part.N)
	report, err := u.x.collect(ctx, part, u.opt, c, func(int) {})
	if err != nil {
		var broken *models.NotFinite
		if errors.As(err, &broken) {
			broken.Image += begin
		}
		return err
	}
	f, err := c.features()
	if err != nil {
		return err
	}
	_, err = work.Publish(work.Disk{}, u.file(at.K), u.by, func(w io.Writer) error {
		return store.EncodeFeatures(w, u.file(at.K), u.key, f, report)
	})
	return err
}

// slice are the images of a unit that begins with one of them. Most units follow the
// one before: the set is read on where that ended.
func (u *unitJob) slice(begin int) iter.Seq2[images.Pending, error] {
	return func(yield func(images.Pending, error) bool) {
		if u.next == nil || u.at > begin {
			u.close()
			u.next, u.stop = iter.Pull2(u.from.Images)
			u.at = 0
		}
		for end := min(begin+unitImages, u.from.N); u.at < end; {
			p, err, ok := u.next()
			if !ok {
				return
			}
			u.at++
			if (err != nil || u.at > begin) && !yield(p, err) {
				return
			}
		}
	}
}

func (u *unitJob) close() {
	if u.stop != nil {
		u.stop()
		u.next, u.stop = nil, nil
	}
}

// Finish implements work.Job: there is nothing to do but to see that all units are there.
func (u *unitJob) Finish(context.Context, int) (bool, error) { return u.Finished(0) }

// Finished implements work.Job.
func (u *unitJob) Finished(int) (bool, error) {
	missing, err := u.Missing(0)
	return len(missing) == 0, err
}

// Wait implements work.Job.
func (*unitJob) Wait(string) {}

// replay puts the rows of all units through the same accumulators that one process puts
// them through, in the order of the images: statistics have its bytes.
func (u *unitJob) replay(want eval.Parts) (*eval.Features, images.Report, error) {
	c := newCollector(u.x, want, u.from.N)
	var all images.Report
	for k := range u.Rows()[0].Units {
		f, report, ok := store.ReadFeatures(u.file(k), u.key, u.rows)
		if !ok {
			return nil, all, fmt.Errorf("%s: is damaged", u.file(k))
		}
		if err := c.addRows(f); err != nil {
			return nil, all, err
		}
		all.Add(report)
	}
	f, err := c.features()
	return f, all, err
}
