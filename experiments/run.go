package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/report"
	"sagbench/experiments/run"
)

func runCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run EXPERIMENT.yaml [path=value...]",
		Short: "draw an experiment's images, evaluate them and print the table",
		Long: `Draws the images of every row of an experiment, evaluates them and writes

  RESULTS/<experiment>/<row>-<run id>/run.yaml        the row, every default written out
                                      samples/*.npz   arr_0 uint8 [N,H,W,3], arr_1 labels
                                      features.npz    Inception's features of them
                                      metrics.json    scores, hashes of all inputs
  RESULTS/<experiment>/table.md, table.csv, table.tex
                       <metric>.svg, .png             where a number is swept: see plot

The run id is a hash of all that changes pixels. Stop it at any moment, with Ctrl-C or
kill -9, and run it again: what is there is kept, and the files in the end are the same.
More samples later continue the same run. Settings after the file override it; name=NAME
among them gives a try a folder of its own, beside the tables of the experiment.`,
		Example: `  sagbench run configs/table1-fashion.yaml
  sagbench run configs/table1-fashion.yaml name=try samples=64 sampler.ddpm.steps=5
  sagbench run configs/table1-fashion.yaml sweep.guidance.sag.scale=[0,0.5] --results /data/results`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := loadExperiment(args)
			if err != nil {
				return err
			}
			folder, scored, err := run.Experiment(cmd.Context(), e, g.runOptions())
			if err != nil {
				return resumable(err)
			}
			return report.Experiment(cmd.OutOrStdout(), folder, scored)
		},
	}
}

func sampleCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "sample EXPERIMENT.yaml [path=value...]",
		Short: "draw an experiment's images and leave them unevaluated",
		Long: `Draws the images of every row of an experiment, as run does, and stops there: it
needs neither a reference batch nor Inception. A later run evaluates them.`,
		Example: `  sagbench sample configs/table1-fashion.yaml
  sagbench sample my-model.yaml name=try samples=16`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := loadExperiment(args)
			if err != nil {
				return err
			}
			e.DropMetrics()
			_, _, err = run.Experiment(cmd.Context(), e, g.runOptions())
			return resumable(err)
		},
	}
}

// loadExperiment reads an experiment's file with the settings that override it. What
// is wrong in them is a misuse.
func loadExperiment(args []string) (*plan.Experiment, error) {
	e, err := plan.Load(args[0], args[1:])
	if err != nil {
		return nil, human.Misuse{Err: err}
	}
	return e, nil
}

// experimentArgs checks the arguments of a command that takes an experiment's file
// and settings that override it.
func experimentArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s: name an experiment's YAML file, such as configs/table1-fashion.yaml", cmd.Name())
	}
	for _, a := range args[1:] {
		if !strings.Contains(a, "=") {
			return fmt.Errorf("%s: %q is not a setting: expected dotted.path=value after the file, such as samples=64", cmd.Name(), a)
		}
	}
	return nil
}
