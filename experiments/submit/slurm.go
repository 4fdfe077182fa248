package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// maxTasks bounds the tasks of a job against a mistyped number.
const maxTasks = 100_000

// array matches N, and N%M: N tasks, at most M of them at once.
var array = regexp.MustCompile(`^([0-9]{1,6})(%[1-9][0-9]{0,5})?$`)

// Slurm writes job.sbatch, an array of so many tasks ("16", or "16%4" for at most four
// at once), and finish.sbatch, one more task after all of them, and submits both. What
// was done is written to w. Which part a task is only says where it begins: the tasks
// share the work among themselves.
func Slurm(ctx context.Context, e *plan.Experiment, o Options, tasks string, w io.Writer) error {
	m := array.FindStringSubmatch(tasks)
	if m == nil {
		return human.Misusef("--array is %q, expected a number of tasks such as 16, or 16%%4 for at most four at once", tasks)
	}
	n, _ := strconv.Atoi(m[1])
	if n < 1 || n > maxTasks {
		return human.Misusef("--array is %q, expected 1 to %d tasks", tasks, maxTasks)
	}
	err := checkOptions(o.Engine)
	if err == nil && !o.DryRun {
		err = find("sbatch")
	}
	if err != nil {
		return err
	}
	if o.gpus() > 0 {
		if err := ort.HasCUDA(); err != nil {
			return human.Misuse{Err: err}
		}
	}
	j, err := prepare(ctx, e, o)
	if err != nil {
		return err
	}
	logs := filepath.Join(j.Results, ".log", j.Name)
	if strings.ContainsAny(logs+j.Folder, "\\\n") {
		return human.Misusef("%s, %s: sbatch takes no path with a backslash or a line feed", logs, j.Folder)
	}
	if err := os.MkdirAll(logs, 0o755); err != nil { // Slurm makes no folder, and ends a task that has none to write to
		return human.Misuse{Err: store.ExplainWrite(logs, err)}
	}
	drawing := j.script("Each task draws what nobody else has drawn.", logs, "%A_%a.log", fmt.Sprintf("--array=0-%d%s", n-1, m[2]), ` --part "$SLURM_ARRAY_TASK_ID/$((SLURM_ARRAY_TASK_MAX + 1))"`)
	finishing := j.script("Starts when all tasks of job.sbatch have ended, and does what they left.", logs, "finish-%j.log", "", "")
	if err := errors.Join(j.write("job.sbatch", drawing), j.write("finish.sbatch", finishing)); err != nil {
		return err
	}
	fmt.Fprintf(w, "wrote %s, finish.sbatch\n", j.path("job.sbatch"))
	if o.DryRun {
		fmt.Fprintf(w, "to submit them:\n  id=$(sbatch --parsable %s)\n  sbatch --dependency=afterany:${id%%;*} %s\n", human.Quoted(j.path("job.sbatch")), human.Quoted(j.path("finish.sbatch")))
		return nil
	}
	return submitBoth(ctx, drawing, finishing, w)
}

// submitBoth submits two scripts, the second of which starts when the first has ended.
func submitBoth(ctx context.Context, drawing, finishing string, w io.Writer) error {
	id, err := sbatch(ctx, drawing)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "submitted", id)
	last, err := sbatch(ctx, finishing, "--dependency=afterany:"+id)
	if err != nil {
		return fmt.Errorf("job %s is submitted; the one that does what it may leave is not: %w", id, err)
	}
	fmt.Fprintf(w, "submitted %s, which starts after it\n", last)
	return nil
}

// sbatch submits a script and returns the number of the job.
func sbatch(ctx context.Context, script string, args ...string) (string, error) {
	out, err := engine(ctx, script, "sbatch", append(args, "--parsable")...)
	id, _, _ := strings.Cut(out, ";") // the name of a cluster may follow
	return id, err
}

// checkOptions refuses what the job decides itself, and what cannot stand in a script.
func checkOptions(options []string) error {
	for _, o := range options {
		name, _, _ := strings.Cut(o, "=")
		switch {
		case name == "--array" || strings.HasPrefix(o, "-a"):
			return human.Misusef("%s after --: the number of tasks stands before it, --array 16, or 16%%4 for at most four at once", o)
		case strings.ContainsAny(o, "\n\r\x00"):
			return human.Misusef("%q after --: a line of #SBATCH holds no line feed", o)
		}
	}
	return nil
}

// script is a batch script of the job's command. Its output goes to a file log, which
// Slurm's names of jobs and tasks may stand in, in the folder logs.
func (j *job) script(purpose, logs, log, array, part string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "#!/bin/bash\n# %s\n# Written by sagbench submit; edit it as you like, and start it with sbatch.\n", purpose)
	directive(&out, "--job-name="+j.Name, array)
	directive(&out, "--requeue", "--open-mode=append")
	directive(&out, "--output="+strings.ReplaceAll(logs, "%", "%%")+"/"+log)
	directive(&out, "--chdir="+j.Folder)
	directive(&out, j.resources()...)
	directive(&out, j.Engine...)
	for _, v := range j.Env {
		fmt.Fprintf(&out, "export %s=%s\n", v[0], human.Quoted(v[1]))
	}
	// Without srun, a task hears SIGTERM only when it is requeued; a step of srun that
	// ends on it would end the job for good.
	fmt.Fprintf(&out, "exec %s%s\n", human.Quoted(append([]string{j.Program}, j.Run...)...), part)
	return out.String()
}

// resources are what a task asks for where the options of sbatch do not say so.
func (j *job) resources() (options []string) {
	cores := j.Runtime.Threads
	if gpus := j.gpus(); gpus > 0 {
		cores = max(cores, 8*gpus)
		asked := false
		for _, o := range j.Engine {
			asked = asked || strings.HasPrefix(o, "--g") && strings.Contains(o, "gpu") || strings.HasPrefix(o, "-G")
		}
		if !asked {
			options = append(options, fmt.Sprintf("--gres=gpu:%d", gpus))
		}
	}
	if cores > 0 {
		options = append(options, fmt.Sprintf("--cpus-per-task=%d", cores))
	}
	return options
}

// bare is an option that sbatch reads as it stands.
var bare = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./\[\]-]+$`)

// directive writes options for sbatch, which reads quotes and backslashes as a shell
// does and replaces nothing else.
func directive(out *strings.Builder, options ...string) {
	var words []string
	for _, o := range options {
		switch {
		case o == "":
		case bare.MatchString(o):
			words = append(words, o)
		default:
			words = append(words, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(o)+`"`)
		}
	}
	if len(words) > 0 {
		fmt.Fprintln(out, "#SBATCH", strings.Join(words, " "))
	}
}
