package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sagbench/experiments/human"
	"sagbench/experiments/run"
	"sagbench/models/ort"
)

// globals are the flags of every command.
type globals struct {
	device   string
	threads  int
	results  string
	quiet    bool
	fallback bool
	hostLoop bool
	logFile  string
	log      human.Log // of logFile

	precision string   // of the commands that have computes
	rows      []string // of those that have choosesRows
}

func (g *globals) register(f *pflag.FlagSet) {
	g.device = "cpu"
	f.Var(deviceFlag{&g.device}, "device", "where networks run: cpu, cuda[:N], webgpu[:N], openvino[:CPU|GPU[.N]|NPU] or tensorrt-rtx[:N]; the command devices lists what is here")
	boundedInt(f, &g.threads, "threads", 0, 0, 4096, "threads of a network call; 0 for all cores")
	g.results = "results"
	f.Var((*named)(&g.results), "results", "folder of the results")
	f.BoolVar(&g.fallback, "allow-fallback", false, "accept that nodes with weights run elsewhere than on the device, which is an error otherwise")
	f.BoolVar(&g.hostLoop, "host-loop", false, "take the states of a sampler through the host's memory at each step, also where they could stay on the device")
	f.Var((*named)(&g.logFile), "log", "file to append all to that goes to standard error, each line with its time; progress as in a pipe")
	f.BoolVar(&g.quiet, "quiet", false, "no progress, only what is out of the ordinary")
}

// openLog begins the log, if there is to be one, with the command line.
func (g *globals) openLog(c *cobra.Command, _ []string) error {
	child := c.Flags().Lookup("child")
	if g.logFile == "" || child != nil && child.Changed { // whose parent keeps what it says
		return nil
	}
	if err := g.log.Open(g.logFile); err != nil {
		return human.Misusef("--log: %w", err)
	}
	fmt.Fprintln(&g.log, human.CommandLine(os.Args[1:]))
	return nil
}

// registerVerbose makes the flag of a command that prints tables of scores.
func registerVerbose(f *pflag.FlagSet, verbose *bool) {
	f.BoolVar(verbose, "verbose", false, "tell by which arithmetic scores were computed as well")
}

// registerRows makes the flag of a command that takes some rows of a table.
func registerRows(c *cobra.Command, rows *[]string) {
	c.Flags().StringArrayVar(rows, "rows", nil, "rows to take, all if absent: numbers as plan shows them, 2,5-7, and labels or settings as tables show them, s=0.5; may be repeated")
}

// A named is the value of a flag for a file or a folder, which may not be empty: that
// is most often a variable of the shell that is not set.
type named string

func (n *named) String() string { return string(*n) }

func (*named) Type() string { return "string" }

// Set implements pflag.Value.
func (n *named) Set(text string) error {
	if text == "" {
		return errors.New("is empty, expected a path")
	}
	*n = named(text)
	return nil
}

// A boundedFlag is a whole number that a flag sets, with both ends of its range.
type boundedFlag struct {
	to       *int
	low, top int
}

// boundedInt is IntVar for a number from low to top.
func boundedInt(f *pflag.FlagSet, to *int, name string, value, low, top int, usage string) {
	*to = value
	f.Var(&boundedFlag{to, low, top}, name, usage)
}

func (b *boundedFlag) String() string { return strconv.Itoa(*b.to) }

func (*boundedFlag) Type() string { return "int" }

// Set implements pflag.Value.
func (b *boundedFlag) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < b.low || n > b.top {
		return fmt.Errorf("expected a whole number from %d to %d", b.low, b.top)
	}
	*b.to = n
	return nil
}

// A stringValue is a flag's value that help calls a string.
type stringValue struct{ pflag.Value }

func (stringValue) Type() string { return "string" }

// runOptions are the flags for what runs an experiment.
func (g *globals) runOptions() run.Options {
	return run.Options{Results: g.results, Runtime: g.runtime(), Progress: g.progress()}
}

// progress is how the work is reported.
func (g *globals) progress() *human.Progress {
	p := human.NewProgress(os.Stderr)
	p.Keep(&g.log)
	p.Quiet = g.quiet
	return p
}

// runtime is how networks are run.
func (g *globals) runtime() ort.Options {
	return ort.Options{Device: g.device, Threads: g.threads, AllowFallback: g.fallback, HostLoop: g.hostLoop}
}

// A flagGroup is a heading of a command's help and the flags that stand below it.
type flagGroup struct {
	title string
	flags []string
}

// groupFlags makes the help of c list its flags by groups, in place of by the alphabet;
// those of no group stand in the last one.
func groupFlags(c *cobra.Command, groups []flagGroup) {
	c.InitDefaultHelpFlag()
	seen := map[string]bool{}
	for _, g := range groups {
		for _, name := range g.flags {
			seen[name] = true
		}
	}
	var text strings.Builder
	for i, g := range groups {
		set := pflag.NewFlagSet(g.title, pflag.ContinueOnError)
		set.SortFlags = false
		for _, name := range g.flags {
			set.AddFlag(c.Flags().Lookup(name))
		}
		if i == len(groups)-1 {
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if !seen[f.Name] {
					set.AddFlag(f)
				}
			})
		}
		fmt.Fprintf(&text, "%s:\n%s\n", g.title, set.FlagUsages())
	}
	flags := "{{" + strconv.Quote(strings.TrimSpace(text.String())) + "}}"
	c.SetUsageTemplate(strings.Replace(c.UsageTemplate(), "Flags:\n{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}", flags, 1))
}
