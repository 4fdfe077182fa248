package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

func (b *bench) classifierFashion() error {
	e, err := loadExperiment("configs/table2-fashion.yaml", nil)
	if err != nil {
		return err
	}
	m, err := e.rows[1].openNetwork(1, b.options) // of the row under classifier guidance alone
	if err != nil {
		return err
	}
	defer m.Close()
	return b.gradients(m, 1, 8, 64)
}

func (b *bench) classifier128() error {
	const name = "128x128_classifier"
	defer os.Remove(filepath.Join(b.scratch, name+".pt"))
	m, _, err := b.openOfficial(name)
	if err != nil {
		return err
	}
	defer m.Close()
	return b.gradients(m, 1, 8)
}

// gradients times the logits alone, and with the gradient that classifier
// guidance follows, at the given batch sizes.
func (b *bench) gradients(m models.Model, batches ...int) error {
	shape := m.(*models.ClassifierNet).SampleShape()
	b.header("batch", "logits, best", "logits and gradient, best", "ratio")
	for _, n := range batches {
		x, t, y := tensor.New(append([]int{n}, shape...)...), tensor.New(n), make([]int64, n)
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
