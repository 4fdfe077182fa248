package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sagbench/experiments/human"
	"sagbench/experiments/submit"
)

func submitCommand(g *globals) *cobra.Command {
	var o submit.Options
	var share shareFlags
	var k submit.Cluster
	var slurm, kubernetes bool
	var array string
	// split parts the arguments of this command from those after --.
	split := func(c *cobra.Command, args []string) (ours, engine []string) {
		if at := c.ArgsLenAtDash(); at >= 0 {
			return args[:at], args[at:]
		}
		return args, nil
	}
	c := &cobra.Command{
		Use:   "submit EXPERIMENT.yaml [path=value...] (--slurm --array N | --kubernetes --image IMAGE --completions N) [-- OPTIONS]",
		Short: "run an experiment on a cluster: write the job's files and submit them",
		Long: `Plans an experiment and, where nothing is wrong with it, writes a job of N tasks that
run it, and submits it. Every task is a run that draws what nobody else has drawn; a
task that dies, is preempted or starts late costs time alone. Written are plain files,
to read, edit and submit by hand:

  RESULTS/<experiment>/.work/job.sbatch      the array of tasks, for Slurm
                             finish.sbatch   one more task, after all of them
                             job.yaml        an Indexed Job, for Kubernetes
  RESULTS/.log/<experiment>/                 what Slurm's tasks print

Options after -- go to sbatch (into its file) or to kubectl create. A task has one GPU
unless --device says cpu, or --devices names several. The paths of the program, of the experiment, of what it reads
and of the results have to be the same on all machines; on Kubernetes, all but the
program lie in the volumes. Submitting again while the job runs adds tasks that help.

Exit status: 0 submitted (or written, with --dry-run); 2 something is wrong with the
experiment or the options, or the engine refuses the job; 75 the engine does not answer.`,
		Example: `  sagbench submit table1.yaml --slurm --array 16 -- --partition=gpu --time=24:00:00
  sagbench submit /data/table1.yaml --results /data/results --kubernetes --image registry/sagbench:1 --completions 16`,
		Args: func(cmd *cobra.Command, args []string) error {
			ours, _ := split(cmd, args)
			return experimentArgs(cmd, ours)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if share.Part.N > 0 {
				return human.Misusef("--part is for run: each task of the job gets its own")
			}
			o.Options = g.runOptions()
			o.Work, o.Rows = share.Options, g.rows
			o.Devices = []string{"cuda:0"}
			switch one := cmd.Flags().Changed("device"); {
			case one && share.devices != "":
				return human.Misusef("--device and --devices exclude each other")
			case one:
				o.Devices[0] = g.device
			case share.devices != "":
				o.Devices = strings.Split(share.devices, ",")
			}
			o.Args, o.Engine = split(cmd, args)
			e, err := g.loadExperiment(o.Args)
			if err != nil {
				return err
			}
			if slurm {
				return submit.Slurm(cmd.Context(), e, o, array, cmd.OutOrStdout())
			}
			return submit.Kubernetes(cmd.Context(), e, o, k, cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	share.register(f)
	f.Lookup("part").Hidden = true
	f.Lookup("devices").Usage = "devices of a task, a process on each: cuda:0,cuda:1"
	f.BoolVar(&slurm, "slurm", false, "submit to Slurm, with sbatch")
	f.StringVar(&array, "array", "", "tasks of Slurm: 16, or 16%4 for at most four at once")
	f.BoolVar(&kubernetes, "kubernetes", false, "submit to Kubernetes, with kubectl")
	f.StringVar(&k.Image, "image", "", "container image of the program, see docs/cluster.md")
	boundedInt(f, &k.Completions, "completions", 0, 1, 10_000, "pods of Kubernetes")
	f.StringArrayVar(&k.Volumes, "volume", []string{"data:/data"}, "CLAIM:PATH, a PersistentVolumeClaim and the folder in which pods, and this machine, have it; may be repeated")
	f.BoolVar(&o.DryRun, "dry-run", false, "write the files and submit nothing")
	c.MarkFlagsOneRequired("slurm", "kubernetes")
	c.MarkFlagsMutuallyExclusive("slurm", "kubernetes")
	c.MarkFlagsRequiredTogether("slurm", "array")
	c.MarkFlagsRequiredTogether("kubernetes", "image", "completions")
	return g.choosesRows(c)
}
