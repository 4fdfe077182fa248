package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sagbench/experiments/devices"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/report"
	"sagbench/experiments/run"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/models/ort"
)

// shareFlags are the flags of a command that any number of processes may run at once on
// one experiment.
type shareFlags struct {
	work.Options
	devices string
	child   bool
}

// registerDevices makes the flags of a command that runs a process on each of several
// devices.
func (s *shareFlags) registerDevices(f *pflag.FlagSet) {
	s.Options = work.Defaults()
	f.StringVar(&s.devices, "devices", "", "run a process on each of these devices: cuda:0,cuda:1 or all, the GPUs of this machine")
	f.BoolVar(&s.child, "child", false, "this is such a process: it ends when its standard input does")
	f.Lookup("child").Hidden = true
	f.Var(&s.Part, "part", "begin at part i of n (0 ≤ i < n) of the work, then help the others")
}

func (s *shareFlags) register(f *pflag.FlagSet) {
	s.registerDevices(f)
	f.BoolVar(&s.Mixed, "mixed", false, "draw also in rows that another kind of device began; metrics.json then counts the images of each")
	f.Var(&boundedTime{&s.Heartbeat, time.Millisecond, time.Hour}, "heartbeat", "time between two signs of life of a worker")
	f.Var(&boundedTime{&s.Stale, time.Millisecond, 24 * time.Hour}, "stale", "silence after which others take over a worker's unit; at least twice the heartbeat")
}

// onDevices runs the command line again, a process on each device.
func (s *shareFlags) onDevices(cmd *cobra.Command, g *globals, o devices.Options) (err error) {
	if cmd.Flags().Changed("device") {
		return human.Misusef("--device and --devices exclude each other")
	}
	if o.Devices, err = devices.Parse(s.devices); err != nil {
		return err
	}
	if o.Program, err = os.Executable(); err != nil {
		return err
	}
	o.Args, o.Part, o.Threads, o.Progress, o.Stdout = os.Args[1:], s.Part, g.threads, g.progress(), cmd.OutOrStdout()
	return devices.Run(cmd.Context(), o)
}

// A boundedTime is a duration that a flag sets, with both ends of its range.
type boundedTime struct {
	to       *time.Duration
	low, top time.Duration
}

func (b *boundedTime) String() string { return b.to.String() }

// Type implements pflag.Value.
func (*boundedTime) Type() string { return "time" }

// Set implements pflag.Value.
func (b *boundedTime) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < b.low || d > b.top {
		return fmt.Errorf("expected a time from %v to %v, such as 30s or 5m", b.low, b.top)
	}
	*b.to = d
	return nil
}

// run runs an experiment together with all who do, here or on several devices.
func (s *shareFlags) run(cmd *cobra.Command, g *globals, e *plan.Experiment, pictures run.Pictures, done func(string, []*store.Metrics) error) error {
	if s.Stale < 2*s.Heartbeat {
		return human.Misusef("--stale is %v, expected at least twice the heartbeat of %v", s.Stale, s.Heartbeat)
	}
	o := g.runOptions()
	o.Work, o.Done, o.Child, o.Pictures = s.Options, done, s.child, pictures
	if s.devices == "" {
		if s.child {
			o.Progress.Hidden = true
			go devices.EndWithParent(os.Stdin)
		}
		return resumable(run.Experiment(cmd.Context(), e, o))
	}
	return resumable(s.onDevices(cmd, g, devices.Options{Watch: func(p *human.Progress) {
		if status, err := run.StatusOf(e, g.results, s.Stale); err == nil && len(status.Workers) > 0 {
			status.Show(p)
		}
	}}))
}

func runCommand(g *globals) *cobra.Command {
	var share shareFlags
	verbose := false
	cmd := &cobra.Command{
		Annotations: map[string]string{resumes: ""},
		Use:         "run EXPERIMENT.yaml [path=value...]",
		Short:       "draw an experiment's images, evaluate them and print the table",
		Long: `Draws the images of every row of an experiment, evaluates them and writes

  RESULTS/<experiment>/<row>-<run id>/run.yaml        the row, every default written out
                                      samples/*.npz   arr_0 uint8 [N,H,W,3], arr_1 labels
                                      features.npz    Inception's features of them
                                      metrics.json    scores, hashes of all inputs
  RESULTS/<experiment>/table.md, table.csv, table.tex
                       <metric>.svg, .png             where a number is swept: see plot
                       report.html                    all of it on a page: see report

The run id is a hash of all that changes pixels. Stop it at any moment, with Ctrl-C or
kill -9, and run it again: what is there is kept, and the files in the end are the same.
More samples later continue the same run. Settings after the file override it; name=NAME
among them gives a try a folder of its own, beside the tables of the experiment.

--rows takes some rows: 2,5-7 as plan numbers them, "Fashion-MNIST (cond.)" by label, s=0.5
by a setting. The tables and the page then hold these and the others that are scored
already as the experiment says now. Processes that run at once have to have the same rows.

Any number of processes, on any machines that share the folder of the results, may run
the same experiment at once: each draws what no other does, and the files in the end are
those of one. --part i/n spreads them; a wrong or missing one costs nothing. --devices
starts one on each GPU of this machine, and again, up to three times, if it dies. Stopped
by SIGTERM, as schedulers do, it exits with 75: run again, it goes on.`,
		Example: `  sagbench run configs/table1-fashion.yaml
  sagbench run configs/table1-fashion.yaml name=try samples=64 sampler.ddpm.steps=5
  sagbench run configs/table1-fashion.yaml sweep.guidance.sag.scale=[0,0.5] --results /data/results
  sagbench run table1.yaml --devices cuda:0,cuda:1
  sagbench run table1.yaml --device cuda:0 --results /data/results --part 3/16`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := g.loadExperiment(args)
			if err != nil {
				return err
			}
			return share.run(cmd, g, e, run.Pictures{}, func(folder string, scored []*store.Metrics) error {
				return report.Experiment(cmd.Context(), cmd.OutOrStdout(), folder, scored, verbose)
			})
		},
	}
	share.register(cmd.Flags())
	registerVerbose(cmd.Flags(), &verbose)
	return g.computes(g.choosesRows(cmd))
}

// loadExperiment reads an experiment's file with the settings that override it, and
// takes the chosen rows of it. What is wrong in them is a misuse.
func (g *globals) loadExperiment(args []string) (*plan.Experiment, error) {
	e, err := plan.Load(args[0], args[1:])
	if err == nil {
		err = e.Compute(g.precision)
	}
	if err == nil && len(g.rows) > 0 {
		err = e.Choose(g.rows)
	}
	if err != nil {
		return nil, human.Misuse{Err: err}
	}
	return e, nil
}

// experimentArgs checks the arguments of a command that takes an experiment's file
// and settings that override it.
func experimentArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s: name an experiment's YAML file, such as configs/table1-fashion.yaml", cmd.Name())
	}
	for _, a := range args[1:] {
		if !strings.Contains(a, "=") {
			return fmt.Errorf("%s: %q is not a setting: expected dotted.path=value after the file, such as samples=64", cmd.Name(), a)
		}
	}
	return nil
}

// choosesRows adds --rows to a command that takes an experiment.
func (g *globals) choosesRows(c *cobra.Command) *cobra.Command {
	registerRows(c, &g.rows)
	return c
}

// computes adds --precision to a command that runs networks which draw.
func (g *globals) computes(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&g.precision, "precision", "", "of all networks that draw, whatever their model blocks say: "+strings.Join(ort.AllPrecisions, ", ")+"; those that the device has")
	return c
}
