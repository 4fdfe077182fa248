// Package bench measures this machine: network calls, guided steps, the evaluator
// and its peers go in, Markdown tables for docs/performance.md come out.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"sagbench/experiments/human"
	"sagbench/models/ort"
)

// A section measures one thing and prints its figures as table rows.
type section struct {
	name, title string
	run         func(*bench) error
}

// A bench is one call of the command.
type bench struct {
	ctx      context.Context
	out      io.Writer
	progress *human.Progress
	options  ort.Options
	scratch  string // folder for checkpoints of official size
	results  string // folder of images that a later call may go on with

	precision string // of networks that draw; "" = that of their settings
	images    int    // that whole evaluations score
	write     string // file whose table takes distances; "" = none
}

// These sections take long and run only where they are named.
const (
	precisionSection    = "precision"
	peerNetsSection     = "peer-networks"
	peerFamiliesSection = "peer-families"
	peerDeviceSection   = "peer-device"
	peersSection        = "peers"
	peerEvalSection     = "peer-evaluations"
)

var onlyNamed = []string{precisionSection, peerNetsSection, peerFamiliesSection, peerDeviceSection, peersSection, peerEvalSection}

var sections = []section{
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
	{"sit-xl", "SiT-XL/2 at 256×256 (675 M parameters)", func(b *bench) error { return b.official("SiT-XL-2-256x256", 1, 8) }},
	{"edm-64", "EDM ImageNet 64×64, ADM architecture (296 M parameters)", func(b *bench) error { return b.official("edm-imagenet-64x64-cond-adm", 1, 8) }},
	{"edm2-s", "EDM2-S at 512×512 (280 M parameters)", func(b *bench) error { return b.official("edm2-img512-s", 1, 8) }},
	{"inception", "FID Inception (299×299)", (*bench).inception},
	{"pipeline", "features of images that are decoded and resized ahead of the network", (*bench).pipeline},
	{"metrics", "metrics at 2048 dimensions", (*bench).metrics},
	{"memory", "evaluation of 50,000 images", (*bench).memory},
	{precisionSection, "distances of precisions from float32, embedded models", (*bench).precisions},
	{peerNetsSection, "Networks against public libraries, in turns (make bench-peers)", func(b *bench) error { return b.peerNets(peersOfCPU) }},
	{peerFamiliesSection, "SiT, EDM and EDM2 against PyTorch, in turns (make bench-peers OFFICIAL=DIR)", func(b *bench) error { return b.peerNets(peersOfFamilies) }},
	{peerDeviceSection, "Networks against PyTorch on the device, in turns (make gpu-check)", (*bench).peersOfDevice},
	{peersSection, "Against public evaluators, in turns (make bench-peers)", (*bench).peers},
	{peerEvalSection, "Whole evaluations against public evaluators (make bench-peers)", (*bench).peerEval},
}

// Sections lists the names that Run takes.
func Sections() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// Options say what is measured on.
type Options struct {
	Runtime ort.Options
	Results string // folder of drawn images that stay; "": a temporary one
	Images  int    // samples of the section peer-evaluations
	Write   string // Markdown file whose table takes the rows of the section precision; "" = none
}

// Run measures the named sections, or all but the longest, on the device that o
// names, and prints their figures to w as Markdown tables. Networks of official size
// take up to 2.7 GB of a temporary folder, which is removed afterwards. Images that are
// drawn lie there as well, unless o names a folder, where the next call finds them.
func Run(ctx context.Context, w io.Writer, progress *human.Progress, o Options, names []string) error {
	if o.Write != "" && !slices.Contains(names, precisionSection) {
		return fmt.Errorf("bench: there is nothing to write to %s: expected the section %s, found %q", o.Write, precisionSection, names)
	}
	scratch, err := os.MkdirTemp("", "sagbench-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	b := &bench{ctx, w, progress, o.Runtime, scratch, cmp.Or(o.Results, scratch), o.Runtime.Precision, o.Images, o.Write}
	b.options.Precision = "" // features are float32's
	if err := b.machine(); err != nil {
		return err
	}
	for _, s := range sections {
		if len(names) == 0 && slices.Contains(onlyNamed, s.name) || len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		fmt.Fprintf(b.out, "\n%s\n\n", s.title)
		if err := s.run(b); err != nil {
			return fmt.Errorf("bench: %s: %w", s.name, err)
		}
	}
	return nil
}

// machine prints what the figures were measured on.
func (b *bench) machine() error {
	v, err := ort.RuntimeVersion()
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s, %s, %d cores, %s, ONNX Runtime %s, device %s%s\n",
		time.Now().Format(time.DateOnly), processor(), runtime.NumCPU(), runtime.Version(), v, cmp.Or(b.options.Device, "cpu"), strings.TrimSuffix(", "+b.precision, ", "))
	return nil
}

// processor is the name of this machine's processor.
func processor() string {
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(info), "model name"); found {
			name, _, _ := strings.Cut(after, "\n")
			return strings.TrimLeft(name, "\t :")
		}
	}
	return runtime.GOARCH
}

// header prints a table's first two lines.
func (b *bench) header(columns ...string) {
	fmt.Fprintf(b.out, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
}

// row prints a line of a table.
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

// seconds calls f once.
func seconds(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }

func percent(part float64) string { return fmt.Sprintf("%.1f %%", 100*part) }

func gigabytes(bytes int64) string { return fmt.Sprintf("%.2f GB", float64(bytes)/1e9) }

// peakMemory is the largest resident size that this process has had, in bytes;
// 0 where the system does not tell.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var kilobytes int64
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(after, &kilobytes)
	return kilobytes << 10
}
