package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// within makes a process the one of a shell script, in which "$0" "$@" stand for it.
func (p *process) within(t *testing.T, script string) *process {
	t.Helper()
	p.Cmd.Path, p.Cmd.Args = shell(t), append([]string{"sh", "-c", script}, p.Cmd.Args...)
	return p
}

// evalArgs are those of an evaluation that takes a moment.
func evalArgs(more ...string) []string {
	return append([]string{"eval", tiny.Reference(), tiny.Reference(), "--inception", "../models/pretrained/inception.pt", "--input-size", "107", "--metrics", "fid"}, more...)
}

func isJSON(t *testing.T, data []byte) {
	t.Helper()
	if !json.Valid(data) || !bytes.Contains(data, []byte(`"scores"`)) {
		t.Errorf("no scores as JSON: %q", data)
	}
}

// What a user names as an output is written to, whatever it is, and stays what it is.
func TestOutputs(t *testing.T) {
	folder := t.TempDir()
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	kind := func(name string, want fs.FileMode) {
		t.Helper()
		if info, err := os.Lstat(filepath.Join(folder, name)); err != nil || info.Mode().Type() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	for link, to := range map[string]string{"link": "old.json", "dangling": "deeper/new.json", "device": "/dev/null", "ref.npz": "real.npz", "grid.png": "real.png"} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	tiny.Write(t, filepath.Join(folder, "old.json"), "before")
	if message := fail(t, evalArgs("--json", filepath.Join(folder, "dangling"))...); !strings.Contains(message, "there is no folder "+filepath.Join(folder, "deeper")) {
		t.Error(message)
	}
	if err := os.Mkdir(filepath.Join(folder, "deeper"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(folder, "old.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"link", "dangling", "device"} {
		succeed(t, evalArgs("--json", filepath.Join(folder, link))...)
		kind(link, fs.ModeSymlink)
	}
	isJSON(t, read("old.json"))
	isJSON(t, read("deeper/new.json"))
	if info, err := os.Stat(filepath.Join(folder, "old.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("permissions of a file that was there: %v, %v", info.Mode(), err)
	}
	succeed(t, "grid", tiny.Reference(), "-o", filepath.Join(folder, "grid.png"))
	kind("grid.png", fs.ModeSymlink)
	kind("real.png", 0)
	reference := []string{"reference", tiny.Reference(), "--inception", "../models/pretrained/inception.pt", "--input-size", "107", "--images", "0", "-o"}
	succeed(t, append(reference, filepath.Join(folder, "ref.npz"))...)
	kind("ref.npz", fs.ModeSymlink)
	kind("real.npz", 0)

	for name, args := range map[string][]string{
		"fifo":      evalArgs("--json", filepath.Join(folder, "fifo")),
		"fifo.npz":  append(reference, filepath.Join(folder, "fifo.npz")),
		"fifo.png":  {"grid", tiny.Reference(), "-o", filepath.Join(folder, "fifo.png")},
		"fifo, csv": evalArgs("--csv", filepath.Join(folder, "fifo, csv")),
	} {
		if err := syscall.Mkfifo(filepath.Join(folder, name), 0o644); err != nil {
			t.Fatal(err)
		}
		p := program(args...)
		p.start(t)
		reader, err := os.OpenFile(filepath.Join(folder, name), os.O_RDWR, 0) // which waits for nobody
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 4)
		if _, err := reader.Read(head); err != nil {
			t.Fatal(err)
		}
		go reader.WriteTo(&bytes.Buffer{})
		if status := p.status(t); status != 0 {
			t.Errorf("%s: exit status %d\n%s", name, status, &p.stderr)
		}
		reader.Close()
		kind(name, fs.ModeNamedPipe)
		if want := map[string]string{"fifo": "{\n  ", "fifo.npz": "PK\x03\x04", "fifo.png": "\x89PNG", "fifo, csv": "metr"}[name]; string(head) != want {
			t.Errorf("%s: begins with %q, want %q", name, head, want)
		}
	}

	// Standard output by a name, to a pipe and to a file: the scores, then the table.
	for _, script := range []string{`"$0" "$@" | cat`, `"$0" "$@" > '` + folder + `/out' && cat '` + folder + `/out'`} {
		p := program(evalArgs("--json", "/proc/self/fd/1")...).within(t, script)
		p.start(t)
		p.status(t)
		scores, table, ok := strings.Cut(p.stdout.String(), "protocol: ")
		if !ok || !strings.Contains(table, "FID") {
			t.Errorf("%s: no table behind the scores: %q\n%s", script, &p.stdout, &p.stderr)
		}
		isJSON(t, []byte(scores))
	}
	if message := fail(t, evalArgs("--json", folder)...); !strings.Contains(message, "is a folder") {
		t.Errorf("no reason in %s", message)
	}
}

// What a command reads is not replaced by what it writes, by whichever name, and one of
// its files not by another.
func TestOutputsAreNoInputs(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	copyFile(t, tiny.Reference(), in("samples.npz"))
	copyFile(t, "../models/pretrained/inception.pt", in("inception.pt"))
	tiny.Write(t, in("metrics.json"), "scores")
	if err := errors.Join(os.Symlink("samples.npz", in("link.json")), os.Link(in("inception.pt"), in("hard.csv"))); err != nil {
		t.Fatal(err)
	}
	before := tiny.Tree(t, folder)
	eval := []string{"eval", tiny.Reference(), in("samples.npz"), "--inception", in("inception.pt"), "--metrics", "fid"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{append(eval, "--json", in("samples.npz")), "--json: " + in("samples.npz") + " is " + in("samples.npz") + ", which it would replace"},
		{append(eval, "--json", in("link.json")), "link.json is " + in("samples.npz")},
		{append(eval, "--csv", in("hard.csv")), "--csv: " + in("hard.csv") + " is " + in("inception.pt")},
		{append(eval, "--json", in("new"), "--csv", folder+"/./new"), "--csv: " + folder + "/./new is given for two files"},
		{[]string{"reference", in("samples.npz"), "-o", in("samples.npz"), "--force", "--inception", in("inception.pt")}, "-o: " + in("samples.npz") + " is "},
		{[]string{"report", folder, "-o", in("metrics.json")}, "expected a name that ends in .html"},
	} {
		if message, status := failed(t, c.args...); status != statusMisuse || !strings.Contains(message, c.want) {
			t.Errorf("%s: exit status %d, %s", c.args, status, message)
		}
	}
	tiny.Same(t, tiny.Tree(t, folder), before)
	succeed(t, append(eval, "--json", "/dev/null", "--csv", "/dev/null")...)
}

// The CSV of an evaluation says of which files it is.
func TestCSVNamesItsFiles(t *testing.T) {
	p := succeed(t, evalArgs("--csv", "-")...)
	lines := strings.Split(p.stdout.String(), "\n")
	if !strings.HasSuffix(lines[0], ",reference,reference_sha256,sample,sample_sha256") || strings.Count(lines[1], ",reference.npz,") != 2 {
		t.Errorf("%q", lines)
	}
}

// A standard output that cannot take what is written is an error of every command.
func TestFullStandardOutput(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]\nbootstrap: 40", "steps: 2", "steps: 1")
	results := filepath.Join(folder, "results")
	succeed(t, "run", file, "--results", results)
	for _, args := range [][]string{
		{"run", file, "--results", results},
		{"table", results},
		{"table", results, "--format", "csv"},
		{"table", results, "--format", "latex"},
		{"compare", results},
		{"plot", results, "-o", filepath.Join(folder, "plots")},
		{"inspect", "../models/pretrained/adm-cond.pt"},
		{"inspect", "../models/pretrained/adm-cond.pt", "--json"},
		evalArgs(),
		evalArgs("--json", "-"),
		evalArgs("--csv", "-"),
		evalArgs("--json", "/proc/self/fd/1"),
		{"plan", file, "--results", results},
		{"check", "refcase/testdata/cases/schedule-ddim"},
		{"version"},
		{"docs"},
		{"--threads", "1", "--help"},
		{"help", "run"},
		{"run", "--help"},
		{"--threads", "1", "--version"},
	} {
		p := program(args...)
		if args[0] == "--threads" {
			p.Cmd.Args = append([]string{os.Args[0]}, args...)
		}
		p.within(t, `exec "$0" "$@" > /dev/full`)
		p.start(t)
		if status := p.status(t); status != statusAgain {
			t.Errorf("%s: exit status %d, want 75", args, status)
		}
		if message := p.stderr.String(); !strings.Contains(message, "cannot be written") || !strings.Contains(message, "no space left on device") || strings.Count(message, "sagbench: ") != 1 {
			t.Errorf("%s: %s", args, message)
		}
	}
}

// A FIFO where a file is meant is an error at once, not a wait for somebody who
// writes to it.
func TestFIFOsAsInputs(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"f.yaml", "f.npz", "f.npy", "f.zip", "f.pt", "f.onnx", "metrics.json"} {
		if err := syscall.Mkfifo(filepath.Join(folder, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, in := tiny.Experiment(t, t.TempDir()), func(name string) string { return filepath.Join(folder, name) }
	inception := []string{"--inception", "../models/pretrained/inception.pt", "--input-size", "107"}
	for _, args := range [][]string{
		{"plan", in("f.yaml")},
		{"plan", file, "include=" + in("f.yaml")},
		{"plan", file, "model.checkpoint=" + in("f.pt")},
		{"plan", file, "reference=" + in("f.npz")},
		{"plan", file, "inception.checkpoint=" + in("f.pt")},
		append([]string{"eval", in("f.npz"), tiny.Reference()}, inception...),
		append([]string{"eval", tiny.Reference(), in("f.npy")}, inception...),
		append([]string{"eval", tiny.Reference(), in("f.zip")}, inception...),
		append([]string{"reference", in("f.zip"), "-o", in("new.npz")}, inception...),
		{"eval", tiny.Reference(), tiny.Reference(), "--inception", in("f.pt")},
		{"eval", tiny.Reference(), tiny.Reference(), "--network", in("f.onnx"), "--output", "pool=features"},
		{"inspect", in("f.pt")},
		{"grid", in("f.npz"), "-o", in("grid.png")},
		{"table", folder},
	} {
		fail(t, args...)
	}
}

// A process that is waiting for something else ends after the first signal.
func TestSignalWhileBlocked(t *testing.T) {
	folder := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(folder, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := program(evalArgs("--json", filepath.Join(folder, "scores.json"), "--csv", filepath.Join(folder, "fifo"))...)
	p.start(t)
	defer time.AfterFunc(time.Minute, func() { p.Process.Kill() }).Stop()
	for deadline := time.Now().Add(time.Minute); !store.Exists(filepath.Join(folder, "scores.json")); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no scores after a minute\n%s", &p.stderr)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.status(t); status != 143 || !strings.Contains(p.stderr.String(), "stopped by terminated") {
		t.Errorf("exit status %d, want 143\n%s", status, &p.stderr)
	}
}

// Nobody else may read what is written under a umask of 077.
func TestUmask(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]\nbootstrap: 40", "steps: 2", "steps: 1")
	results := filepath.Join(folder, "results")
	for _, args := range [][]string{
		{"run", file, "--results", results},
		evalArgs("--json", filepath.Join(results, "scores.json"), "--csv", filepath.Join(results, "scores.csv")),
		{"grid", results, "-o", filepath.Join(results, "grid.png")},
	} {
		p := program(args...).within(t, `umask 077; exec "$0" "$@"`)
		p.start(t)
		if status := p.status(t); status != 0 {
			t.Fatalf("%s: exit status %d\n%s", args, status, &p.stderr)
		}
	}
	count := 0
	err := filepath.WalkDir(results, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		count++
		return err
	})
	if err != nil || count < 15 {
		t.Errorf("%d files, %v", count, err)
	}
}

// withoutPrivilege is a script that runs "$0" "$@" as somebody whom permissions stop.
func withoutPrivilege(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return `exec "$0" "$@"`
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("there is no setpriv")
	}
	return `exec setpriv --bounding-set=-dac_override "$0" "$@"`
}

// What is finished can be run where nothing may be written.
func TestReadOnlyResults(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "steps: 2", "steps: 1")
	results := t.TempDir()
	first := succeed(t, "run", file, "--results", results)
	before := tiny.Tree(t, results)
	var folders []string
	filepath.WalkDir(results, func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	for _, f := range folders {
		if err := os.Chmod(f, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(f, 0o755)
	}
	script := withoutPrivilege(t)
	p := program("run", file, "--results", results).within(t, script)
	p.start(t)
	if status := p.status(t); status != 0 || p.stdout.String() != first.stdout.String() {
		t.Errorf("exit status %d\n%s%s", status, &p.stdout, &p.stderr)
	}
	p = program("run", file, "samples=9", "--results", results).within(t, script)
	p.start(t)
	if status := p.status(t); status != statusFailed || !strings.Contains(p.stderr.String(), "cannot be written") {
		t.Errorf("with something to do: exit status %d\n%s", status, &p.stderr)
	}
	tiny.Same(t, tiny.Tree(t, results), before)
}

// A label cannot steer a terminal, nor get into a file as anything but text.
func TestControlCharacters(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "steps: 2", "steps: 1", "name: tiny", "name: tiny\nrows: [{label: \"a\\e]0;owned\\a\\u202eb\"}]")
	results := filepath.Join(folder, "results")
	for _, args := range [][]string{
		{"plan", file, "--results", results},
		{"run", file, "--results", results},
		{"table", results}, {"table", results, "--format", "csv"}, {"table", results, "--format", "latex"}, {"table", results, "--format", "markdown"},
		{"grid", results, "-o", filepath.Join(folder, "grid.png"), "--images", "99"},
		{"compare", results},
	} {
		p := program(args...)
		p.start(t)
		p.status(t)
		text := p.stdout.String() + p.stderr.String()
		if strings.ContainsAny(text, "\x1b\x07\u202e") {
			t.Errorf("%s: control characters in %q", args, text)
		}
	}
	paths, err := filepath.Glob(filepath.Join(results, "tiny", "table.*"))
	if err != nil || len(paths) != 3 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || bytes.ContainsAny(data, "\x1b\x07\u202e") {
			t.Errorf("control characters in %s, %v: %q", path, err, data)
		}
	}
}

// The exit status tells what to do about an error.
func TestExitStatus(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for _, c := range []struct {
		want int
		args []string
	}{
		{statusMisuse, []string{"rnu", file}},
		{statusMisuse, []string{"run"}},
		{statusMisuse, []string{"run", file, "--sampels", "3"}},
		{statusMisuse, []string{"run", file, "steps"}},
		{statusMisuse, []string{"run", file, "--device", "gpu"}},
		{statusMisuse, []string{"plan", file, "--device", "cuda:x"}},
		{statusMisuse, []string{"check", "refcase/testdata/cases/schedule-ddim", "--device", "cuda:-1"}},
		{statusMisuse, evalArgs("--device", "tpu:0")},
		{statusMisuse, []string{"run", file, "samples=many"}},
		{statusMisuse, []string{"run", file, "sampels=3"}},
		{statusMisuse, []string{"plan", nowhere + ".yaml"}},
		{statusMisuse, []string{"eval", "one.npz"}},
		{statusMisuse, evalArgs("--protocol", "x")},
		{statusMisuse, evalArgs("--metrics", "fdi")},
		{statusMisuse, evalArgs("--bootstrap", "3")},
		{statusMisuse, []string{"eval", tiny.Reference(), tiny.Reference()}},
		{statusMisuse, []string{"table", nowhere, "--format", "html"}},
		{statusMisuse, []string{"grid", nowhere}},
		{statusMisuse, []string{"grid", nowhere, "-o", "x.png", "--scale", "-1"}},
		{statusMisuse, []string{"grid", tiny.Reference(), "-o", nowhere + ".txt"}},
		{statusMisuse, []string{"grid", tiny.Reference(), "-o", nowhere}},
		{statusMisuse, []string{"grid", tiny.Reference(), "-o", nowhere + "/grid.png"}},
		{statusMisuse, evalArgs("--json", nowhere+"/x.json")},
		{statusMisuse, evalArgs("--csv", nowhere+"/x.csv")},
		{statusMisuse, evalArgs("--json", "")},
		{statusMisuse, []string{"run", file, "--results", ""}},
		{statusMisuse, []string{"plot", nowhere, "-o", ""}},
		{statusMisuse, []string{"reference", tiny.Reference(), "-o", nowhere + "/x.npz", "--inception", "f.pt"}},
		{statusMisuse, []string{"reference", tiny.Reference(), "-o", "x.txt", "--inception", "f.pt"}},
		{statusMisuse, []string{"plot", nowhere, "--format", "eps"}},
		{statusMisuse, []string{"compare", nowhere, "--format", "pdf"}},
		{statusMisuse, []string{"bench", "everything"}},
		{statusFailed, []string{"table", nowhere}},
		{statusFailed, []string{"inspect", nowhere}},
		{statusFailed, []string{"run", file, "model.checkpoint=" + nowhere}},
	} {
		message, status := failed(t, c.args...)
		if status != c.want {
			t.Errorf("%s: exit status %d, want %d\n%s", c.args, status, c.want, message)
		}
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Errorf("%s was made", nowhere)
	}
	help := succeed(t, "help").stdout.String()
	for _, w := range []string{"0 done", "1 failed", "2 wrong usage", "75 try again", "130 stopped by", "143 stopped by"} {
		if !strings.Contains(help, w) {
			t.Errorf("no %q in --help", w)
		}
	}
}

// The progress of a run stays in its line on terminals of all widths: there are as
// many lines beside the table as without a terminal, and the indented ones that they are
// broken into. --quiet writes nothing on its way.
func TestProgressOnTerminal(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("there is no script to make a terminal")
	}
	file := tiny.Experiment(t, t.TempDir(), "metrics: [fid, sfid, is, precision, recall]", "metrics: [fid]", "sweep:", "#")
	args := func() []string { return []string{"run", file, "--results", t.TempDir()} }
	plain := succeed(t, args()...)
	if strings.ContainsAny(plain.stderr.String(), "\r\x1b") {
		t.Errorf("a pipe gets %q", &plain.stderr)
	}
	want := strings.Count(plain.stderr.String(), "\n")
	for _, columns := range []string{"10", "80"} {
		p := program(args()...)
		quoted := strings.TrimPrefix(human.CommandLine(p.Cmd.Args), "sagbench ")
		p.Cmd.Path, p.Cmd.Args = shell(t), []string{"sh", "-c", `exec script -qec "$1" /dev/null`, "sh", "stty cols " + columns + "; TERM=xterm " + quoted + " >table"}
		p.Cmd.Dir = t.TempDir()
		p.start(t)
		if status := p.status(t); status != 0 {
			t.Fatalf("%s columns: exit status %d\n%s", columns, status, &p.stdout)
		}
		text := p.stdout.String()
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s columns: an escape in %q", columns, text)
		}
		if got := strings.Count(text, "\n") - strings.Count(text, "\n  "); got != want {
			t.Errorf("%s columns: %d lines, want %d\n%q", columns, got, want, text)
		}
		width, replaced := 0, 0
		fmt.Sscan(columns, &width)
		pieces := strings.Split(text, "\r") // a terminal writes \n as \r\n
		for i, piece := range pieces[:len(pieces)-1] {
			shown := utf8.RuneCountInString(piece)
			if strings.HasPrefix(piece, "\n") || strings.HasPrefix(pieces[i+1], "\n") || shown == 0 {
				continue // a line that stays
			}
			if replaced++; shown >= width {
				t.Errorf("%s columns: what is to be replaced takes %d: %q", columns, shown, piece)
			}
		}
		if replaced == 0 {
			t.Errorf("%s columns: no progress in %q", columns, text)
		}
	}
	quiet := succeed(t, append(args(), "--quiet")...)
	for line := range strings.Lines(quiet.stderr.String()) {
		if !strings.HasPrefix(line, "warning: ") && !strings.HasPrefix(line, "note: ") {
			t.Errorf("--quiet: %q", line)
		}
	}
	if quiet.stdout.String() != plain.stdout.String() {
		t.Errorf("--quiet: another table\n%s", &quiet.stdout)
	}
}

// grid shows what sample drew, evaluated or not, as many images as there are. A shard
// that is damaged is told of, and not said to be computed again.
func TestGridOfSampled(t *testing.T) {
	folder := t.TempDir()
	file := tiny.Experiment(t, folder, "steps: 2", "steps: 1")
	results, picture := filepath.Join(folder, "results"), filepath.Join(folder, "grid.png")
	succeed(t, "sample", file, "samples=5", "--results", results)
	succeed(t, "grid", results, "-o", picture)
	if message := fail(t, "grid", results, "-o", picture, "--images", "6"); !strings.Contains(message, "has no image 5") {
		t.Errorf("six of five images: %s", message)
	}
	merged, err := filepath.Glob(filepath.Join(results, "tiny", "*", "samples", "*.npz"))
	if err == nil {
		err = os.Truncate(merged[0], 100)
	}
	if err != nil {
		t.Fatal(err)
	}
	if message := fail(t, "grid", results, "-o", picture); !strings.Contains(message, "its 5 images cannot be shown; `sagbench run` or `sample` draws them anew") || strings.Contains(message, "computed again") {
		t.Error(message)
	}
	if message := fail(t, "grid", folder+"/nowhere", "-o", picture); !strings.Contains(message, "no such file or folder") {
		t.Error(message)
	}
}

// A run says what it did not look at again, which settings of the command line undo a
// sweep, and that it replaces the tables of another experiment of the name.
func TestRunSaysWhatItTakes(t *testing.T) {
	folder := t.TempDir()
	file, results := tiny.Experiment(t, folder, "steps: 2", "steps: 1", "samples: 8", "samples: 2", "[fid, sfid, is, precision, recall]", "[fid]"), filepath.Join(folder, "results")
	const (
		taken    = "2 of 2 rows were scored before: their scores are those of metrics.json"
		replaces = "make another experiment of tiny: its tables and plots replace those in "
		undone   = "guidance.sag.scale=0.5 takes the place of what the rows differ in (0, 0.5)"
	)
	for i, c := range []struct {
		settings []string
		want     []string
	}{
		{nil, nil},
		{nil, []string{taken}},
		{[]string{"samples=3"}, []string{replaces}},
		{[]string{"samples=3"}, []string{taken}},
		{[]string{"samples=3", "name=try"}, nil},
		{[]string{"guidance.sag.scale=0.5", "name=one"}, []string{undone}},
	} {
		said := succeed(t, append([]string{"run", file, "--results", results}, c.settings...)...).stderr.String()
		for _, line := range []string{taken, replaces, undone} {
			if count := strings.Count(said, line); (count == 1) != slices.Contains(c.want, line) || count > 1 {
				t.Errorf("run %d: %q is said %d times\n%s", i, line, count, said)
			}
		}
		if i == 1 { // a damaged file that no score is taken from
			damaged, err := filepath.Glob(filepath.Join(results, "tiny", "*", store.FeaturesFile("inception")))
			if err == nil {
				err = os.Truncate(damaged[0], 100)
			}
			if err != nil {
				t.Fatal(err)
			}
			if said := succeed(t, "run", file, "--results", results).stderr.String(); !strings.Contains(said, "images and features were not read again, `sagbench verify "+filepath.Join(results, "tiny")+"` does that") {
				t.Error(said)
			}
			if message := fail(t, "verify", filepath.Join(results, "tiny")); !strings.Contains(message, damaged[0]) {
				t.Error(message)
			}
		}
	}
}
