package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"sagbench/experiments/report"
	"sagbench/experiments/run"
)

func planCommand(g *globals) *cobra.Command {
	trial := false
	c := &cobra.Command{
		Use:   "plan EXPERIMENT.yaml [path=value...]",
		Short: "show what an experiment would do: rows, images, network calls, disk, time",
		Long: `Shows the rows of an experiment with the folder of each, the images that are there
and those still to draw, the passes that an image makes through the network (a step
guided by sag or cfg takes two) and the calls that they come in, at most, and the disk
space. With --trial two batches go through each network and each Inception for an
estimate of the time. Files that are missing are listed with the page on which their
authors publish them, and so is what in a checkpoint does not fit its flags. Where the
results hold draws of a pilot (bootstrap: 200, fewer samples), it tells how small a
difference the images that are wanted will tell. Nothing is written.`,
		Example: `  sagbench plan configs/table1-fashion.yaml --trial
  MODELS=/data/models REFERENCES=/data/references sagbench plan configs/table1.yaml`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := g.loadExperiment(args)
			if err != nil {
				return err
			}
			f, faults, err := run.Preview(cmd.Context(), e, g.runOptions(), trial)
			if err != nil {
				return err
			}
			if err := f.Print(cmd.OutOrStdout()); err != nil {
				return err
			}
			if err := report.Told(cmd.OutOrStdout(), filepath.Join(g.results, e.Name), f.Wanted()); err != nil {
				return err
			}
			return faults
		},
	}
	c.Flags().BoolVar(&trial, "trial", false, "send two batches through each network to estimate the time")
	return g.computes(g.choosesRows(c))
}
