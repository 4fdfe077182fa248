package submit

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/experiments/work"
	"sagbench/internal/tiny"
)

func TestMain(m *testing.M) { os.Exit(tiny.Main(m)) }

// decode reads a manifest as the API server does, which knows no other field.
func decode(t *testing.T, text []byte) *batch.Job {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := batch.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	into := &batch.Job{}
	if _, _, err := strict.Decode(text, nil, into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return into
}

// The manifest has the fields of the published types and no other, and names come out
// of it as they went in.
func TestManifest(t *testing.T) {
	t.Setenv("SAGBENCH_NOTHING", `$(HOME) "a"`)
	folder := filepath.Join(t.TempDir(), `it's "a" $(HOME) $folder`)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	file := tiny.Experiment(t, folder, "name: tiny", "name: Tiny_1.0")
	e, err := plan.Load(file, []string{"samples=4"})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Options: run.Options{Results: folder, Work: work.Defaults(), Progress: human.NewProgress(os.Stderr)},
		Devices: []string{"cuda:0", "cuda:1"}, Args: []string{file, "samples=4"}, DryRun: true,
	}
	o.Progress.Quiet = true
	c := Cluster{Image: "registry/sagbench:1", Completions: 16, Volumes: []string{"data:" + folder, "models:/"}}
	var out bytes.Buffer
	if err := Kubernetes(t.Context(), e, o, c, &out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "Tiny_1.0", ".work", "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, text)
	if got.GenerateName != "tiny-1-0-" || *got.Spec.Completions != 16 || *got.Spec.Parallelism != 16 || *got.Spec.CompletionMode != batch.IndexedCompletion {
		t.Errorf("%s", text)
	}
	rules := got.Spec.PodFailurePolicy.Rules
	if len(rules) != 2 || rules[0].Action != batch.PodFailurePolicyActionFailJob || !slices.Equal(rules[0].OnExitCodes.Values, []int32{2}) ||
		rules[1].Action != batch.PodFailurePolicyActionIgnore || rules[1].OnPodConditions[0].Type != core.DisruptionTarget {
		t.Errorf("rules of failures: %+v", rules)
	}
	pod := got.Spec.Template.Spec
	want := []string{"run", file, "samples=4", "--results", folder, "--devices", "cuda:0,cuda:1", "--part", "$(JOB_COMPLETION_INDEX)/16"}
	args := slices.Clone(pod.Containers[0].Args)
	for i := range len(args) - 1 {
		args[i] = strings.ReplaceAll(args[i], "$$", "$")
	}
	if !slices.Equal(args, want) {
		t.Errorf("arguments %q, want %q", args, want)
	}
	if gpu := pod.Containers[0].Resources.Limits["nvidia.com/gpu"]; gpu.Value() != 2 {
		t.Errorf("GPUs of a pod: %v", gpu)
	}
	if !slices.Contains(pod.Containers[0].Env, core.EnvVar{Name: "SAGBENCH_NOTHING", Value: `$$(HOME) "a"`}) {
		t.Errorf("environment %v", pod.Containers[0].Env)
	}
	if len(pod.Volumes) != 2 || pod.Volumes[0].PersistentVolumeClaim.ClaimName != "data" || pod.Containers[0].VolumeMounts[0].MountPath != folder {
		t.Errorf("volumes %v, mounts %v", pod.Volumes, pod.Containers[0].VolumeMounts)
	}
}

func TestJobName(t *testing.T) {
	for name, want := range map[string]string{
		"table1": "table1-", "Table_1.b": "table-1-b-", "x.": "x-", strings.Repeat("a", 200): strings.Repeat("a", 63-len("-x1y2z-99")) + "-",
	} {
		if got := jobName(name, 100); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A path that pods would not see is refused before anything is written.
func TestOutsideVolumes(t *testing.T) {
	v := []volume{{Path: "/data"}, {Path: "/models/a"}}
	for path, want := range map[string]bool{"/data": true, "/data/x": true, "/database": false, "/models/x": false, "/models/a/b": true, "/": false} {
		if inside(path, v) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
