package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"sagbench/eval"
	"sagbench/eval/npz"
	"sagbench/models/ort"
)

// checkEvaluate computes metrics from recorded features or, where the case
// lists files, the sums of their arrays.
func checkEvaluate(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
	if !c.Files.IsNull() {
		return c.sums()
	}
	in := map[string]eval.CaseArray{}
	var want []string
	for name, t := range c.tensors {
		if strings.HasPrefix(name, "out.") {
			want = append(want, name)
			continue
		}
		a, err := readArray(t)
		if err != nil {
			return nil, err
		}
		in[name] = caseArray(a)
	}
	products, err := ort.NewProducts(c.options.Threads)
	if err != nil {
		return nil, err
	}
	defer products.Close()
	found, err := eval.CaseOutputs(ctx, in, want, products)
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

func caseArray(a ort.Array) eval.CaseArray {
	switch d := a.Data.(type) {
	case []float32:
		return eval.CaseArray{Shape: a.Shape, Float: d}
	case []int64:
		return eval.CaseArray{Shape: a.Shape, Int: d}
	case []int32:
		ints := make([]int64, len(d))
		for i, x := range d {
			ints[i] = int64(x)
		}
		return eval.CaseArray{Shape: a.Shape, Int: ints}
	}
	return eval.CaseArray{Shape: a.Shape}
}

// sums reads the arrays of the case's .npz files: FILE.KEY.{shape, sum,
// weighted_sum}, sums in float64 over the values in C order, element i with the
// weight i mod 997 + 1, so that a transposed read is noticed.
func (c *referenceCase) sums() (map[string]ort.Array, error) {
	out := map[string]ort.Array{}
	for _, file := range c.Files.Keys() {
		keys, _ := c.Files.At(file)
		f, err := npz.Open(filepath.Join(c.dir, file))
		if err != nil {
			return nil, err
		}
		for _, item := range keys.Items() {
			key, _ := item.Text()
			err = errors.Join(err, arraySums(f, key, strings.TrimSuffix(file, ".npz")+"."+key, out))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func arraySums(f *npz.File, key, name string, out map[string]ort.Array) error {
	a, err := f.Array(key)
	if err != nil {
		return err
	}
	defer a.Close()
	shape := make([]int64, len(a.Shape))
	for i, d := range a.Shape {
		shape[i] = int64(d)
	}
	var sum, weighted float64
	buf := make([]float64, max(a.RowLen(), 1)*16)
	for i := 0; ; {
		n, err := npz.ReadRows(a, buf)
		for _, v := range buf[:n*a.RowLen()] {
			sum += v
			weighted += v * float64(i%997+1)
			i++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("check: %s: %w", name, err)
		}
	}
	out[name+".shape"] = ort.Array{Shape: []int{len(shape)}, Data: shape}
	out[name+".sum"] = ort.Array{Shape: []int{1}, Data: []float64{sum}}
	out[name+".weighted_sum"] = ort.Array{Shape: []int{1}, Data: []float64{weighted}}
	return nil
}
