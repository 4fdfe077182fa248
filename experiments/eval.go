package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/devices"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/report"
	"sagbench/experiments/score"
)

func evalCommand(g *globals) *cobra.Command {
	var task score.Task
	var networks networkFlags
	protocol, metrics := eval.DefaultProtocol, ""
	var out report.EvaluationOutputs
	var share shareFlags
	var subset subsetFlags
	folder := ""
	cmd := &cobra.Command{
		Use:   "eval REF SAMPLES...",
		Short: "score samples against a reference batch, as ADM's evaluator.py does",
		Long: `Scores SAMPLES, one set or several, against REF. Each is
` + kindsOfSets + `

Of several SAMPLES the table has a row for each set, and the JSON their evaluations in a
list; REF is read once. A set that fails does not keep the others from being scored.

--protocol says whose numbers are wanted: it sets the resize and the options of the
metrics, any of which --resize and --metrics set otherwise, --metrics as an experiment
does: --metrics "fid, is: {splits: 10}". docs/evaluation.md compares the protocols, and
tells users of pytorch-fid, torch-fidelity, clean-fid and others what to type.

With --devices the features are made by a process on each; the scores are those of one.
Until then they lie in the folder of temporary files ($TMPDIR), some 16 kB an image.

Features are kept in the user's cache folder under the hash of the images' content. The
exit status is 1 where a metric could not be computed; the others are printed.`,
		Example: `  sagbench eval VIRTUAL_imagenet256_labeled.npz samples_50000x256x256x3.npz --inception pt_inception-2015-12-05-6726825d.pth
  sagbench eval models/pretrained/reference.npz samples.npz --inception models/pretrained/inception.pt --input-size 107
  sagbench eval REF folder --inception FILE --protocol clean-fid --skip-broken
  sagbench eval REF a.npz b.npz c.npz --inception FILE --bootstrap 200 --json all.json --csv scores.csv --append
  sagbench eval REF samples.npz --inception FILE --per-class --metrics fid,precision,recall
  sagbench eval REF samples.npz --inception FILE --metrics fid --neighbours 5 -o nearest.png
  sagbench eval REF SAMPLES --inception FILE --dinov2 dinov2_vitl14_pretrain.pth --metrics fid,fd_dinov2
  sagbench eval REF "shards/{00000..00031}.tar" --inception FILE --random 10000 --subset-seed 1
  cat samples.tar.gz | sagbench eval REF - --inception FILE
  sagbench eval REF SAMPLES --clip clip-vit-large-patch14-336 --metrics cmmd
  sagbench eval REF SAMPLES --clip clip-vit-base-patch32 --metrics "clip_score: {definition: jmhessel}" --captions captions.txt
  sagbench eval REF SAMPLES --network mine.onnx --output pool=features --range imagenet --metrics fid,precision,recall`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("eval: %d files given, expected two or more: the reference batch and the samples", len(args))
			}
			for i, path := range args[2:] {
				if slices.Contains(args[1:2+i], path) {
					return fmt.Errorf("eval: %s is given twice as SAMPLES", path)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			paths, err := setPaths(args, share.devices != "" || share.child)
			if err != nil {
				return err
			}
			task.Reference, task.Samples = paths[0], paths[1:]
			if task.Read.Subset, err = subset.chooser(cmd.Flags()); err != nil {
				return err
			}
			if task.Protocol, err = eval.ProtocolOf(protocol); err != nil {
				return human.Misusef("--%w", err)
			}
			if !cmd.Flags().Changed("metrics") {
				metrics = strings.Join(task.Protocol.Own, ",")
			}
			if task.Metrics, err = plan.ParseMetrics(task.Protocol, metrics); err != nil {
				return human.Misuse{Err: err}
			}
			for _, m := range task.Metrics {
				if err := eval.CheckDraws(task.Bootstrap, m.Value); err != nil {
					return human.Misusef("--%w", err)
				}
			}
			if task.Comparisons, task.Main, err = networks.comparisons(cmd.Flags(), task.Protocol, task.Metrics); err != nil {
				return err
			}
			task.PerClass = out.PerClass
			inputs := slices.Clone(args)
			captioned := slices.ContainsFunc(task.Metrics, func(m configs.Named[eval.Metric]) bool { return eval.TextFormOf(m.Value) != "" })
			if task.Captions != "" && !captioned {
				return human.Misusef("--captions is for clip_score, which is none of the metrics")
			}
			if task.Captions != "" {
				inputs = append(inputs, task.Captions)
			}
			for _, c := range task.Comparisons {
				inputs = append(inputs, c.Weights.Path)
			}
			if err := errors.Join(checkNeighbours(cmd, &task, out.Picture), out.Check(inputs)); err != nil {
				return err
			}
			if share.devices != "" {
				return evalOnDevices(cmd, g, &share)
			}
			progress := g.progress()
			if share.child {
				go devices.EndWithParent(os.Stdin)
				progress.Quiet = share.Part.I > 0
				task.Share = &score.Share{Folder: folder, Work: share.Options}
			}
			result, err := task.Run(cmd.Context(), g.runtime(), progress)
			if result == nil {
				return err
			}
			return errors.Join(out.Write(cmd.OutOrStdout(), result), err)
		},
	}
	f := cmd.Flags()
	share.registerDevices(f)
	f.StringVar(&folder, "share", "", "folder of features that processes make together")
	f.Lookup("share").Hidden, f.Lookup("part").Hidden = true, true
	f.StringVar(&protocol, "protocol", protocol, "whose numbers: adm, pytorch-fid, torch-fidelity or clean-fid")
	networks.register(f)
	registerVerbose(f, &out.Verbose)
	f.Func("metrics", "metrics, separated by commas; the protocol's own if absent; known: "+strings.Join(plan.MetricRegistry.Names(), ", "), func(list string) error {
		if metrics != "" {
			return errors.New("is given twice; separate metrics by commas")
		}
		metrics = list
		return nil
	})
	f.Lookup("metrics").Value = stringValue{f.Lookup("metrics").Value}
	boundedInt(f, &task.Bootstrap, "bootstrap", 0, 0, 100_000, "times that the samples are drawn again for a 95 % interval of each metric: at least 40, or 0 for none")
	subset.register(f)
	f.Var((*named)(&task.Captions), "captions", "captions of SAMPLES for clip_score: a text with one a line in the order of the images, or JSON or JSON Lines by names of images, COCO's as well; those in the set if absent")
	f.BoolVar(&task.Read.SkipBroken, "skip-broken", false, "leave images out that cannot be decoded, and list them; without it they are an error")
	f.Var((*named)(&out.JSON), "json", "file for the scores with every digit and all that led to them, replaced if it is there; - for standard output")
	f.Var((*named)(&out.CSV), "csv", "file for the scores with every digit, replaced if it is there; - for standard output")
	f.BoolVar(&out.PerClass, "per-class", false, "score each class as well, against the reference's images of that class, the worst first; classes are arr_1 of an .npz, labels beside images, or folders")
	boundedInt(f, &task.Nearest.Neighbours, "neighbours", 0, 0, 100, "reference images that the picture of -o shows beside each sample, the nearest in the network's features")
	boundedInt(f, &task.Nearest.Samples, "closest", 8, 1, 1000, "samples in the picture of --neighbours: those closest to a reference image")
	f.VarP((*named)(&out.Picture), "out", "o", "PNG for the picture of --neighbours")
	f.BoolVar(&out.Append, "append", false, "add to the file of --csv in place of replacing it; its head has to be the same")
	groupFlags(cmd, []flagGroup{
		{"What is scored", []string{"metrics", "protocol", "bootstrap", "per-class", "captions"}},
		{"Which images", []string{"first", "random", "subset-seed", "skip-broken"}},
		{"Networks", []string{"inception", "dinov2", "clip", "network", "weights", "resize", "input-size", "output", "range"}},
		{"Output", []string{"json", "csv", "append", "neighbours", "closest", "out", "verbose"}},
		{"Other flags", nil},
	})
	return cmd
}

// checkNeighbours is an error where flags of neighbours stand without each other.
func checkNeighbours(cmd *cobra.Command, t *score.Task, picture string) error {
	wanted := t.Nearest.Neighbours > 0
	switch {
	case wanted && picture == "":
		return human.Misusef("--neighbours draws a picture: name it with -o FILE.png")
	case wanted && len(t.Samples) > 1:
		return human.Misusef("--neighbours takes one set of SAMPLES, and %d are given", len(t.Samples))
	case !wanted && (picture != "" || cmd.Flags().Changed("closest")):
		return human.Misusef("-o and --closest are about the picture of --neighbours K, which is missing")
	}
	return nil
}

// evalOnDevices evaluates with a process on each device: all of them make features, in
// a folder for the time, and the first one goes on with them.
func evalOnDevices(cmd *cobra.Command, g *globals, share *shareFlags) error {
	folder, err := os.MkdirTemp("", "sagbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	return share.onDevices(cmd, g, devices.Options{Leader: true, Flags: []string{"--share=" + folder}})
}
