package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// A benchSection measures one thing and prints its figures as table rows.
type benchSection struct {
	name, title string
	run         func(*bench) error
}

// A bench is one call of the command.
type bench struct {
	ctx     context.Context
	out     io.Writer
	options ort.Options
	scratch string // folder for checkpoints of official size
}

var benchSections = []benchSection{
	{"adm-fashion", "ADM, embedded (32×32, 4 M parameters)", (*bench).admFashion},
	{"sag-step", "a SAG step outside the network", (*bench).sagStep},
	{"classifier-fashion", "a classifier's gradient, embedded (32×32, 0.6 M parameters)", (*bench).classifierFashion},
	{"classifier-128", "a classifier's gradient at 128×128 (43 M parameters)", (*bench).classifier128},
	{"guided-steps", "guided steps, embedded models", (*bench).guidedSteps},
	{"adm-64", "ADM 64×64 (296 M parameters)", func(b *bench) error { return b.official("64x64_diffusion", 1, 8) }},
	{"adm-128", "ADM 128×128 (422 M parameters)", func(b *bench) error { return b.official("128x128_diffusion", 1, 8) }},
	{"adm-256", "ADM 256×256 unconditional (553 M parameters)", func(b *bench) error { return b.official("256x256_diffusion_uncond", 1) }},
	{"iddpm-64", "IDDPM 64×64 (121 M parameters)", func(b *bench) error { return b.official("imagenet64_uncond_100M_1500K", 1, 8) }},
	{"dit-xl", "DiT-XL/2 at 256×256 (675 M parameters)", func(b *bench) error { return b.official("DiT-XL-2-256x256", 1, 8) }},
	{"inception", "FID Inception (299×299)", (*bench).inception},
	{"pipeline", "features of images that are decoded and resized ahead of the network", (*bench).pipeline},
	{"metrics", "metrics at 2048 dimensions", (*bench).metrics},
	{"memory", "evaluation of 50,000 images", (*bench).memory},
}

// namedSections run only where they are asked for by name.
var namedSections = []benchSection{
	{"peers", "Against public evaluators, in turns (make bench-peers)", (*bench).peers},
}

func benchCommand(g *globals) *cobra.Command {
	var names []string
	sections := slices.Concat(benchSections, namedSections)
	for _, s := range sections {
		names = append(names, s.name)
	}
	c := &cobra.Command{
		Use:   "bench [SECTION...]",
		Short: "measure network calls, the evaluator and memory on this machine",
		Long: `Prints the figures that docs/performance.md keeps, as Markdown tables. Networks of
official size run on random weights of the true shapes, written to a temporary
folder and removed afterwards (up to 2.7 GB); time does not depend on the weights.

Sections: ` + strings.Join(names, ", ") + `.`,
		Example:   "  sagbench bench\n  sagbench bench adm-fashion sag-step\n  sagbench bench --device cuda:0",
		ValidArgs: names,
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			scratch, err := os.MkdirTemp("", "sagbench-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			b := &bench{cmd.Context(), cmd.OutOrStdout(), g.runtime(), scratch}
			if err := b.machine(); err != nil {
				return err
			}
			if len(args) == 0 {
				sections = benchSections
			}
			for _, s := range sections {
				if len(args) > 0 && !slices.Contains(args, s.name) {
					continue
				}
				fmt.Fprintf(b.out, "\n%s\n\n", s.title)
				if err := s.run(b); err != nil {
					return fmt.Errorf("bench: %s: %w", s.name, err)
				}
			}
			return nil
		},
	}
	return c
}

// machine prints what the figures were measured on.
func (b *bench) machine() error {
	v, err := ort.RuntimeVersion()
	if err != nil {
		return err
	}
	cpu := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(info), "model name"); found {
			name, _, _ := strings.Cut(after, "\n")
			cpu = strings.TrimLeft(name, "\t :")
		}
	}
	device := b.options.Device
	if device == "" {
		device = "cpu"
	}
	fmt.Fprintf(b.out, "%s, %s, %d cores, %s, ONNX Runtime %s, device %s\n",
		time.Now().Format(time.DateOnly), cpu, runtime.NumCPU(), runtime.Version(), v, device)
	return nil
}

// header prints a table's first two lines.
func (b *bench) header(columns ...string) {
	fmt.Fprintf(b.out, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
}

func (b *bench) row(cells ...any) {
	s := make([]string, len(cells))
	for i, c := range cells {
		s[i] = fmt.Sprint(c)
	}
	fmt.Fprintf(b.out, "| %s |\n", strings.Join(s, " | "))
}

// measure calls f once to warm up and then for at least three seconds and three
// calls, or ten seconds of longer calls, and returns the fastest and the median.
func measure(f func() error) (best, median time.Duration, err error) {
	if err := f(); err != nil {
		return 0, 0, err
	}
	var times []time.Duration
	for start := time.Now(); time.Since(start) < 3*time.Second || len(times) < 3 && time.Since(start) < 10*time.Second; {
		t := time.Now()
		if err := f(); err != nil {
			return 0, 0, err
		}
		times = append(times, time.Since(t))
	}
	slices.Sort(times)
	return times[0], times[len(times)/2], nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }

// fashionADM opens an embedded model with its attention map tapped.
func (b *bench) fashionADM() (models.Generator, error) {
	e, err := loadExperiment("configs/table1-fashion.yaml", nil)
	if err != nil {
		return nil, err
	}
	m, err := e.rows[0].openNetwork(0, b.options)
	if err != nil {
		return nil, err
	}
	return m.(models.Generator), nil
}

func (b *bench) admFashion() error {
	g, err := b.fashionADM()
	if err != nil {
		return err
	}
	defer g.Close()
	return b.calls(g, 1, 8, 64)
}

// calls times network calls at the given batch sizes.
func (b *bench) calls(g models.Generator, batches ...int) error {
	b.header("batch", "call, best", "call, median", "an image, best")
	for _, n := range batches {
		x, c, err := benchInput(g, n)
		if err != nil {
			return err
		}
		best, median, err := measure(func() error {
			_, err := g.Denoise(b.ctx, x, sampling.Timestep{Value: 500}, c)
			return err
		})
		if err != nil {
			return err
		}
		b.row(n, ms(best), ms(median), ms(best/time.Duration(n)))
	}
	return nil
}

// benchInput is noise and labels for n images.
func benchInput(g models.Generator, n int) (tensor.Tensor, sampling.Cond, error) {
	x := tensor.New(append([]int{n}, g.SampleShape()...)...)
	images := make([]int, n)
	var c sampling.Cond
	for i := range images {
		images[i] = i
		if g.Classes() > 0 {
			c.Labels = append(c.Labels, sampling.Label(0, i, g.Classes()))
		}
	}
	return x, c, sampling.Keyed{Images: images}.Fill(-1, x)
}

// officialModels are the families and flags of published checkpoints, as their
// READMEs give them.
var officialModels = map[string]string{
	"64x64_diffusion":          `{family: adm, image_size: 64, num_channels: 192, num_head_channels: 64, num_res_blocks: 3, class_cond: true, use_new_attention_order: true, noise_schedule: cosine, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,
	"128x128_diffusion":        `{family: adm, image_size: 128, num_channels: 256, num_heads: 4, num_res_blocks: 2, class_cond: true, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,
	"128x128_classifier":       `{family: classifier, image_size: 128}`,
	"256x256_diffusion_uncond": `{family: adm, image_size: 256, num_channels: 256, num_head_channels: 64, num_res_blocks: 2, attention_resolutions: "32,16,8", learn_sigma: true, resblock_updown: true}`,

	"imagenet64_uncond_100M_1500K": `{family: iddpm, image_size: 64, num_channels: 128, num_res_blocks: 3, learn_sigma: true, diffusion_steps: 4000, noise_schedule: cosine}`,
	"DiT-XL-2-256x256":             `{family: dit, model: DiT-XL/2, input_size: 32}`,
}

// openOfficial opens a published configuration on random weights, and tells how
// long that took.
func (b *bench) openOfficial(name string) (m models.Model, opened time.Duration, err error) {
	path := filepath.Join(b.scratch, name+".pt")
	block, err := configs.Parse(name, fmt.Appendf(nil, "{checkpoint: %q, %s", path, officialModels[name][1:]))
	if err != nil {
		return nil, 0, err
	}
	spec, err := models.Decode(block)
	if err != nil {
		return nil, 0, err
	}
	shapes, err := spec.Flags.(models.Sized).Parameters()
	if err != nil {
		return nil, 0, err
	}
	if err := randomweights.Write(path, shapes, 1); err != nil {
		return nil, 0, err
	}
	start := time.Now()
	m, err = spec.Flags.Open(path, models.Options{Options: b.options})
	return m, time.Since(start), err
}

// official runs a published configuration.
func (b *bench) official(name string, batches ...int) error {
	defer os.Remove(filepath.Join(b.scratch, name+".pt"))
	m, opened, err := b.openOfficial(name)
	if err != nil {
		return err
	}
	defer m.Close()
	g := m.(models.Generator)
	x, c, err := benchInput(g, 1)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := g.Denoise(b.ctx, x, sampling.Timestep{Value: 500}, c); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "opened in %.2f s, the first call in %.1f s\n\n", opened.Seconds(), time.Since(start).Seconds())
	if err := b.calls(g, batches...); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\npeak resident memory so far %.2f GB\n", float64(peakMemory())/1e9)
	return nil
}

// sagStep runs DDPM with self-attention guidance and counts what is not spent
// in the network.
func (b *bench) sagStep() error {
	g, err := b.fashionADM()
	if err != nil {
		return err
	}
	defer g.Close()
	e, err := loadExperiment("configs/table1-fashion.yaml", []string{"sampler=!replace {ddpm: {steps: 10}}", "sweep.guidance.sag.scale=[0.5]"})
	if err != nil {
		return err
	}
	r := e.rows[0]
	b.header("batch", "step", "outside the network")
	for _, n := range []int{1, 8, 64} {
		x, c, err := benchInput(g, n)
		if err != nil {
			return err
		}
		timed := &timedDenoiser{Denoiser: g}
		p, err := r.predictor(timed, g.Process(), nil)
		if err != nil {
			return err
		}
		p.Cond = c
		images := make([]int, n)
		share, step := 1.0, time.Hour
		for range 4 {
			timed.spent = 0
			start := time.Now()
			if _, err := r.sampler.Value.Sample(b.ctx, p, x, sampling.Keyed{Images: images}); err != nil {
				return err
			}
			total := time.Since(start)
			share = min(share, 1-timed.spent.Seconds()/total.Seconds())
			step = min(step, total/time.Duration(p.Schedule.Len()))
		}
		b.row(n, ms(step), fmt.Sprintf("%.2f %%", 100*share))
	}
	return nil
}

// A timedDenoiser adds up the time spent in the network.
type timedDenoiser struct {
	sampling.Denoiser
	spent time.Duration
}

func (d *timedDenoiser) Denoise(ctx context.Context, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (sampling.Prediction, error) {
	start := time.Now()
	defer func() { d.spent += time.Since(start) }()
	return d.Denoiser.Denoise(ctx, x, t, c)
}
