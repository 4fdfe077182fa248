// Sagbench measures what self-attention guidance does to a diffusion model:
// experiments in YAML and official checkpoints go in, images, scores and the
// tables of a paper come out. This package is the command line: a file for each
// command, which reads its flags and makes one call into the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

func rootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "sagbench",
		Short: "what does self-attention guidance do to your diffusion model?",
		Long: `Runs experiments with self-attention guidance (arXiv 2210.00939): draws images
from official checkpoints, evaluates them as ADM's evaluator does (FID, sFID, IS,
precision, recall) and prints the table. An experiment is one YAML file. Ctrl-C or
kill it and run it again: it goes on where it stopped.

Exit status: 0 done; 1 failed; 2 wrong usage or settings; 75 try again later (the disk
is full or away; run or sample, which go on where they stopped, got SIGTERM, as from a
scheduler); 130 stopped by SIGINT; 143 stopped by SIGTERM in any other command.`,
		Example: `  sagbench run configs/table1-fashion.yaml
  sagbench plan configs/table1.yaml --trial
  sagbench run configs/table1-fashion.yaml name=try samples=64 sampler.ddpm.steps=5
  sagbench table results/table1-fashion
  sagbench eval reference.npz samples.npz --inception pt_inception-2015-12-05-6726825d.pth`,
		Version:       store.Version,
		SilenceErrors: true,
		SilenceUsage:  true,

		PersistentPreRunE: g.openLog,
	}
	g.register(root.PersistentFlags())
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the flags", err, c.CommandPath())
	})
	root.AddCommand(
		runCommand(g),
		planCommand(g),
		submitCommand(g),
		sampleCommand(g),
		statusCommand(g),
		evalCommand(g),
		referenceCommand(g),
		tableCommand(),
		compareCommand(),
		plotCommand(g),
		verifyCommand(g),
		checkCommand(g),
		inspectCommand(),
		gridCommand(), reportCommand(),
		benchCommand(g),
		devicesCommand(),
		cacheCommand(),
		versionCommand(),
		docsCommand(),
		completionCommand(),
	)
	complete(root)
	return root
}

func main() { os.Exit(execute(os.Args[1:])) }

// The exit statuses beside 0 and, of a signal, 128 and its number.
const (
	statusFailed = 1
	statusMisuse = 2
	statusAgain  = 75 // EX_TEMPFAIL of sysexits.h
)

// statusOf is the exit status of a command that ended with an error.
func statusOf(err error) int {
	switch {
	case store.IsFull(err), errors.As(err, new(human.Again)):
		return statusAgain
	case errors.As(err, new(human.Misuse)), configs.IsFault(err):
		return statusMisuse
	}
	return statusFailed
}

// grace is how long a command has to end after the first signal.
const grace = 5 * time.Second

// execute runs a command line and returns the exit status.
func execute(args []string) (status int) {
	g := &globals{}
	told := io.MultiWriter(&g.log, os.Stderr)
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintf(told, "sagbench: internal error: %v\nThis is a bug. What is on the disk is whole; please report it with the command line and these lines:\n%s", fault, debug.Stack())
			status = statusFailed
		}
	}()
	if os.Getenv("GOGC") == "" {
		// Features of 50,000 images are 410 MB; garbage may not double that.
		debug.SetGCPercent(25)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var goesOn atomic.Bool // the command, where it stopped
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		by := &stopped{(<-signals).(syscall.Signal), goesOn.Load()}
		signal.Stop(signals) // the second one ends the process at once
		cancel(by)
		time.Sleep(grace)
		fmt.Fprintf(told, "\nsagbench: %v, within something that takes longer; files that are there are whole\n", by)
		os.Exit(by.status())
	}()
	out := &output{file: os.Stdout}
	err := perform(ctx, g, args, out, &goesOn)
	if failed := out.close(); !errors.Is(err, failed) {
		err = errors.Join(err, failed)
	}
	if failed := g.log.Err(); failed != nil {
		err = errors.Join(err, fmt.Errorf("--log: %w", failed))
	}
	if err == nil {
		return 0
	}
	var by *stopped
	if errors.As(context.Cause(ctx), &by) && errors.Is(err, context.Canceled) {
		advice := ""
		if errors.As(err, new(*interruption)) {
			advice = "; nothing is lost; to go on: " + human.CommandLine(os.Args[1:])
		}
		fmt.Fprintf(told, "sagbench: %v%s\n", by, advice)
		return by.status()
	}
	fmt.Fprintf(told, "sagbench: %s\n", human.Message(err))
	return statusOf(err)
}

// perform runs a command line. What is wrong with the line itself is a misuse.
func perform(ctx context.Context, g *globals, args []string, out io.Writer, goesOn *atomic.Bool) error {
	root := rootCommand(g)
	root.SetArgs(args)
	root.SetOut(out)
	began := false
	tell := func(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, args []string) error {
			began = true
			_, can := c.Annotations[resumes]
			goesOn.Store(can)
			return run(c, args)
		}
	}
	for _, c := range root.Commands() {
		for _, c := range append(c.Commands(), c) {
			c.RunE = tell(c.RunE)
		}
	}
	err := root.ExecuteContext(ctx)
	if err != nil && !began {
		err = human.Misuse{Err: err}
	}
	return err
}

// An output is standard output. It keeps the first error of writing, which commands
// need not look at, and shows control characters as escapes: no output of ours has
// any, a label or a tensor's name in a file may.
type output struct {
	file    *os.File
	err     error
	written bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	o.written = true
	if _, err := io.WriteString(o.file, human.Printable(string(p))); err != nil {
		o.err = fmt.Errorf("standard output cannot be written: %w", err)
		return 0, o.err
	}
	return len(p), nil
}

// Columns are the terminal's; 0 where standard output is none.
func (o *output) Columns() int { return human.Columns(o.file) }

// close is the first error of writing; some file systems tell of it at the end.
func (o *output) close() error {
	if o.err == nil && o.written {
		if err := o.file.Close(); err != nil {
			o.err = fmt.Errorf("standard output cannot be written: %w", err)
		}
	}
	return o.err
}

// stopped is why the context was cancelled.
type stopped struct {
	signal syscall.Signal
	goesOn bool // the command does, where it stopped, when it is run again
}

func (s *stopped) Error() string { return "stopped by " + s.signal.String() }

func (s *stopped) status() int {
	if s.goesOn && s.signal == syscall.SIGTERM {
		return statusAgain // what schedulers are told to start again
	}
	return 128 + int(s.signal)
}

// resumes is the annotation of commands that go on where they stopped.
const resumes = "resumes"

// An interruption is the end of a command that goes on where it stopped when it is
// run again.
type interruption struct{ error }

func (i *interruption) Unwrap() error { return i.error }

// resumable marks an interruption as one.
func resumable(err error) error {
	if errors.Is(err, context.Canceled) {
		return &interruption{err}
	}
	return err
}
