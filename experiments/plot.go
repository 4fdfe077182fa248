package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// plotFormats are the forms that a line plot can be written in.
var plotFormats = map[string]func(*figure) ([]byte, error){
	"svg": (*figure).svg,
	"png": (*figure).png,
}

func plotCommand(g *globals) *cobra.Command {
	formats, folder := []string{"svg", "png"}, ""
	c := &cobra.Command{
		Use:   "plot RESULTS...",
		Short: "draw line plots of finished runs that sweep a number",
		Long: `Draws a line plot for each metric of each experiment whose rows differ in one swept
number (guidance.sag.scale, say) and their labels: the metric against the number, a
line for each label. It reads the metrics.json files below RESULTS alone: runs'
folders, experiments' folders, or the folder of all results. run writes the same
plots beside an experiment's tables.

The files are OUT/<experiment>/<metric>.svg and .png; equal results give equal bytes.`,
		Example: `  sagbench plot results/ablation-scale
  sagbench plot results -o figures --format svg`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPlotFormats(formats); err != nil {
				return err
			}
			rows, err := findMetrics(args...)
			if err != nil {
				return err
			}
			if folder == "" {
				folder = g.results
			}
			return plotAll(cmd.OutOrStdout(), folder, rows, formats)
		},
	}
	c.Flags().StringSliceVar(&formats, "format", formats, "svg, png or both")
	c.Flags().StringVarP(&folder, "out", "o", "", "folder of the plots; that of the results if absent")
	return c
}

func checkPlotFormats(formats []string) error {
	known := slices.Sorted(maps.Keys(plotFormats))
	for _, f := range formats {
		if plotFormats[f] == nil {
			return fmt.Errorf("plot: --format is %q, expected one of %s, or several with commas", f, strings.Join(known, ", "))
		}
	}
	if len(formats) == 0 {
		return fmt.Errorf("plot: --format names no format, expected one of %s", strings.Join(known, ", "))
	}
	return nil
}

// plotAll draws what can be drawn of each experiment into a folder of its own,
// and tells of the rest. Nothing to draw at all is an error.
func plotAll(out io.Writer, folder string, rows []*Metrics, formats []string) error {
	var reasons []error
	drawn := 0
	for len(rows) > 0 {
		name := rows[0].Experiment
		n := slices.IndexFunc(rows, func(m *Metrics) bool { return m.Experiment != name })
		if n < 0 {
			n = len(rows)
		}
		figures, err := figuresOf(rows[:n])
		rows = rows[n:]
		if err != nil {
			reasons = append(reasons, fmt.Errorf("plot: %s: %w", name, err))
			continue
		}
		paths, err := writeFigures(filepath.Join(folder, name), figures, formats)
		if err != nil {
			return err
		}
		for _, path := range paths {
			fmt.Fprintln(out, path)
		}
		drawn += len(paths)
	}
	if drawn == 0 {
		return errors.Join(reasons...)
	}
	for _, err := range reasons {
		fmt.Fprintln(out, err)
	}
	return nil
}

// writePlots draws an experiment's plots into its folder, in every format. Rows
// that make no line plot have none.
func writePlots(folder string, rows []*Metrics) error {
	figures, err := figuresOf(rows)
	if err != nil {
		return nil // a table says all that there is to say
	}
	_, err = writeFigures(folder, figures, slices.Sorted(maps.Keys(plotFormats)))
	return err
}

// writeFigures writes <metric>.<format> for each figure, each whole or not at
// all, and lists the paths.
func writeFigures(folder string, figures []*figure, formats []string) ([]string, error) {
	var paths []string
	for _, f := range figures {
		for _, format := range formats {
			data, err := plotFormats[format](f)
			if err != nil {
				return paths, fmt.Errorf("plot: %s: %w", f.metric, err)
			}
			path := filepath.Join(folder, f.metric+"."+format)
			if err := writeWhole(path, data); err != nil {
				return paths, err
			}
			paths = append(paths, path)
		}
	}
	return paths, nil
}
