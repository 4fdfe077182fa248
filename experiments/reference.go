package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/experiments/store"
	"sagbench/models/features"
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
be compared with. DATA is whatever eval reads: a folder, a .zip, a .tar, a .parquet, an
.npz or an .npy, shards of these, a list of files, or - for a tar on standard input.`,
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
			paths, err := setPaths(args, false)
			if err != nil {
				return err
			}
			job.Data = paths[0]
			switch {
			case job.Out == "":
				return human.Misusef("-o is missing: the file to write, REF.npz")
			case filepath.Ext(job.Out) != ".npz":
				return human.Misusef("-o is %q, expected a name that ends in .npz", job.Out)
			case isFile(job.Out) && !force:
				return human.Misusef("%s is there already; --force replaces it", job.Out)
			}
			err = store.CheckOutput(job.Out)
			if err == nil {
				err = store.CheckApart(job.Out, job.Data, job.Network.Weights.Path)
			}
			if err != nil {
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

// networkFlags are the flags of the command line that choose feature networks,
// made from the table of them.
type networkFlags struct {
	network, resize string
	weights         string
	inputSize       int
	files           map[string]*string            // --NAME of those that are published
	arguments       map[string]*map[string]string // values of a network's own flags by key
}

func (n *networkFlags) register(f *pflag.FlagSet) {
	n.files, n.arguments = map[string]*string{}, map[string]*map[string]string{}
	var published, sizes []string
	for _, row := range features.Networks {
		sizes = append(sizes, row.Size)
		if row.Usage != "" {
			published = append(published, row.Name)
			n.files[row.Name] = f.String(row.Name, "", row.Usage)
		}
		for _, a := range row.Arguments {
			n.arguments[a.Flag] = &map[string]string{}
			if len(a.Keys) > 1 {
				f.StringToStringVar(n.arguments[a.Flag], a.Flag, nil, a.Usage)
				continue
			}
			f.Func(a.Flag, a.Usage, func(value string) error {
				(*n.arguments[a.Flag])[a.Keys[0]] = value
				return nil
			})
			f.Lookup(a.Flag).Value = stringValue{f.Lookup(a.Flag).Value}
		}
	}
	last := len(sizes) - 1
	f.StringVar(&n.network, "network", features.Networks[0].Name, "whose features the metrics compare: "+strings.Join(published, ", ")+", or an .onnx file of your own")
	boundedInt(f, &n.inputSize, "input-size", 0, 0, 4096, "height and width that images are resized to; 0 = "+strings.Join(sizes[:last], ", ")+", or "+sizes[last])
	f.StringVar(&n.weights, "weights", "", "which of several sets of weights in the network's file, as inspect names them; the usual one if absent")
	f.StringVar(&n.resize, "resize", "", "how: tf (ADM's evaluator), torch (pytorch-fid), clean (clean-fid), pil (dgm-eval), edm2, clip, openai or cmmd; the protocol's for inception, clip for clip, pil for others if absent")
}

// comparisons are the networks that the metrics take, and the label of the main one.
func (n *networkFlags) comparisons(f *pflag.FlagSet, p eval.Protocol, metrics []configs.Named[eval.Metric]) (all []plan.Comparison, main string, err error) {
	networks, chosen, err := n.networks(f, p)
	if err != nil {
		return nil, "", err
	}
	all = plan.ComparisonsOf(metrics, networks, chosen)
	main = all[0].Label()
	for _, c := range all {
		if err := checkFile(c.FeatureNetwork); err != nil {
			return nil, "", fmt.Errorf("%s: %w", c.MetricNames(), err)
		}
		if c.Label() == chosen {
			main = chosen
		}
	}
	return all, main, nil
}

// main is the main network alone.
func (n *networkFlags) main(f *pflag.FlagSet, p eval.Protocol) (plan.FeatureNetwork, error) {
	networks, chosen, err := n.networks(f, p)
	if err != nil {
		return plan.FeatureNetwork{}, err
	}
	return networks[chosen], checkFile(networks[chosen])
}

// checkFile reports that the flag of a network's file is missing.
func checkFile(n plan.FeatureNetwork) error {
	if n.Weights.Path != "" {
		return nil
	}
	own := ""
	if n.Name == features.Networks[0].Name {
		own = "; or models/pretrained/inception.pt of the repository, a network of an eighth of the width whose scores compare with each other only; or another network: --network dinov2 --dinov2 FILE, --network FILE.onnx --output pool=NAME --range RANGE"
	}
	return human.Misusef("--%s is missing: the weights of the %s, published as %s at %s%s", n.Name, n.Title, n.File, plan.PublishedFiles[n.File].Page, own)
}

// networks are the feature networks as the flags describe them, and the name of
// the main one, whose resize and size the flags set.
func (n *networkFlags) networks(f *pflag.FlagSet, p eval.Protocol) (all map[string]plan.FeatureNetwork, main string, err error) {
	all = map[string]plan.FeatureNetwork{}
	var expected []string
	for _, row := range features.Networks {
		one, path := plan.NewFeatureNetwork(row, p), ""
		if file := n.files[row.Name]; file != nil {
			path = *file
			expected = append(expected, row.Name)
		}
		isMain := row.Suffix == "" && n.network == row.Name || row.Suffix != "" && strings.HasSuffix(strings.ToLower(n.network), row.Suffix)
		if isMain && row.Suffix != "" {
			path = n.network
		}
		one.Checkpoint, one.Weights.Path = path, path
		values, err := n.values(f, row, isMain)
		if err != nil {
			return nil, "", err
		}
		if isMain {
			main, one.WeightSet = row.Name, n.weights
			if n.resize != "" {
				one.Resize = features.Resize(n.resize)
			}
			if n.inputSize != 0 {
				values["input_size"] = fmt.Sprint(n.inputSize)
			}
		}
		if err := one.Set(values); err != nil {
			return nil, "", human.Misuse{Err: err}
		}
		all[row.Name] = one
	}
	if main == "" {
		return nil, "", human.Misusef("--network is %q, expected %s or the path of an .onnx file", n.network, strings.Join(expected, ", "))
	}
	return all, main, nil
}

// values are the keys of a network's block that its own flags set.
func (n *networkFlags) values(f *pflag.FlagSet, row features.Network, isMain bool) (map[string]string, error) {
	values := map[string]string{}
	for _, a := range row.Arguments {
		if f.Changed(a.Flag) && !isMain {
			return nil, human.Misusef("--%s is for --network FILE%s", a.Flag, row.Suffix)
		}
		for key, value := range *n.arguments[a.Flag] {
			if !slices.Contains(a.Keys, key) {
				last := len(a.Keys) - 1
				return nil, human.Misusef("--%s %s=%s: expected %s=NAME or %s=NAME", a.Flag, key, value, strings.Join(a.Keys[:last], "=NAME, "), a.Keys[last])
			}
			values[key] = value
		}
	}
	return values, nil
}
