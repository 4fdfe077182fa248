package submit

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
)

// A Cluster is what a job on Kubernetes needs beside its options.
type Cluster struct {
	Image       string
	Completions int      // pods that finish
	Volumes     []string // CLAIM:PATH, a PersistentVolumeClaim and where pods and this machine have it
}

// maxPods is the most pods that a Job with a limit of failures for each may have at once.
const maxPods = 10_000

// inImage are the variables that the image sets itself.
var inImage = regexp.MustCompile(`^(SAGBENCH_ONNXRUNTIME|XDG_CACHE_HOME)$`)

//go:embed job.yaml
var manifest string

// Kubernetes writes job.yaml, an Indexed Job, and has kubectl create it. What was done
// is written to w.
func Kubernetes(ctx context.Context, e *plan.Experiment, o Options, c Cluster, w io.Writer) error {
	if c.Completions < 1 || c.Completions > maxPods {
		return human.Misusef("--completions is %d, expected 1 to %d", c.Completions, maxPods)
	}
	volumes, err := c.volumes()
	if err != nil {
		return err
	}
	if !o.DryRun {
		if err := find("kubectl"); err != nil {
			return err
		}
	}
	j, err := prepare(ctx, e, o)
	if err != nil {
		return err
	}
	for _, path := range append([]string{j.Results}, j.Files...) {
		if !inside(path, volumes) {
			return human.Misusef("%s is in none of the volumes %s: pods do not see it; move it there, or add its volume with --volume CLAIM:PATH", path, strings.Join(c.Volumes, ", "))
		}
	}
	if !inside(j.Folder, volumes) { // then no path is relative to it
		j.Folder = filepath.Dir(j.Run[1])
	}
	text, err := j.manifest(c, volumes)
	if err != nil {
		return err
	}
	if err := j.write("job.yaml", text); err != nil {
		return err
	}
	fmt.Fprintln(w, "wrote", j.path("job.yaml"))
	if o.DryRun {
		fmt.Fprintf(w, "to submit it:\n  kubectl create -f %s\n", human.Quoted(append([]string{j.path("job.yaml")}, o.Engine...)...))
		return nil
	}
	created, err := engine(ctx, text, "kubectl", append([]string{"create", "-f", "-"}, o.Engine...)...)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, created)
	return nil
}

// A volume is a claim and the folder in which pods have it.
type volume struct{ Name, Claim, Path string }

var claimName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

func (c Cluster) volumes() (all []volume, err error) {
	for i, text := range c.Volumes {
		claim, path, _ := strings.Cut(text, ":")
		if !claimName.MatchString(claim) || !filepath.IsAbs(path) || strings.Contains(path, ":") {
			return nil, human.Misusef("--volume is %q, expected a PersistentVolumeClaim and its folder, such as data:/data", text)
		}
		all = append(all, volume{fmt.Sprintf("volume%d", i), claim, filepath.Clean(path)})
	}
	return all, nil
}

// inside tells whether a path lies in one of the volumes.
func inside(path string, volumes []volume) bool {
	for _, v := range volumes {
		if rel, err := filepath.Rel(v.Path, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

// manifest is the text of job.yaml.
func (j *job) manifest(c Cluster, volumes []volume) (string, error) {
	var env [][2]string
	for _, v := range j.Env {
		if !inImage.MatchString(v[0]) {
			env = append(env, v)
		}
	}
	// JSON strings are strings of YAML; Kubernetes makes one $ of two.
	quote := func(text string) (string, error) {
		var out strings.Builder
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		err := enc.Encode(text)
		return strings.TrimSpace(out.String()), err
	}
	t, err := template.New("job.yaml").Funcs(template.FuncMap{
		"quote":   quote,
		"literal": func(text string) (string, error) { return quote(strings.ReplaceAll(text, "$", "$$")) },
	}).Parse(manifest)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, map[string]any{
		"Name": jobName(j.Name, c.Completions), "Image": c.Image, "Pods": c.Completions, "Args": j.Run,
		"Folder": j.Folder, "Env": env, "GPUs": j.gpus(), "Volumes": volumes,
		"User": os.Getuid(), "Group": os.Getgid(),
	})
	return out.String(), err
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// jobName begins the name of a Job: lower-case letters, digits and hyphens, short
// enough for five more letters and the number of a pod within 63.
func jobName(experiment string, pods int) string {
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(experiment), "-"), "-")
	longest := 63 - len("-x1y2z") - len(fmt.Sprintf("-%d", pods-1))
	return strings.TrimRight(name[:min(len(name), longest)], "-") + "-"
}
