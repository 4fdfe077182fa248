package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/score"
)

func verifyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify RESULTS... [path=value...]",
		Short: "compare finished runs with their hashes, and compute their scores again",
		Long: `Reads every file of the runs below RESULTS again: metrics.json and bootstrap.csv by
their checksums, the images by the hash that metrics.json holds. Scores are computed
from the features that lie beside them, as run.yaml says, and must be the same to the
last bit. A line for each row says what agrees (ok), what is not there to be looked at
(part), and what disagrees (FAIL).

run.yaml names reference and networks as the experiment did: call verify in the folder
where you called run, or say by a setting where a file is now. Their hashes tell
whether they are the right ones. Nothing is written. The exit status is 1 where
anything disagrees.`,
		Example: `  sagbench verify results/table1-fashion
  sagbench verify results reference=/data/ref.npz inception.checkpoint=/data/inception.pth`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var folders, settings []string
			for _, a := range args {
				if strings.Contains(a, "=") && !isFolder(a) {
					settings = append(settings, a)
				} else {
					folders = append(folders, a)
				}
			}
			return score.Verify(cmd.Context(), cmd.OutOrStdout(), folders, settings, g.runtime(), g.progress())
		},
	}
}

// isFolder tells a run's folder, such as s=0.5-0123456789, from a setting.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
