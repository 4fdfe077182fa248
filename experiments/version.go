package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sagbench/experiments/score"
	"sagbench/models/ort"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "tell the versions of everything that computes",
		Long: `Prints the program's version and commit, that of Go, of ONNX Runtime and of the
sampling (samples of another one differ), and which kernels of its own the program
uses on this processor: what a report of a fault should hold.`,
		Example: "  sagbench version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, missing := score.Versions(ort.Options{})
			commit, changed := "not known", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					switch {
					case s.Key == "vcs.revision":
						commit = s.Value
					case s.Key == "vcs.modified" && s.Value == "true":
						changed = ", with changes"
					}
				}
			}
			kernels := v["kernels"]
			if kernels == "" {
				kernels = "none: ONNX Runtime's own"
			}
			if missing != nil {
				v["onnxruntime"] = "not there"
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "sagbench\t%s\ncommit\t%s%s\nsampling\t%s\nGo\t%s %s/%s\nONNX Runtime\t%s\nkernels\t%s\n",
				v["sagbench"], commit, changed, v["sampling"], runtime.Version(), runtime.GOOS, runtime.GOARCH, v["onnxruntime"], kernels)
			if err := w.Flush(); err != nil {
				return err
			}
			return missing
		},
	}
}
