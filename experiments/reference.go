package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/score"
	"sagbench/experiments/store"
)

func referenceCommand(g *globals) *cobra.Command {
	var job score.ReferenceBatch
	var networks networkFlags
	protocol, force := eval.DefaultProtocol, false
	cmd := &cobra.Command{
		Use:   "reference DATA -o REF.npz",
		Short: "make a reference batch of a data set, which ADM's evaluator reads as well",
		Long: `Computes the statistics of all images of DATA, mu, sigma, mu_s and sigma_s, and writes
them to REF.npz with a choice of the images, arr_0, which precision and recall are
measured on: the layout of ADM's published reference batches. Which images are chosen
depends on their number alone.

Beside them the file says how it was made (network, resize, number and hash of the
images): eval and run refuse it where that disagrees with the features that it is to
be compared with. DATA is whatever eval reads: a folder, a .zip, an .npz or an .npy.`,
		Example: `  sagbench reference imagenet/train -o ref.npz --inception pt_inception-2015-12-05-6726825d.pth
  sagbench reference faces.zip -o ref.npz --inception FILE --protocol clean-fid --images 0`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("reference: %d data sets given, expected one", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if job.Protocol, err = eval.ProtocolOf(protocol); err != nil {
				return human.Misusef("--%w", err)
			}
			if job.Network, err = networks.main(cmd.Flags(), job.Protocol); err != nil {
				return err
			}
			job.Data = args[0]
			switch {
			case job.Out == "":
				return human.Misusef("-o is missing: the file to write, REF.npz")
			case filepath.Ext(job.Out) != ".npz":
				return human.Misusef("-o is %q, expected a name that ends in .npz", job.Out)
			case isFile(job.Out) && !force:
				return human.Misusef("%s is there already; --force replaces it", job.Out)
			}
			if err := store.CheckOutput(job.Out); err != nil {
				return human.Misusef("-o: %w", err)
			}
			return job.Make(cmd.Context(), g.runtime(), g.progress())
		},
	}
	f := cmd.Flags()
	f.VarP((*named)(&job.Out), "out", "o", "file to write, REF.npz")
	boundedInt(f, &job.Count, "images", 10_000, 0, 10_000_000, "images to put beside the statistics, all of one size; 0: none")
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.StringVar(&protocol, "protocol", protocol, "whose statistics: adm, pytorch-fid, torch-fidelity or clean-fid")
	networks.register(f)
	f.BoolVar(&job.Read.SkipBroken, "skip-broken", false, "leave images out that cannot be decoded; without it they are an error")
	return cmd
}

// isFile reports whether there is a file at a path whose content would be lost.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
