package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
		Long: `Reads a checkpoint (.pt, .pth, .ckpt or .safetensors) without loading it and tells its
format, the family that its keys speak for with the evidence, the flags that its
shapes imply, its parameters and element types. For a file that nearly fits a
family it names the first keys that do not.

The model block that it prints can be pasted into an experiment; flags that leave
no trace in the shapes (image_size, the number of heads, the noise schedule) have
to come from the authors' README.`,
		Example: `  sagbench inspect models/pretrained/adm-uncond.pt
  sagbench inspect --tensors 256x256_diffusion_uncond.pt | less
  sagbench inspect --json model.safetensors`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, path := range args {
				if i > 0 && !asJSON {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := inspectFile(cmd.OutOrStdout(), path, asJSON, all); err != nil {
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
	SHA256     string            `json:"sha256"`
	Tensors    int               `json:"tensors"`
	Parameters int               `json:"parameters"`
	DTypes     map[string]int    `json:"dtypes"` // element type → number of tensors
	Guesses    []models.Guess    `json:"guesses"`
	Shapes     map[string]string `json:"shapes,omitempty"`
}

func inspectFile(w io.Writer, path string, asJSON, all bool) error {
	f, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := inspection{File: path, Format: f.Format, Wrapper: f.Wrapper, Tensors: len(f.Tensors), DTypes: map[string]int{}}
	if in.SHA256, err = f.SHA256(); err != nil {
		return err
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
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(in)
	}
	in.print(w)
	return nil
}

func (in inspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  format      %s", in.File, in.Format)
	if in.Wrapper != "" {
		fmt.Fprintf(w, ", weights under %q", in.Wrapper)
	}
	var types []string
	for _, t := range slices.Sorted(maps.Keys(in.DTypes)) {
		types = append(types, fmt.Sprintf("%s (%d)", t, in.DTypes[t]))
	}
	fmt.Fprintf(w, "\n  sha256      %s\n  tensors     %d of %s\n  parameters  %s\n",
		in.SHA256, in.Tensors, strings.Join(types, ", "), thousands(in.Parameters))
	if len(in.Guesses) == 0 {
		fmt.Fprintf(w, "  family      none of %s: its keys speak for none of them\n", strings.Join(models.Families.Names(), ", "))
	}
	for _, g := range in.Guesses {
		fmt.Fprintf(w, "  family      %s: %s\n", g.Family, g.Evidence)
		for _, m := range g.Mismatches {
			fmt.Fprintf(w, "    but       %s\n", m)
		}
		fmt.Fprintf(w, "\nmodel:\n  family: %s\n  checkpoint: %s\n", g.Family, in.File)
		for _, flag := range g.Flags {
			line := fmt.Sprintf("  %s: %s", flag.Name, flag.Value)
			if flag.Note != "" {
				line += "  # " + flag.Note
			}
			fmt.Fprintln(w, line)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(in.Shapes)) {
		fmt.Fprintf(w, "  %-60s %s\n", k, in.Shapes[k])
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
