package refcase

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
)

// kernels reads models/ort/testdata/kernels.txt: the providers that have a kernel, by
// operator and element type.
func kernels(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(tiny.Root(), "models/ort/testdata/kernels.txt"))
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[0] != "#" {
			table[f[0]+" "+f[1]] = f[2:]
		}
	}
	return table
}

// signature is an operator with the element type of its first input, as the table has it.
func signature(n onnx.Node, half checkpoint.DType) string {
	of := func(t checkpoint.DType) checkpoint.DType {
		if t == checkpoint.F32 && half != "" {
			return half
		}
		return t
	}
	in, out := of(n.InputTypes[0]), of(n.OutputTypes[0])
	if in == out {
		return fmt.Sprintf("%s %s", n.Op, in)
	}
	return fmt.Sprintf("%s %s>%s", n.Op, in, out)
}

// checkOperators holds nodes of graphs against what CUDA and WebGPU have kernels for,
// so that one which is missing is known without a GPU.
func checkOperators(t *testing.T, nodes []onnx.Node) {
	t.Helper()
	table := kernels(t)
	for _, half := range []checkpoint.DType{"", checkpoint.F16} {
		found := map[string]bool{}
		for _, n := range nodes {
			if n.Domain != onnx.KernelsDomain && !(n.Op == "Cast" && half != "") {
				found[signature(n, half)] = true
			}
		}
		for s := range found {
			have, known := table[s]
			if !known {
				t.Errorf("%s is not in models/ort/testdata/kernels.txt: nobody knows which provider has a kernel for it", s)
			}
			for _, p := range ort.Providers {
				operator := strings.Fields(s)[0]
				if (p.Name == "cuda" || p.Name == "webgpu") && !slices.Contains(have, p.Name) &&
					!slices.ContainsFunc(p.Absent, func(a string) bool { return strings.Fields(a)[0] == operator }) {
					t.Errorf("%s has no kernel for %s, and its row in ort.Providers does not say so", p.Name, s)
				}
			}
		}
	}
}

// TestOperators checks those of the networks of the embedded experiments, which are
// perturbed and tapped.
func TestOperators(t *testing.T) {
	var nodes []onnx.Node
	opt := ort.Options{Opened: func(m *onnx.Model) { nodes = append(nodes, m.Nodes...) }}
	for _, name := range []string{"guidances", "families", "table2-fashion"} {
		e, err := plan.Load(filepath.Join(tiny.Root(), "configs", name+".yaml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range e.Rows {
			n, err := run.OpenRow(t.Context(), r, opt)
			if err != nil {
				t.Fatal(err)
			}
			n.Close()
		}
	}
	if len(nodes) < 1000 {
		t.Fatalf("the experiments' networks have %d nodes", len(nodes))
	}
	checkOperators(t, nodes)
}
