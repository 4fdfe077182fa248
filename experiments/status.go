package main

import (
	"time"

	"github.com/spf13/cobra"

	"sagbench/experiments/run"
	"sagbench/experiments/work"
)

func statusCommand(g *globals) *cobra.Command {
	asJSON, stale := false, work.Defaults().Stale
	cmd := &cobra.Command{
		Use:   "status EXPERIMENT.yaml [path=value...]",
		Short: "show how far an experiment is that any number of processes run",
		Long: `Shows for each row of an experiment the images that are there and those that somebody
is drawing, the rate and the time left, and the first score where it is evaluated; the
workers that are alive and those that are silent; and what to do where nobody is at work
and something is missing. It reads names in folders and small files alone: anywhere that
sees the folder of the results, at any time, without a GPU. Give the settings that run was
given.`,
		Example: `  sagbench status table1.yaml --results /data/results
  sagbench status table1.yaml --json`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := g.loadExperiment(args)
			if err != nil {
				return err
			}
			s, err := run.StatusOf(e, g.results, stale)
			if err != nil {
				return err
			}
			if !asJSON {
				return s.Print(cmd.OutOrStdout())
			}
			data, err := s.Encode()
			if err == nil {
				_, err = cmd.OutOrStdout().Write(data)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, for programs")
	cmd.Flags().Var(&boundedTime{&stale, time.Millisecond, 24 * time.Hour}, "stale", "silence after which a worker counts as gone; what run was given")
	return g.choosesRows(cmd)
}
