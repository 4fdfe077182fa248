package refcase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval/npz"
	"sagbench/models/ort"
)

// checkEvaluate computes metrics from recorded features or, where the case lists
// files, the sums of their arrays; where it has a network, from images and texts.
func checkEvaluate(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	if !c.Model.IsNull() {
		return c.checkClip(ctx)
	}
	in := map[string]ort.Array{}
	var want []string
	for _, name := range c.tensors.Names() {
		if strings.HasPrefix(name, "out.") {
			want = append(want, name)
			continue
		}
		a, err := readArray(c.tensors[name])
		if err != nil {
			return nil, err
		}
		in[name] = a
	}
	found, err := c.evaluate(ctx, in, want)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{}
	for name, v := range found {
		shape := c.tensors[name].Shape
		if len(v) != c.tensors[name].Len() {
			shape = []int{len(v)}
		}
		out[strings.TrimPrefix(name, "out.")] = ort.Array{Shape: shape, Data: v}
	}
	return out, nil
}

func (c *referenceCase) evaluate(ctx context.Context, in map[string]ort.Array, want []string) (map[string][]float64, error) {
	if !c.Files.IsNull() {
		return npzOutputs(c.dir, want)
	}
	products, err := ort.NewProducts(ctx, c.options.Threads)
	if err != nil {
		return nil, err
	}
	defer products.Close()
	return metricOutputs(ctx, in, want, products)
}

// npzOutputs computes the arrays out.FILE.KEY.{shape,sum,weighted_sum} of a
// reference case of .npz files in a folder: shape, sum, and sum with element i
// weighted by i mod 997 + 1, in float64 over the values in C order. Every name
// of want is computed or is an error.
func npzOutputs(dir string, want []string) (map[string][]float64, error) {
	out := map[string][]float64{}
	var faults []error
	for _, name := range want {
		if _, done := out[name]; done {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(name, "out."), ".")
		if len(parts) != 3 || !slices.Contains([]string{"shape", "sum", "weighted_sum"}, parts[2]) {
			faults = append(faults, fmt.Errorf("eval: %s: expected out.FILE.KEY.shape, .sum or .weighted_sum", name))
			continue
		}
		shape, sum, weighted, err := sumArray(filepath.Join(dir, parts[0]+".npz"), parts[1])
		if err != nil {
			faults = append(faults, fmt.Errorf("eval: %s: %w", name, err))
			continue
		}
		prefix := "out." + parts[0] + "." + parts[1] + "."
		out[prefix+"shape"], out[prefix+"sum"], out[prefix+"weighted_sum"] = shape, []float64{sum}, []float64{weighted}
	}
	return out, errors.Join(faults...)
}

// sumArray reads the array key of the .npz file at path.
func sumArray(path, key string) (shape []float64, sum, weighted float64, err error) {
	f, err := npz.Open(path)
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := f.Array(key)
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	for _, n := range a.Shape {
		shape = append(shape, float64(n))
	}
	row := a.RowLen()
	batch := make([]float64, min(a.Rows(), max(1, (1<<18)/max(1, row)))*row)
	for at := 0; ; {
		n, err := npz.ReadRows(a, batch)
		if err != nil && err != io.EOF {
			return nil, 0, 0, err
		}
		if err == io.EOF {
			return shape, sum, weighted, nil
		}
		for _, v := range batch[:n*row] {
			sum += v
			weighted += v * float64(at%997+1)
			at++
		}
	}
}
