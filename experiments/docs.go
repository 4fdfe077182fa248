package main

import (
	"bytes"

	"github.com/spf13/cobra"

	"sagbench/experiments/plan"
)

// docsCommand generates docs/configuration.md.
func docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "docs",
		Short:   "print the reference of all settings (docs/configuration.md)",
		Long:    "Prints, as Markdown, every key that an experiment file may hold, with its type, default\nand meaning, read off the structs that it is decoded into.",
		Example: "  sagbench docs > docs/configuration.md",
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out bytes.Buffer
			if err := plan.WriteDocs(&out); err != nil {
				return err
			}
			_, err := cmd.OutOrStdout().Write(out.Bytes())
			return err
		},
	}
}
