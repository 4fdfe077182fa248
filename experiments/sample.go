package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/experiments/run"
)

// pictureNames are what --names takes.
var pictureNames = []string{"index", "file"}

func sampleCommand(g *globals) *cobra.Command {
	var share shareFlags
	var pictures run.Pictures
	names := pictureNames[0]
	cmd := &cobra.Command{
		Annotations: map[string]string{resumes: ""},
		Use:         "sample EXPERIMENT.yaml [path=value...]",
		Short:       "draw an experiment's images and leave them unevaluated",
		Long: `Draws the images of every row of an experiment, as run does, and stops there: it
needs neither a reference batch nor Inception. A later run evaluates them.

--png DIR writes each image to a PNG file as well, when all are there: of one row into
DIR, of several into folders of DIR that are called as those of the results. The pixels
are those of samples/*.npz, and eval DIR gives the scores of the row. Each file tells in
chunks tEXt or iTXt: run (the run id), sampler and guidance with all options, seed, image
(its number), prompt, negative_prompt, file_name, label. Files are called 000000.png and
so on, or with --names file as the images of COCO or of FILE.jsonl whose captions they are
drawn from: COCO_val2014_000000000042.png. A file that is there is compared and kept, never
replaced; one with another image is an error. Of rows that are whole nothing is drawn
again: they are only written.

In place of an experiment an .npz file, such as the samples of a run or of guided-diffusion,
is written to DIR: its images arr_0 and the labels arr_1.`,
		Example: `  sagbench sample configs/table1-fashion.yaml
  sagbench sample my-model.yaml name=try samples=16
  sagbench sample configs/table1-fashion.yaml --rows s=0 --png images
  sagbench sample configs/sd-coco30k.yaml --rows 1 --png images --names file
  sagbench sample samples_50000x256x256x3.npz --png images`,
		Args: func(cmd *cobra.Command, args []string) error {
			if isArray(args) {
				return cobra.ExactArgs(1)(cmd, args)
			}
			return experimentArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !slices.Contains(pictureNames, names):
				return human.Misusef("--names is %q, expected %s", names, strings.Join(pictureNames, " or "))
			case pictures.Folder == "" && cmd.Flags().Changed("names"):
				return human.Misusef("--names names the files of --png DIR, which is not given")
			case pictures.Folder == "" && isArray(args):
				return human.Misusef("%s holds images; --png DIR writes them to files", args[0])
			}
			for _, name := range []string{"rows", "precision", "devices", "part", "mixed"} {
				if isArray(args) && cmd.Flags().Changed(name) {
					return human.Misusef("--%s is of what draws an experiment, and %s holds images that are drawn", name, args[0])
				}
			}
			pictures.ByFile = names != pictureNames[0]
			if isArray(args) {
				return resumable(run.ExportFile(cmd.Context(), args[0], pictures, g.progress()))
			}
			e, err := g.loadExperiment(args)
			if err != nil {
				return err
			}
			e.DropMetrics()
			return share.run(cmd, g, e, pictures, nil)
		},
	}
	share.register(cmd.Flags())
	cmd.Flags().Var((*named)(&pictures.Folder), "png", "folder to write each image to as a PNG file, with what it was drawn from")
	cmd.Flags().StringVar(&names, "names", names, "what the files of --png are called by: index, the image's number, or file, the file name that COCO's captions or FILE.jsonl give with the prompt")
	return g.computes(g.choosesRows(cmd))
}

// isArray reports whether the arguments name an .npz file in place of an experiment.
func isArray(args []string) bool {
	return len(args) > 0 && strings.EqualFold(filepath.Ext(args[0]), ".npz")
}
