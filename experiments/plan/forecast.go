package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sagbench/configs"
	"sagbench/experiments/human"
	"sagbench/models"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A Forecast is what an experiment still has to do.
type Forecast struct {
	Rows      []RowForecast
	Timed     bool   // the rows have times, from a trial
	folder    string // that will hold the results
	diskSpace int64  // bytes that its disk can take; -1 = unknown

	search *Experiment // whose rows are searched; nil where there is no search
}

// A RowForecast is what one row still has to do.
type RowForecast struct {
	Row     *Row
	Folder  string        // of its run; "" until its checkpoint is there
	Images  int           // still to draw
	Passes  int           // of an image through the network, guidance included
	AtLeast bool          // there may be more passes: the sampler chooses as it goes
	calls   int           // of the network still to make, each for a batch
	Others  []int         // passes of an image through each guidance's own network
	perStep string        // passes and calls of a step
	bytes   int64         // still to write: samples and features
	Time    time.Duration // in all networks; 0 without a trial
	Labels  string        // how images get their classes, and how many each has; "" where that is not known, or there are none
}

// Forecast counts what is left to do. results is the folder of all results, done
// tells how many of a row's images are there; nil means none.
func (e *Experiment) Forecast(ctx context.Context, results string, done func(*Row) int) (*Forecast, error) {
	f := &Forecast{folder: filepath.Join(results, e.Name)}
	var faults []error
	for _, r := range e.Rows {
		p := RowForecast{Row: r, Images: r.Samples}
		if done != nil {
			p.Images = max(0, r.Samples-done(r))
		}
		costs, err := r.Costs(ctx)
		faults = append(faults, err, r.checkTrace())
		one := total(costs.Own)
		p.Passes, p.perStep = one.Passes, costs.String()
		for _, o := range costs.Others {
			p.Others = append(p.Others, total(o).Passes)
		}
		p.AtLeast = least(r.Sampler.Value) != r.Sampler.Value
		p.calls = (p.Images + r.Batch - 1) / r.Batch * one.Calls
		if p.Images > 0 {
			p.bytes = int64(p.Images)*r.imageBytes() + r.featureBytes()
		}
		p.bytes += int64(min(r.Trace.Images, r.Samples)*r.Trace.Steps) * 3 * r.imageBytes() // three pictures of each
		f.Rows = append(f.Rows, p)
	}
	f.diskSpace = spaceFor(f.folder)
	if e.Search() != nil {
		f.search = e
	}
	return f, configs.Join(faults...)
}

// ImageSides are the height and width of the row's images in pixels; 0 where
// neither the model's flags nor its checkpoint tell.
func (r *Row) ImageSides() (height, width int) {
	if f, ok := r.Model.Flags.(models.WithImageSide); ok {
		return f.ImageSides(r.Model.Checkpoint.Path)
	}
	return 0, 0
}

// imageBytes is what an image takes on the disk; 0 where that is not known.
func (r *Row) imageBytes() int64 {
	height, width := r.ImageSides()
	return 3 * int64(height) * int64(width)
}

// maxTrace bounds the memory that a trace takes while it is made, in bytes.
const maxTrace = 4 << 30

// checkTrace is an error where the row's trace would take too much memory: of an image
// at a step three pictures, and six arrays of float32 of as many values at most.
func (r *Row) checkTrace() error {
	if bytes := int64(r.Trace.Images*r.Trace.Steps) * (3 + 6*4) * r.imageBytes(); bytes > maxTrace {
		height, width := r.ImageSides()
		return fmt.Errorf("row %q: trace: %d images of %d×%d pixels at %d steps take %s of memory, expected at most %s; ask for fewer", r.Title(), r.Trace.Images, height, width, r.Trace.Steps, human.Bytes(bytes), human.Bytes(maxTrace))
	}
	return nil
}

// featureBytes is what the features of the row's images take on the disk: rows of
// pool features in float32 and the covariance matrices in float64.
func (r *Row) featureBytes() int64 {
	sum := int64(0)
	for _, c := range r.Comparisons {
		pool, spatial := c.Flags.Features(c.Weights.Path)
		if pool == 0 {
			pool = 2048 // of the official Inception, until the file tells
		}
		want := c.Needs().Generated
		sum += 8 * int64(pool) * int64(pool)
		if want.Pool {
			sum += 4 * int64(pool) * int64(r.Samples)
		}
		if want.Spatial {
			sum += 8 * int64(spatial) * int64(spatial)
		}
	}
	return sum
}

// Images is how many images are still to be drawn.
func (f *Forecast) Images() int {
	n := 0
	for _, p := range f.Rows {
		n += p.Images
	}
	return n
}

// Wanted are the images that each row is to have, by the folder of its run.
func (f *Forecast) Wanted() map[string]int {
	wanted := map[string]int{}
	for _, p := range f.Rows {
		if p.Folder != "" {
			wanted[p.Folder] = p.Row.Samples
		}
	}
	return wanted
}

// Passes is how many passes of an image through the networks are still to be made.
func (f *Forecast) Passes() int {
	n := 0
	for _, p := range f.Rows {
		n += p.Images * p.Passes
	}
	return n
}

// bytes is the disk space that is needed at most: a row's samples are there
// twice while its shards are put into one file.
func (f *Forecast) bytes() int64 {
	var sum, most int64
	for _, p := range f.Rows {
		sum += p.bytes
		if p.Images > 0 {
			most = max(most, int64(p.Row.Samples)*p.Row.imageBytes())
		}
	}
	return sum + most
}

// unsized tells whether the size of some images that are to be drawn is not known.
func (f *Forecast) unsized() bool {
	return slices.ContainsFunc(f.Rows, func(p RowForecast) bool { return p.Images > 0 && p.Row.imageBytes() == 0 })
}

// Print writes a table with a line for each row, and the sums.
func (f *Forecast) Print(out io.Writer) error {
	t := human.Table{Fixed: 2, Align: "rlrrrll", Head: []string{"", "row", "images", "to do", "passes per image", "per step", "folder"}}
	if f.Timed {
		t.Head, t.Align = slices.Insert(t.Head, 6, "time"), t.Align+"l"
	}
	for _, r := range f.Rows {
		line := []string{fmt.Sprint(r.Row.Index + 1), r.Row.Title(), human.Count(r.Row.Samples), human.Count(r.Images), fmt.Sprintf("%s%d", atLeast(r.AtLeast), r.Passes),
			r.perStep, cmp.Or(r.Folder, "(known when the checkpoint is there)")}
		if f.Timed {
			line = slices.Insert(line, 6, human.Duration(r.Time))
		}
		t.Lines = append(t.Lines, line)
	}
	if err := t.Print(out); err != nil {
		return err
	}
	if rounds := f.rounds(); rounds != "" {
		fmt.Fprintf(out, "\n%s", rounds)
	}
	_, err := fmt.Fprintf(out, "\n%s\n", human.Wrap(strings.TrimRight(f.String(), "\n"), human.Columns(out), 2))
	return err
}

// String is the sums for people: images, passes and calls, disk space, time.
func (f *Forecast) String() string {
	calls, others, more := 0, 0, false
	var total time.Duration
	for _, p := range f.Rows {
		calls, total, more = calls+p.calls, total+p.Time, more || p.AtLeast && p.Images > 0
		for _, n := range p.Others {
			others += p.Images * n
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "to do: %s images in %d rows: %s%s passes through the network, in %s%s calls\n", human.Count(f.Images()), len(f.Rows), atLeast(more), human.Count(f.Passes()), atLeast(more), human.Count(calls))
	if others > 0 {
		fmt.Fprintf(&out, "       %s%s passes through the networks of guidances\n", atLeast(more), human.Count(others))
	}
	atMost := "at most"
	if f.unsized() {
		atMost = "at most without the images, whose size is not known before the checkpoint is there,"
	}
	fmt.Fprintf(&out, "disk:  %s %s in %s", human.Bytes(f.bytes()), atMost, f.folder)
	if f.diskSpace >= 0 {
		fmt.Fprintf(&out, ", %s free", human.Bytes(f.diskSpace))
		if f.bytes() > f.diskSpace {
			out.WriteString(": NOT ENOUGH; free some space or choose another disk with --results")
		}
	}
	out.WriteString("\n")
	out.WriteString(f.labels())
	out.WriteString(f.prompts())
	if f.Timed {
		about := "about "
		if more {
			about = atLeast(more)
		}
		fmt.Fprintf(&out, "time:  %s%s, from a trial of two batches\n", about, human.Duration(total))
	}
	return out.String()
}

// atLeast is what stands before a number that may be larger, such as of calls of a
// sampler with steps of its own choice.
func atLeast(more bool) string {
	if more {
		return "at least "
	}
	return ""
}

// spaceFor is the number of bytes that the disk of a folder, which need not be
// there yet, can take; -1 if it cannot be told.
func spaceFor(folder string) int64 {
	folder, err := filepath.Abs(folder)
	for err == nil {
		var s unix.Statfs_t
		if e := unix.Statfs(folder, &s); e == nil {
			return int64(s.Bavail) * int64(s.Bsize)
		} else if !errors.Is(e, fs.ErrNotExist) || folder == filepath.Dir(folder) {
			return -1
		}
		folder = filepath.Dir(folder)
	}
	return -1
}

// A Cost is what is asked of a network. A call may take an image several times,
// under several conditions.
type Cost struct {
	Calls  int // with a batch
	Passes int // of an image
}

// String is the cost in words: "3 passes in 2 calls".
func (c Cost) String() string {
	passes, calls := "passes", "calls"
	if c.Passes == 1 {
		passes = "pass"
	}
	if c.Calls == 1 {
		calls = "call"
	}
	return fmt.Sprintf("%d %s in %d %s", c.Passes, passes, c.Calls, calls)
}

// total is the sum of all steps.
func total(steps []Cost) (sum Cost) {
	for _, c := range steps {
		sum.Calls, sum.Passes = sum.Calls+c.Calls, sum.Passes+c.Passes
	}
	return sum
}

// Costs are what each step of a row's sampler asks of the row's networks.
type Costs struct {
	Own    []Cost   // of the network that draws, by step; at least, where the sampler chooses
	Others [][]Cost // of the network of each attachment, by step
	Null   bool     // whether a network was asked under ∅
	names  []string // of the guidances that have them
}

// String describes the steps, each kind once: "1 pass in 1 call, then 2 passes
// in 2 calls + 1 of classifier", the last through the network of that guidance.
func (c Costs) String() string {
	var kinds []string
	for k, own := range c.Own {
		kind := own.String()
		for i, other := range c.Others {
			if other[k].Passes > 0 {
				kind += fmt.Sprintf(" + %d of %s", other[k].Passes, c.names[i])
			}
		}
		if own.Calls > 0 && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return strings.Join(kinds, ", then ")
}

// A counter stands for a network: it counts what it is asked, and answers that
// there is no noise and that all positions are attended to, whatever the threshold.
type counter struct {
	Cost
	null bool // whether it was asked under ∅, as countedConditions have it of texts
}

// Denoise implements sampling.Denoiser.
func (c *counter) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, cond sampling.Cond) (sampling.Prediction, error) {
	c.Calls, c.Passes = c.Calls+1, c.Passes+x.Rows()
	c.null = c.null || slices.Contains(cond.Context.Data, 1)
	p := sampling.Prediction{Eps: x.Like(), Attn: tensor.New(x.Rows(), x.Shape[2]*x.Shape[3])}
	for i := range p.Attn.Data {
		p.Attn.Data[i] = math.MaxFloat32
	}
	return p, nil
}

// Classes implements sampling.Classifier.
func (c *counter) Classes() int { return 2 }

// Null is ∅.
func (c *counter) Null(_ context.Context, n int) (sampling.Cond, error) {
	return sampling.Cond{Labels: make([]int64, n)}, nil
}

// Gradient implements sampling.Classifier.
func (c *counter) Gradient(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ []int64) (tensor.Tensor, error) {
	c.Calls, c.Passes = c.Calls+1, c.Passes+x.Rows()
	return x.Like(), nil
}

// take is the cost since the last time.
func (c *counter) take() Cost {
	cost := c.Cost
	c.Cost = Cost{}
	return cost
}

// Costs counts what each step asks of the row's networks. It draws a small image
// with counters in their place, so that samplers and guidances need not tell. An
// error of a guidance that cannot work with the row's networks comes out here.
func (r *Row) Costs(ctx context.Context) (costs Costs, err error) {
	own, attached := &counter{}, []any{}
	for _, a := range r.Attachments {
		attached, costs.names = append(attached, &counter{}), append(costs.names, a.Name)
	}
	process := models.Process{Schedule: r.schedule, ClipDenoised: true}
	if r.schedule.Path != nil {
		process.Predicts = sampling.V // of which x_0 and ε follow at every time
	}
	p, err := r.Predictor(ctx, own, process, attached)
	if err != nil {
		return Costs{}, err
	}
	costs.Others = make([][]Cost, len(attached))
	p.Trace = func(name string, _ sampling.Timestep, _ tensor.Tensor) {
		if name != "x" {
			return
		}
		costs.Own, costs.Null = append(costs.Own, own.take()), costs.Null || own.null
		for i, a := range attached {
			costs.Null = costs.Null || a.(*counter).null
			costs.Others[i] = append(costs.Others[i], a.(*counter).take())
		}
	}
	sampler := least(r.Sampler.Value)
	if p.Schedule, err = sampler.Schedule(r.schedule); err != nil {
		return Costs{}, err
	}
	p.Cond, p.Null = r.countedConditions()
	noise := sampling.Keyed{Images: []int{0}}
	p.Random = noise
	x := tensor.New(1, 3, 8, 8)
	if err := noise.Fill(-1, x); err != nil {
		return Costs{}, err
	}
	if _, err := sampler.Sample(ctx, p, x, noise); err != nil {
		return Costs{}, fmt.Errorf("row %q: %w", r.Title(), err)
	}
	return costs, nil
}

// least is the sampler, or one that calls the network as often as it does at least.
func least(s sampling.Sampler) sampling.Sampler {
	if a, ok := s.(sampling.Adaptive); ok {
		if l := a.Least(); l != nil {
			return l
		}
	}
	return s
}

// countedConditions are conditions of one image of the kinds that the row's
// networks take, so that a guidance finds what is missing.
func (r *Row) countedConditions() (cond, null sampling.Cond) {
	of := conditioning(r.Model)
	if of.Text {
		cond.Context = tensor.New(1, 1, 1)
		null.Context = tensor.Of([]float32{1}, 1, 1, 1)
	}
	if of.Labels {
		null.Labels = []int64{1}
	}
	for _, n := range r.Networks() {
		if conditioning(n).Labels {
			cond.Labels = []int64{0}
		}
	}
	if !of.Null {
		null = sampling.Cond{}
	}
	return cond, null
}

// conditioning is what a network is conditioned on; everything where its family
// does not tell.
func conditioning(n NetworkRef) models.Conditioning {
	if c, ok := n.Flags.(models.Conditional); ok {
		return c.Conditioning()
	}
	return models.Conditioning{Labels: true, Null: true}
}

// Predictor is the denoiser d with the given process under the row's guidances,
// without a condition; attached are the networks of the guidances, in the order of
// Attachments.
func (r *Row) Predictor(ctx context.Context, d sampling.Denoiser, process models.Process, attached []any) (*sampling.Predictor, error) {
	if err := r.attach(ctx, attached); err != nil {
		return nil, err
	}
	schedule, err := r.Sampler.Value.Schedule(process.Schedule)
	if err != nil {
		return nil, err
	}
	p := &sampling.Predictor{Denoiser: d, Schedule: schedule, Predicts: process.Predicts, ClipDenoised: process.ClipDenoised}
	for _, g := range r.Guidances {
		p.Guidances = append(p.Guidances, g.Value)
	}
	return p, nil
}
