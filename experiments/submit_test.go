package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sagbench/internal/tiny"
)

// An engine's client that keeps what it is given: clients has one program for each
// name, which appends its arguments and its input to the file calls, says and exits.
func clients(t *testing.T, name, says string, status int) (folder, calls string) {
	t.Helper()
	folder = t.TempDir()
	calls = filepath.Join(folder, "calls")
	tiny.Write(t, filepath.Join(folder, name), fmt.Sprintf("#!/bin/sh\n{ echo \"= $*\"; cat; } >>'%s'\n%s\nexit %d\n", calls, says, status))
	if err := os.Chmod(filepath.Join(folder, name), 0o755); err != nil {
		t.Fatal(err)
	}
	return folder, calls
}

// submitting is a command line of submit in a folder, with programs that are found
// before all others.
func submitting(folder, clients string, args ...string) *process {
	p := program()
	p.Args, p.Dir = append([]string{"sagbench", "submit"}, args...), folder
	p.Env = append(p.Env, "PATH="+clients+":"+os.Getenv("PATH"))
	return p
}

// The scripts that sbatch gets run the experiment of the command line from any folder
// and in any environment, also where names hold what a shell reads otherwise.
func TestSubmitSlurm(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	folder := filepath.Join(t.TempDir(), `it's "a" $HOME & %j`)
	models := filepath.Join(folder, "models")
	if err := os.MkdirAll(models, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"adm-cond.pt", "inception.pt"} {
		if err := os.Symlink(filepath.Join(tiny.Root(), "models/pretrained", name), filepath.Join(models, name)); err != nil {
			t.Fatal(err)
		}
	}
	tiny.Experiment(t, folder, "MODELS/adm-cond.pt", `"${WEIGHTS}/adm-cond.pt"`, "MODELS/inception.pt", `"${WEIGHTS}/inception.pt"`, "samples: 8", "samples: 4")
	bin, calls := clients(t, "sbatch", "echo '4711;here'", 0)

	p := submitting(folder, bin, "tiny.yaml", "sampler.ddpm.steps=1", "--slurm", "--array", "3%2", "--device", "cpu", "--threads", "1", "--", "-p", "main", "--comment=two \"words\"")
	p.Env = append(p.Env, "WEIGHTS=models")
	p.start(t)
	if status := p.status(t); status != 0 || !strings.Contains(p.stdout.String(), "submitted 4711\nsubmitted 4711, which starts after it") {
		t.Fatalf("exit status %d\n%s%s", status, &p.stdout, &p.stderr)
	}
	given, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"= --parsable\n#!/bin/bash\n", "= --dependency=afterany:4711 --parsable\n#!/bin/bash\n",
		"#SBATCH --job-name=tiny --array=0-2%2\n", `#SBATCH -p main "--comment=two \"words\""` + "\n", "export WEIGHTS=models\n",
		"%%j/results/.log/tiny/%A_%a.log", "#SBATCH --requeue --open-mode=append\n", "#SBATCH --cpus-per-task=1\n",
	} {
		if !strings.Contains(string(given), want) {
			t.Errorf("%q is not in\n%s", want, given)
		}
	}

	work := filepath.Join(folder, "results", "tiny", ".work")
	scripts := map[string]string{}
	for _, name := range []string{"job.sbatch", "finish.sbatch"} {
		text, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(given), string(text)) {
			t.Errorf("sbatch did not get %s", name)
		}
		scripts[name] = string(text)
	}
	for _, name := range []string{"job.sbatch", "finish.sbatch"} {
		c := exec.Command(bash)
		c.Dir, c.Stdin = folder, strings.NewReader(scripts[name]) // as --chdir
		c.Env = []string{"SLURM_ARRAY_TASK_ID=1", "SLURM_ARRAY_TASK_MAX=2", asProgram + "=1", "XDG_CACHE_HOME=" + os.Getenv("XDG_CACHE_HOME")}
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "FID") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	t.Setenv("WEIGHTS", models)
	want := undisturbed(t, "run", filepath.Join(folder, "tiny.yaml"), "sampler.ddpm.steps=1")
	if err := os.RemoveAll(filepath.Join(folder, "results", ".log")); err != nil {
		t.Fatal(err)
	}
	tiny.Same(t, tiny.Tree(t, filepath.Join(folder, "results")), want)
}

// What is wrong is said before anything is submitted, and the exit status tells what
// may be tried again.
func TestSubmitRefuses(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder)
	tiny.Write(t, filepath.Join(folder, "occupied"), "a file")
	bin, calls := clients(t, "sbatch", "echo 1", 0)
	slurm := []string{"--slurm", "--array", "2", "--device", "cpu"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{file}, "at least one of the flags in the group [slurm kubernetes]"},
		{[]string{file, "--slurm"}, "missing [array]"},
		{[]string{file, "--slurm", "--array", "0-3", "--device", "cpu"}, `--array is "0-3"`},
		{[]string{file, "--slurm", "--array", "2%0", "--device", "cpu"}, `--array is "2%0"`}, // which Slurm takes for no limit
		{append([]string{file, "samples=0"}, slurm...), "samples is 0"},
		{append([]string{file, "no setting"}, slurm...), "is not a setting"},
		{append([]string{file, "model.checkpoint=nowhere.pt"}, slurm...), "nowhere.pt: there is no such file"},
		{append([]string{file, "model.num_channels=32"}, slurm...), "num_channels"},
		{append([]string{file, "--results", "occupied"}, slurm...), "occupied"},
		{append([]string{file, "--results", `back\slash`}, slurm...), "backslash"},
		{append([]string{file}, append(slurm, "--", "--array=3")...), "--array=3 after --"},
		{append([]string{file}, append(slurm, "--", "--comment=a\nb")...), "line feed"},
		{[]string{file, "--slurm", "--array", "2"}, "GPU build of ONNX Runtime"},
		{[]string{file, "--kubernetes", "--image", "x", "--completions", "2", "--dry-run"}, "is in none of the volumes data:/data"},
		{[]string{file, "--kubernetes", "--image", "x", "--completions", "2", "--dry-run", "--volume", "data"}, "--volume is"},
	} {
		p := submitting(folder, bin, c.args...)
		p.start(t)
		if status := p.status(t); status != statusMisuse || !strings.Contains(p.stderr.String(), c.want) {
			t.Errorf("%q: exit status %d, expected 2 and %q\n%s", c.args, status, c.want, &p.stderr)
		}
	}
	if given, err := os.ReadFile(calls); err == nil {
		t.Errorf("sbatch was called:\n%s", given)
	}
	for says, want := range map[string]int{
		"echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2": statusAgain,
		"echo 'sbatch: error: invalid partition specified: nowhere' >&2":                                              statusMisuse,
	} {
		bin, _ := clients(t, "sbatch", says, 1)
		p := submitting(folder, bin, append([]string{file}, slurm...)...)
		p.start(t)
		if status := p.status(t); status != want || !strings.Contains(p.stderr.String(), "sbatch: error: ") {
			t.Errorf("%s: exit status %d, want %d\n%s", says, status, want, &p.stderr)
		}
	}

	worker := interrupted(t, syscall.Signal(0), filepath.Join(folder, "results"), 1, "run", file, "samples=2000")
	defer worker.Process.Kill()
	p := submitting(folder, bin, append([]string{file, "samples=2000", "seed=4"}, slurm...)...)
	p.start(t)
	if status := p.status(t); status != statusMisuse || !strings.Contains(p.stderr.String(), "is being worked on, with other settings") {
		t.Errorf("another experiment is at work: exit status %d\n%s", status, &p.stderr)
	}
}
