// Package submit hands an experiment to an engine that runs processes on many
// machines: the experiment and the size of the job go in; files that a person can read
// and edit come out, and are given to sbatch or kubectl. Every task that the engine
// starts is a `sagbench run` like any other.
package submit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
)

// Options are those that both engines share.
type Options struct {
	run.Options          // of each task; Results and the paths of Args may be relative
	Devices     []string // of a task, a process on each: cpu, cuda:0, …
	Args        []string // an experiment's file and the settings that override it
	Rows        []string // of the experiment, as store.Choose takes them; nil: all
	Engine      []string // options of sbatch or kubectl
	DryRun      bool     // write the files and submit nothing
}

// A job is what the tasks of an engine run. All of its paths are absolute.
type job struct {
	Options
	*plan.Experiment
	Program string
	Run     []string    // the program's arguments
	Folder  string      // that the tasks run in: other paths of the experiment are relative to it
	Env     [][2]string // names and values of environment variables that the tasks need
	Files   []string    // that the tasks read
}

// prepare plans an experiment and makes its job. A fault of the experiment is a misuse:
// nothing is submitted then.
func prepare(ctx context.Context, e *plan.Experiment, o Options) (*job, error) {
	j := &job{Options: o, Experiment: e}
	if slices.Contains(o.Devices, "all") || slices.Contains(o.Devices, "") {
		return nil, human.Misusef("--devices is %q, expected the devices of one task, such as cuda:0,cuda:1: the engine has to know how many", strings.Join(o.Devices, ","))
	}
	if err := errors.Join(j.locate(), j.environment()); err != nil {
		return nil, human.Misuse{Err: err}
	}
	planned := o.Options
	planned.Runtime.Device = "cpu" // here may be no GPU
	forecast, faults, err := run.Preview(ctx, e, planned, false)
	switch err = errors.Join(err, faults); {
	case work.Unreachable(err):
		return nil, human.Again{Err: err}
	case err != nil:
		return nil, human.Misuse{Err: err}
	}
	if forecast.Images() > 0 {
		o.Progress.Tell(strings.TrimRight(forecast.String(), "\n"))
	}
	return j, nil
}

// locate finds the absolute paths of the job, and its command line.
func (j *job) locate() (err error) {
	if j.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("the program does not find itself: %w", err)
	}
	if j.Folder, err = os.Getwd(); err != nil {
		return fmt.Errorf("no working directory: %w", err)
	}
	if j.Results, err = filepath.Abs(j.Results); err != nil {
		return err
	}
	file, err := filepath.Abs(j.Args[0])
	if err != nil {
		return err
	}
	j.Run = append([]string{"run", file}, j.Args[1:]...)
	flag := "--device"
	if len(j.Devices) > 1 {
		flag = "--devices"
	}
	j.Run = append(j.Run, "--results", j.Results, flag, strings.Join(j.Devices, ","))
	for _, r := range j.Options.Rows {
		j.Run = append(j.Run, "--rows", r)
	}
	if j.Runtime.Threads > 0 {
		j.Run = append(j.Run, "--threads", fmt.Sprint(j.Runtime.Threads))
	}
	if j.Runtime.AllowFallback {
		j.Run = append(j.Run, "--allow-fallback")
	}
	if j.Runtime.HostLoop {
		j.Run = append(j.Run, "--host-loop")
	}
	usual := work.Defaults()
	if j.Work.Mixed {
		j.Run = append(j.Run, "--mixed")
	}
	if j.Work.Heartbeat != usual.Heartbeat || j.Work.Stale != usual.Stale {
		j.Run = append(j.Run, "--heartbeat", j.Work.Heartbeat.String(), "--stale", j.Work.Stale.String())
	}
	return nil
}

// own are environment variables that change what the program does.
var own = regexp.MustCompile(`^(SAGBENCH_|XDG_CACHE_HOME=|ORT_DISABLE_TELEMETRY=)`)

// environment keeps the variables that the experiment's paths hold, and the program's.
func (j *job) environment() error {
	files, variables, err := j.Experiment.Files()
	j.Files = files
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if own.MatchString(v) || slices.Contains(variables, name) {
			j.Env = append(j.Env, [2]string{name, value})
		}
	}
	return err
}

// gpus is how many a task has.
func (o *Options) gpus() (n int) {
	for _, d := range o.Devices {
		if strings.HasPrefix(d, "cuda") {
			n++
		}
	}
	return n
}

// path is that of one of the job's files.
func (j *job) path(name string) string { return filepath.Join(j.Results, j.Name, work.Folder, name) }

// write writes one of the job's files. A folder that cannot be written to is a misuse.
func (j *job) write(name, text string) error {
	if err := store.WriteFile(j.path(name), []byte(text)); err != nil {
		return human.Misuse{Err: err}
	}
	return nil
}

// unanswered matches what sbatch and kubectl say when the engine does not answer.
var unanswered = regexp.MustCompile(`(?i)unable to contact|unable to connect|connection refused|timed out|temporarily|in standby mode|too many requests|service unavailable`)

// engine runs the client of an engine with a file as its standard input, and returns
// what it printed. An engine that does not answer may be tried again; one that refuses
// the file makes the error a misuse.
func engine(ctx context.Context, file string, client string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, client, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(file), &stdout, &stderr
	err := cmd.Run()
	said := strings.TrimSpace(stderr.String())
	switch {
	case err == nil:
		return strings.TrimSpace(stdout.String()), nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case unanswered.MatchString(said):
		return "", human.Again{Err: fmt.Errorf("%s: %w\n%s\nIt was not submitted; run the same command again later", client, err, said)}
	}
	return "", human.Misusef("%s: %w\n%s", client, err, said)
}

// find is an error where there is no client of the engine on this machine.
func find(client string) error {
	if _, err := exec.LookPath(client); err != nil {
		return human.Misusef("there is no %s on this machine: %w; submit from one that has it, or write the files with --dry-run", client, err)
	}
	return nil
}
