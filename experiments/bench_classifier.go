package main

import (
	"fmt"

	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// classifier times the logits alone, and with the gradient that classifier
// guidance follows.
func (b *bench) classifier() error {
	e, err := loadExperiment("configs/table2-fashion.yaml", nil)
	if err != nil {
		return err
	}
	r := e.rows[1] // under classifier guidance alone
	m, err := r.openNetwork(1, b.options)
	if err != nil {
		return err
	}
	defer m.Close()
	b.header("batch", "logits, best", "logits and gradient, best", "ratio")
	for _, n := range []int{1, 8, 64} {
		x, t, y := tensor.New(n, 3, r.imageSide(), r.imageSide()), tensor.New(n), make([]int64, n)
		if err := (sampling.Keyed{Images: make([]int, n)}).Fill(-1, x); err != nil {
			return err
		}
		for i := range t.Data {
			t.Data[i] = 500
		}
		in := map[string]ort.Array{"x": ort.Floats(x), "t": ort.Floats(t)}
		call := func() error {
			_, err := m.Forward(b.ctx, in)
			return err
		}
		logits, _, err := measure(call)
		if err != nil {
			return err
		}
		in["y"] = ort.Array{Shape: []int{n}, Data: y}
		gradient, _, err := measure(call)
		if err != nil {
			return err
		}
		b.row(n, ms(logits), ms(gradient), fmt.Sprintf("%.1f", gradient.Seconds()/logits.Seconds()))
	}
	return nil
}
