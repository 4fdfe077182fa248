package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/models/cache"
)

func cacheCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "show what is kept in the user's cache folder; cache clear removes it",
		Long: `Shows what the program keeps in the user's cache folder ($XDG_CACHE_HOME, or
~/.cache) to save time: optimized graphs and features of images. Each file is
verified when it is read, and made anew where it is damaged; those that were used
longest ago are removed when there are too many.`,
		Example: `  sagbench cache
  sagbench cache clear`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, parts, err := cache.Parts()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(parts) == 0 {
				_, err := fmt.Fprintf(out, "%s: nothing\n", root)
				return err
			}
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, root)
			for _, p := range parts {
				limit := ""
				if p.Limit > 0 {
					limit = "at most " + human.Bytes(p.Limit)
				}
				fmt.Fprintf(w, "  %s\t%s files\t%s\t%s\t%s\n", p.Name, human.Count(p.Files), human.Bytes(p.Bytes), limit, p.Holds)
			}
			return w.Flush()
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "clear",
		Short: "remove what the program makes anew by itself: graphs and features",
		Long: `Removes the optimized graphs and the features of images from the user's cache
folder. The program makes them anew when it needs them. ONNX Runtime stays.`,
		Example: "  sagbench cache clear",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, bytes, err := cache.Clear()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed %s files, %s\n", human.Count(files), human.Bytes(bytes))
			return err
		},
	})
	return c
}
