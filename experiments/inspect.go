package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/inspect"
)

func inspectCommand() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "inspect CHECKPOINT...",
		Short: "tell what a checkpoint holds: family, flags, tensors",
		Long: `Reads a checkpoint (.pt, .pth, .ckpt or .safetensors, or a folder of diffusers)
without loading it and tells its format, the family that its keys speak for with the
evidence, the flags that its shapes imply, its parameters and element types. For a
file that nearly fits a family it names the first keys that do not.

The block that it prints can be pasted into an experiment and runs as it is. Flags
that leave no trace in the shapes (image_size, the number of heads, the noise
schedule) are marked and listed as assumed: they are those of the authors' own
networks, and have to be compared with the README of the file. The attention layers
are listed by the names that guidances take, with the resolution and heads that follow
from the flags. The exit status is 1 where a folder holds no model.`,
		Example: `  sagbench inspect models/pretrained/adm-uncond.pt
  sagbench inspect --tensors 256x256_diffusion_uncond.pt | less
  sagbench inspect --json model.safetensors
  sagbench inspect stable-diffusion-v1-5`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect.Files(cmd.OutOrStdout(), args, asJSON, all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each file")
	c.Flags().BoolVar(&all, "tensors", false, "list every tensor with its element type and shape")
	return c
}
