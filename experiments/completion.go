package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/eval"
	"sagbench/experiments/plan"
	"sagbench/experiments/report"
	"sagbench/experiments/store"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// completionCommand prints the script of a shell.
func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a script that completes command lines in a shell",
		Long: `Prints a script for bash (with the package bash-completion), zsh or fish. With it the
shell completes commands, flags and what flags take: metrics, protocols, formats,
devices, precisions. After an experiment's file it completes the settings that the file
has, with families and other names as their values, and its rows after --rows; where
there are results, their rows, metrics and columns.`,
		Example: `  source <(sagbench completion bash)
  sagbench completion bash > ~/.local/share/bash-completion/completions/sagbench
  sagbench completion zsh > "${fpath[1]}/_sagbench"
  sagbench completion fish > ~/.config/fish/completions/sagbench.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			switch root, out := c.Root(), c.OutOrStdout(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			default:
				return root.GenFishCompletion(out, true)
			}
		},
	}
}

// complete has shells complete what the flags and arguments of all commands take.
func complete(root *cobra.Command) {
	of := map[string]cobra.CompletionFunc{
		"device":    oneOf(deviceNames()),
		"devices":   listOf(append(deviceNames(), "all")),
		"precision": oneOf(ort.AllPrecisions),
		"protocol":  oneOf(slices.Sorted(maps.Keys(eval.Protocols))),
		"network":   oneOf(plan.FeatureNetworkNames()),
		"resize":    oneOf(sortedNames(features.Resizes)),
		"metrics":   listOf(plan.MetricRegistry.Names()),
		"metric":    listOf(plan.MetricRegistry.Names()),
		"size":      oneOf([]string{"page", "column"}),
		"rows":      completeRows,
		"names":     oneOf(pictureNames),
		"png":       cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"baseline":  completeBaseline,
		"sort":      completeColumns,
	}
	formats := map[string]cobra.CompletionFunc{
		"table": oneOf(report.TableFormats()), "compare": oneOf(report.DifferenceFormats), "plot": listOf([]string{"svg", "png", "pdf"}),
	}
	for _, c := range root.Commands() {
		for name, complete := range of {
			if c.Flags().Lookup(name) != nil {
				holds(c.RegisterFlagCompletionFunc(name, complete))
			}
		}
		if complete, ok := formats[c.Name()]; ok {
			holds(c.RegisterFlagCompletionFunc("format", complete))
		}
		switch use := strings.Fields(c.Use)[1:]; {
		case len(use) == 0:
		case use[0] == "EXPERIMENT.yaml":
			c.ValidArgsFunction = completeExperiment
		case use[0] == "RESULTS..." && c.Name() != "grid" && c.Name() != "compare": // which take files too
			c.ValidArgsFunction = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		}
	}
	holds(root.RegisterFlagCompletionFunc("device", of["device"]))
	holds(root.MarkPersistentFlagDirname("results"))
}

// holds is for what holds in every run or in none.
func holds(err error) {
	if err != nil {
		panic(err)
	}
}

func sortedNames[K ~string, V any](of map[K]V) []string {
	var names []string
	for name := range of {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// deviceNames are those that --device takes: the usual one of each provider.
func deviceNames() []string {
	var names []string
	for _, p := range ort.Providers {
		if d, err := ort.ParseDevice(p.Name); err == nil {
			names = append(names, d.String())
		}
	}
	for i := 1; i < ort.GPUs(); i++ {
		names = append(names, fmt.Sprintf("cuda:%d", i))
	}
	return names
}

// oneOf completes one of the names.
func oneOf(names []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
}

// listOf completes a list with commas, of which the last name is not whole.
func listOf(names []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return inList(text, names), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// inList are the lists that begin as text does, with one of the names at the end that
// are not in it yet. A name may have a description, after a tab.
func inList(text string, names []string) []cobra.Completion {
	before := text[:strings.LastIndexAny(text, "[,")+1]
	there := strings.Split(strings.TrimLeft(before, "["), ",")
	var all []cobra.Completion
	for _, name := range names {
		if bare, _, _ := strings.Cut(name, "\t"); !slices.Contains(there, bare) {
			all = append(all, before+name)
		}
	}
	return all
}

// completeExperiment completes an experiment's file, and after it the settings that it
// has and the names that they take.
func completeExperiment(_ *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	keys, _ := plan.Keys(args[0], nil)
	path, value, isValue := strings.Cut(text, "=")
	var all []cobra.Completion
	for _, k := range keys {
		switch {
		case !isValue:
			all = append(all, cobra.CompletionWithDesc(k.Path+"=", strings.Join(k.Values, ", ")))
		case k.Path == path:
			for _, v := range inList(value, k.Values) {
				all = append(all, path+"="+v)
			}
		}
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if !isValue {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return all, directive
}

// placesOf are the rows of what a command line is about: of an experiment's file, or of
// results.
func placesOf(c *cobra.Command, args []string) []store.Place {
	if len(args) > 0 && strings.HasPrefix(strings.Fields(c.Use)[1], "EXPERIMENT") {
		_, places := plan.Keys(args[0], args[1:])
		return places
	}
	found, _ := store.FindMetrics(args...)
	var places []store.Place
	for _, m := range found {
		places = append(places, m.Place())
	}
	return places
}

// completeRows completes numbers of rows, which their titles describe, and names.
func completeRows(c *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []string
	for _, p := range placesOf(c, args) {
		names = append(names, cobra.CompletionWithDesc(fmt.Sprint(p.Number), p.Names[0]))
		for _, name := range p.Names[1:] {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return inList(text, names), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeBaseline completes the number of a row, which its title describes.
func completeBaseline(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var all []cobra.Completion
	for _, p := range placesOf(c, args) {
		all = append(all, cobra.CompletionWithDesc(fmt.Sprint(p.Number), p.Names[0]))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeColumns completes the columns that the tables of results can be sorted by.
func completeColumns(_ *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	minus, found := "", []string(nil)
	if strings.HasPrefix(text, "-") {
		minus = "-"
	}
	for _, name := range report.Columns(args) {
		found = append(found, minus+name)
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
