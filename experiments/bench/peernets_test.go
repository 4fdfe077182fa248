package bench

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/human"
	"sagbench/models/ort"
)

// A library that fails is not asked again, with more images neither, and the reason
// stands below the table; the others go on.
func TestPeersThatFail(t *testing.T) {
	t.Chdir("../..")
	python, calls := filepath.Join(t.TempDir(), "python"), filepath.Join(t.TempDir(), "calls")
	script := `#!/bin/sh
echo "$2 $3" >>` + calls + `
case "$2 $3" in
"torch.compile adm-fashion/8") echo "a warning" >&2; echo "no kernels for this" >&2; exit 1;;
esac
echo "a line of its own"
echo 0.25 1000
`
	if err := os.WriteFile(python, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(peersEnv, python)
	var out bytes.Buffer
	b := &bench{ctx: t.Context(), out: &out, progress: human.NewProgress(nil), scratch: t.TempDir()}
	columns := func(*bench) ([]networkColumn, string) {
		return []networkColumn{{title: "torch"}, {title: "torch.compile"}}, "something is emulated"
	}
	err := b.peerNets(peerNets{peerNetsSection, []peerNetwork{{embeddedADM, embeddedTitle, []int{1, 8, 64}, 2}}, columns, "cpu"})
	want := `| network | batch | torch | torch.compile |
| --- | --- | --- | --- |
| ADM, embedded | 1 | 250.0 ms | 250.0 ms |
| ADM, embedded | 8 | 250.0 ms | — |
| ADM, embedded | 64 | 250.0 ms | — |

torch.compile, ADM, embedded, batch 8: no kernels for this

something is emulated
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
	asked, err := os.ReadFile(calls)
	if n := strings.Count(string(asked), "torch.compile"); err != nil || n != 3 {
		t.Errorf("the library that failed was asked %d times, expected 3: %v\n%s", n, err, asked)
	}
}

// A measurement ends at its limit, also where a process of its own holds its output.
func TestLimitOfMeasurement(t *testing.T) {
	b := &bench{ctx: t.Context()}
	start := time.Now()
	_, err := b.timeNetwork(50*time.Millisecond, func(ctx context.Context) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, "sh", "-c", "sleep 60 & wait"), nil
	})
	if err == nil || !strings.Contains(err.Error(), "it took more than") || time.Since(start) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestColumnsOfPrecision(t *testing.T) {
	device, err := ort.ParseDevice("cuda:0")
	if err != nil {
		t.Fatal(err)
	}
	for precision, want := range map[string][]string{
		"":         {"torch", "torch.compile", "torch.compile, fp16", "sagbench", "sagbench, fp16"},
		"float32":  {"torch", "torch.compile", "sagbench"},
		"bfloat16": {"torch.compile, fp16", "sagbench, fp16"},
		"float16":  {"torch.compile, fp16", "sagbench, fp16"},
	} {
		columns, err := ofPrecision(peersOnDevice(device), precision)
		var got []string
		for _, c := range columns {
			got = append(got, c.title)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %q, want %q", precision, err, got, want)
		}
	}
	if _, err := ofPrecision(peersOnDevice(device), "tf32"); err == nil || !strings.Contains(err.Error(), "tf32") {
		t.Errorf("tf32: error %v", err)
	}
}
