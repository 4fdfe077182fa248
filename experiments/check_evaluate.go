package main

import (
	"context"
	"strings"

	"sagbench/eval"
	"sagbench/models/ort"
)

// checkEvaluate computes metrics from recorded features or, where the case
// lists files, the sums of their arrays.
func checkEvaluate(ctx context.Context, c *referenceCase) (map[string]ort.Array, error) {
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

func (c *referenceCase) evaluate(ctx context.Context, in map[string]eval.CaseArray, want []string) (map[string][]float64, error) {
	if !c.Files.IsNull() {
		return eval.NPZOutputs(c.dir, want)
	}
	products, err := ort.NewProducts(c.options.Threads)
	if err != nil {
		return nil, err
	}
	defer products.Close()
	return eval.CaseOutputs(ctx, in, want, products)
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
