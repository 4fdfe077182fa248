package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/tensor"
)

func inspectCommand() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "inspect CHECKPOINT...",
		Short: "tell what a checkpoint holds: family, flags, tensors",
		Long: `Reads a checkpoint (.pt, .pth, .ckpt or .safetensors, or a folder of diffusers) without
loading it and tells its format, the family that its keys speak for with the evidence, the flags that its
shapes imply, its parameters and element types. For a file that nearly fits a
family it names the first keys that do not.

The model block that it prints can be pasted into an experiment; flags that leave
no trace in the shapes (image_size, the number of heads, the noise schedule) have
to come from the authors' README.`,
		Example: `  sagbench inspect models/pretrained/adm-uncond.pt
  sagbench inspect --tensors 256x256_diffusion_uncond.pt | less
  sagbench inspect --json model.safetensors
  sagbench inspect stable-diffusion-v1-5`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, path := range args {
				if i > 0 && !asJSON {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := inspect(cmd.OutOrStdout(), path, asJSON, all); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a file")
	c.Flags().BoolVar(&all, "tensors", false, "list every tensor with its element type and shape")
	return c
}

// An inspection is what inspect tells of a file.
type inspection struct {
	File       string            `json:"file"`
	Format     string            `json:"format"`
	Wrapper    string            `json:"wrapper,omitempty"` // the key that the weights lie under
	Prefix     string            `json:"prefix,omitempty"`  // what every key began with: "module."
	SHA256     string            `json:"sha256"`
	Tensors    int               `json:"tensors"`
	Parameters int               `json:"parameters"`
	DTypes     map[string]int    `json:"dtypes"` // element type → number of tensors
	Guesses    []models.Guess    `json:"guesses"`
	Shapes     map[string]string `json:"shapes,omitempty"`
}

// inspect prints what a file or folder holds.
func inspect(w io.Writer, path string, asJSON, all bool) error {
	var in interface{ print(io.Writer) }
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("inspect: %w", err)
	case info.IsDir():
		in, err = inspectFolder(path, all)
	default:
		in, err = inspectFile(path, all)
	}
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(in)
	}
	in.print(w)
	return nil
}

func inspectFile(path string, all bool) (in inspection, err error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return in, err
	}
	defer f.Close()
	in = inspection{File: path, Format: f.Format, Wrapper: f.Wrapper, Prefix: f.Prefix, Tensors: len(f.Tensors), DTypes: map[string]int{}}
	if in.SHA256, err = f.SHA256(); err != nil {
		return in, err
	}
	for _, t := range f.Tensors {
		in.Parameters += tensor.Size(t.Shape)
		in.DTypes[string(t.DType)]++
	}
	in.Guesses = models.GuessFamily(f.Tensors)
	if all {
		in.Shapes = map[string]string{}
		for k, t := range f.Tensors {
			in.Shapes[k] = fmt.Sprintf("%s %v", t.DType, t.Shape)
		}
	}
	return in, nil
}

func (in inspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  format      %s", in.File, in.Format)
	if in.Wrapper != "" {
		fmt.Fprintf(w, ", weights under %q", in.Wrapper)
	}
	if in.Prefix != "" {
		fmt.Fprintf(w, ", keys without their %q", in.Prefix)
	}
	fmt.Fprintf(w, "\n  sha256      %s\n  tensors     %d of %s\n  parameters  %s\n",
		in.SHA256, in.Tensors, in.types(), thousands(in.Parameters))
	printGuesses(w, in.File, in.Guesses)
	in.printShapes(w)
}

// types are the element types with the number of tensors of each.
func (in inspection) types() string {
	var types []string
	for _, t := range slices.Sorted(maps.Keys(in.DTypes)) {
		types = append(types, fmt.Sprintf("%s (%d)", t, in.DTypes[t]))
	}
	return strings.Join(types, ", ")
}

func (in inspection) printShapes(w io.Writer) {
	for _, k := range slices.Sorted(maps.Keys(in.Shapes)) {
		fmt.Fprintf(w, "  %-60s %s\n", k, in.Shapes[k])
	}
}

// printGuesses prints a model block for each guess, with its evidence.
func printGuesses(w io.Writer, path string, guesses []models.Guess) {
	if len(guesses) == 0 {
		fmt.Fprintf(w, "  family      none of %s: it speaks for none of them\n", strings.Join(models.Families.Names(), ", "))
	}
	for i, g := range guesses {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  family      %s: %s\n", g.Family, g.Evidence)
		for _, m := range g.Mismatches {
			fmt.Fprintf(w, "    but       %s\n", m)
		}
		fmt.Fprintf(w, "\nmodel:\n  family: %s\n  checkpoint: %s\n", g.Family, path)
		for _, flag := range g.Flags {
			line := fmt.Sprintf("  %s: %s", flag.Name, flag.Value)
			if flag.Note != "" {
				line += "  # " + flag.Note
			}
			fmt.Fprintln(w, line)
		}
	}
}

// thousands writes an integer with separators.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
