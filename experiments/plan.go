package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func planCommand(g *globals) *cobra.Command {
	trial := false
	c := &cobra.Command{
		Use:   "plan EXPERIMENT.yaml [path=value...]",
		Short: "show what an experiment would do: rows, images, network calls, disk, time",
		Long: `Shows the rows of an experiment with the folder of each, the images that are there
and those still to draw, the passes that an image makes through the network (a step guided
by sag or cfg takes two) and the calls that they come in, at most, and the disk space. With --trial two batches go through each network and each Inception for
an estimate of the time. Files that are missing are listed with the page on which their
authors publish them, and so is what in a checkpoint does not fit its flags. Nothing is
written.`,
		Example: `  sagbench plan configs/table1-fashion.yaml --trial
  MODELS=/data/models REFERENCES=/data/references sagbench plan configs/table1.yaml`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newSession(g, args[0], args[1:], cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer s.close()
			faults := s.checkInputs()
			if faults == nil {
				if err := s.identify(); err != nil {
					return err
				}
				faults = s.checkNetworks()
			}
			f, err := s.forecast(s.results, s.done)
			if err != nil {
				return err
			}
			if trial && faults == nil {
				if err := f.trial(cmd.Context(), s.options); err != nil {
					return err
				}
			}
			if err := s.printPlan(f); err != nil {
				return err
			}
			return faults
		},
	}
	c.Flags().BoolVar(&trial, "trial", false, "send two batches through each network to estimate the time")
	return c
}

// printPlan writes a line a row and the sums.
func (s *session) printPlan(f *forecast) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	head := "row\timages\tto do\tpasses an image\ta step\tfolder\t"
	if f.trialed {
		head = "row\timages\tto do\tpasses an image\ta step\ttime\tfolder\t"
	}
	fmt.Fprintln(w, strings.TrimRight(head, "\t"))
	for i, r := range f.rows {
		folder := "(known when the checkpoint is there)"
		if i < len(s.runs) {
			folder = filepath.Base(s.runs[i].folder)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t", r.row.title(), grouped(r.row.Samples), grouped(r.images), r.passes, r.perStep)
		if f.trialed {
			fmt.Fprintf(w, "%s\t", round(r.time))
		}
		fmt.Fprintln(w, folder)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "\n%s", f)
	return err
}
