// Sagbench measures what self-attention guidance does to a diffusion model:
// experiments in YAML and official checkpoints go in, images, scores and the
// tables of a paper come out. This package is the command line: a file for each
// command, which reads its flags and makes one call into the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sagbench/experiments/store"
)

func rootCommand() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "sagbench",
		Short: "what does self-attention guidance do to your diffusion model?",
		Long: `Runs experiments with self-attention guidance (arXiv 2210.00939): draws images
from official checkpoints, evaluates them as ADM's evaluator does (FID, sFID, IS,
precision, recall) and prints the table. An experiment is one YAML file. Ctrl-C or
kill it and run it again: it goes on where it stopped.`,
		Example: `  sagbench run configs/table1-fashion.yaml
  sagbench plan configs/table1.yaml --trial
  sagbench run configs/table1-fashion.yaml samples=64 sampler.ddpm.steps=5
  sagbench table results/table1-fashion
  sagbench eval reference.npz samples.npz --inception pt_inception-2015-12-05-6726825d.pth`,
		Version:       store.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	g.register(root.PersistentFlags())
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the flags", err, c.CommandPath())
	})
	root.AddCommand(
		runCommand(g),
		planCommand(g),
		sampleCommand(g),
		evalCommand(g),
		referenceCommand(g),
		tableCommand(),
		compareCommand(),
		plotCommand(g),
		verifyCommand(g),
		checkCommand(g),
		inspectCommand(),
		gridCommand(),
		benchCommand(g),
		cacheCommand(),
		versionCommand(),
		docsCommand(),
	)
	return root
}

func main() { os.Exit(execute(os.Args[1:])) }

// execute runs a command line and returns the exit status.
func execute(args []string) (status int) {
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintf(os.Stderr, "sagbench: internal error: %v\nThis is a bug. What is on the disk is whole; please report it with the command line and these lines:\n%s", fault, debug.Stack())
			status = 2
		}
	}()
	if os.Getenv("GOGC") == "" {
		// Features of 50,000 images are 410 MB; garbage may not double that.
		debug.SetGCPercent(25)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals) // the second one ends the process at once
		cancel(&stopped{s.(syscall.Signal)})
	}()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var by *stopped
	if errors.As(context.Cause(ctx), &by) && errors.Is(err, context.Canceled) {
		advice := ""
		if errors.As(err, new(*interruption)) {
			advice = "; nothing is lost; to go on: " + commandLine(os.Args[1:])
		}
		fmt.Fprintf(os.Stderr, "sagbench: %v%s\n", by, advice)
		return 128 + int(by.signal)
	}
	fmt.Fprintf(os.Stderr, "sagbench: %s\n", strings.TrimRight(err.Error(), "\n"))
	return 1
}

// stopped is why the context was cancelled.
type stopped struct{ signal syscall.Signal }

func (s *stopped) Error() string { return "stopped by " + s.signal.String() }

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

// commandLine is what to type for the program with these arguments.
func commandLine(args []string) string {
	line := "sagbench"
	for _, a := range args {
		if strings.ContainsAny(a, " \t\n\"'$&|;<>()[]{}*?!~#`\\") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		line += " " + a
	}
	return line
}
