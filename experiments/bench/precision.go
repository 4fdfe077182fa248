package bench

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sagbench/eval"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/models/ort"
	"sagbench/sampling"
)

// What precisions are compared on, beside one call: images of each embedded family drawn
// with SAG, a few in many steps and many in the steps of the miniature tables.
var precisionRuns = []struct {
	name     string
	settings []string
}{
	{"steps", []string{"samples=8", "sampler=!replace {ddpm: {steps: 50}}"}},
	{"fid", []string{"samples=64", fmt.Sprintf("bootstrap=%d", precisionDraws), "metrics=[fid]"}},
}

const precisionDraws = 200 // of the images, for the interval of the change of FID

// A computation is a device with one of its precisions.
type computation struct{ device, precision string }

// precisions prints how far the embedded families lie from float32 on the CPU in the
// other precisions of the CPU and in all of the device that was chosen: one call, and
// whole runs with SAG on the same noise, in pixels and in FID. Precisions that the
// device lacks are listed below the table. The rows of the device that was chosen go
// into the file of b.write, if there is one.
func (b *bench) precisions() error {
	if b.write != "" {
		if err := writeRows(b.write, nil); err != nil {
			return err // before hours of computing
		}
	}
	exact := computation{"cpu", ort.Float32}
	chosen := cmp.Or(b.options.Device, "cpu")
	var others []computation
	for _, device := range slices.Compact([]string{"cpu", chosen}) {
		for _, p := range ort.AllPrecisions {
			if c := (computation{device, p}); c != exact {
				others = append(others, c)
			}
		}
	}
	fmt.Fprint(b.out, "One call: of 8 images at the first, the middle and the last of 50 steps, relative to float32. 50 steps: 8 images with SAG, s = 0.5, levels of 0 to 255. FID: 64 images in 8 steps with SAG, s = 0.5, by the embedded Inception on the CPU.\n\n")
	b.header(distanceColumns...)
	var rows [][]string // of the device that was chosen
	row := func(c computation, label string, found ...string) {
		cells := slices.Concat([]string{label, c.name(), c.precision}, found, []string{time.Now().Format(time.DateOnly)})
		fmt.Fprint(b.out, tableRow(cells))
		if c.device == chosen {
			rows = append(rows, cells)
		}
	}
	reference, err := b.drawn(exact)
	if err != nil {
		return err
	}
	for _, r := range reference {
		row(exact, r.label, "", "", fmt.Sprintf("%.3f", r.fid), "")
	}
	var lacking []error
	for _, c := range others {
		if err := c.options(b.options).CheckPrecision(c.precision); err != nil {
			lacking = append(lacking, err)
			continue
		}
		found, err := b.drawn(c)
		if err != nil {
			return err
		}
		for i, r := range found {
			row(c, r.label, r.from(reference[i])...)
		}
	}
	for _, err := range lacking {
		fmt.Fprintf(b.out, "\n%v\n", err)
	}
	if b.write == "" {
		return nil
	}
	err = writeRows(b.write, rows)
	if err == nil {
		fmt.Fprintf(b.out, "\n%s has the %d rows of %s now.\n", b.write, len(rows), chosen)
	}
	return err
}

// name is the device of a computation that was drawn in, and what it is.
func (c computation) name() string {
	d, err := ort.ParseDevice(c.device)
	if err != nil {
		return c.device
	}
	hardware := d.HardwareName()
	if d.Name == "cpu" {
		hardware = processor()
	}
	return strings.TrimSuffix(d.String()+", "+hardware, ", ")
}

// options are opt on the computation's device.
func (c computation) options(opt ort.Options) ort.Options {
	opt.Device = c.device
	return opt
}

// A drawing is what a family made in one computation.
type drawing struct {
	label  string
	call   []float32 // of calls of one step each
	pixels []uint8
	fid    float64
	draws  []float64 // FID of each draw of the images
}

// drawn draws and evaluates the embedded families, in a folder of the computation's own
// below the results, where an earlier call may have begun.
func (b *bench) drawn(c computation) ([]drawing, error) {
	var all []drawing
	for i, p := range precisionRuns {
		settings := append([]string{"name=" + p.name, "guidance.sag.scale=0.5"}, p.settings...)
		runs, scored, err := b.experiment(c, settings)
		if err != nil {
			return nil, err
		}
		for k, r := range runs {
			if i == 0 {
				d := drawing{label: r.Label}
				if d.call, err = b.calledOnce(r.Row, c); err == nil {
					d.pixels, err = pixelsOf(b.ctx, r)
				}
				if err != nil {
					return nil, err
				}
				all = append(all, d)
				continue
			}
			replicates, err := store.ReadReplicates(r.Folder, precisionDraws)
			score, ok := scored[k].Score("fid")
			if err != nil || !ok {
				return nil, fmt.Errorf("%s: FID is missing: %w", r.Folder, err)
			}
			all[k].fid, all[k].draws = score.Value, replicates.Values["fid"]
		}
	}
	return all, nil
}

// experiment draws the rows of the embedded families in the computation, and scores
// them on the CPU.
func (b *bench) experiment(c computation, settings []string) (runs []*plan.Run, scored []*store.Metrics, err error) {
	results := filepath.Join(b.results, c.device+"-"+c.precision)
	var folder string
	for _, drawing := range []bool{true, false} {
		e, err := plan.Load("configs/families-fashion.yaml", settings)
		if err == nil {
			err = e.Compute(c.precision)
		}
		if err != nil {
			return nil, nil, err
		}
		opt := c.options(b.options)
		if drawing {
			e.DropMetrics()
		} else {
			opt.Device = "cpu"
		}
		err = run.Experiment(b.ctx, e, run.Options{Results: results, Runtime: opt, Progress: b.progress, Work: work.Defaults(),
			Done: func(in string, of []*store.Metrics) error {
				folder, scored = in, of
				return nil
			}})
		if err != nil {
			return nil, nil, err
		}
		if runs, err = e.Identify(folder, store.Hashes{}); err != nil {
			return nil, nil, err
		}
	}
	return runs, scored, nil
}

// pixelsOf are the images of a run.
func pixelsOf(ctx context.Context, r *plan.Run) (all []uint8, err error) {
	if err := r.Images.Scan(r.Samples, false, func(string) {}); err != nil {
		return nil, err
	}
	err = r.Images.Each(ctx, store.Span{To: r.Samples}, func(pixels []uint8) error {
		all = append(all, pixels...)
		return nil
	})
	return all, err
}

// calledOnce are the network's predictions for a batch of noise at the ends and in the
// middle of the process.
func (b *bench) calledOnce(r *plan.Row, c computation) ([]float32, error) {
	n, err := run.OpenRow(b.ctx, r, c.options(b.options))
	if err != nil {
		return nil, err
	}
	defer n.Close()
	x, cond, err := run.NoiseInput(n, r.Samples)
	if err != nil {
		return nil, err
	}
	p := &sampling.Predictor{Cond: cond}
	if err := n.Prompt(b.ctx, r, p, store.Span{To: r.Samples}); err != nil {
		return nil, err
	}
	s, err := r.Sampler.Value.Schedule(n.Process().Schedule)
	if err != nil {
		return nil, err
	}
	var all []float32
	for _, i := range []int{0, s.Len() / 2, s.Len() - 1} {
		out, err := n.Denoise(b.ctx, x, s.Timestep(i), p.Cond)
		if err != nil {
			return nil, err
		}
		all = append(all, out.Eps.Data...)
	}
	return all, nil
}

// from are the columns of how far d is from the drawing in float32.
func (d drawing) from(exact drawing) []string {
	largest, mean := distance(d.call, exact.call)
	sum, most := 0.0, 0.0
	for i, p := range d.pixels {
		off := math.Abs(float64(p) - float64(exact.pixels[i]))
		sum, most = sum+off, max(most, off)
	}
	pairs := make([]float64, len(d.draws))
	for i, v := range d.draws {
		pairs[i] = v - exact.draws[i]
	}
	change := eval.NewInterval(d.fid-exact.fid, pairs)
	return []string{
		fmt.Sprintf("%.1e, %.1e", largest, mean), fmt.Sprintf("%.0f, %.2f", most, sum/float64(len(d.pixels))),
		fmt.Sprintf("%.3f", d.fid), fmt.Sprintf("%+.3f (%+.3f … %+.3f)", d.fid-exact.fid, change.Low, change.High),
	}
}

// distance is the largest and the root mean square difference of a from b, each over
// that of b.
func distance(a, b []float32) (largest, mean float64) {
	var top, squares, all float64
	for i, v := range b {
		d := math.Abs(float64(a[i]) - float64(v))
		largest, top = max(largest, d), max(top, math.Abs(float64(v)))
		squares, all = squares+d*d, all+float64(v)*float64(v)
	}
	return largest / top, math.Sqrt(squares / all)
}
