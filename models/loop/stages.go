package loop

import (
	"context"
	"fmt"
	"math"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// Stages are the graphs between the network calls, each made when it is first needed.
type Stages struct {
	options ort.Options
	mu      sync.Mutex
	open    map[string]*ort.Session
}

// NewStages are stages on the device that the options name. They compute in float32,
// whatever the networks do.
func NewStages(opt ort.Options) *Stages {
	opt.Precision, opt.Content, opt.Unchanged, opt.Timed = "", nil, nil, nil
	return &Stages{options: opt, open: map[string]*ort.Session{}}
}

// Close frees all of them.
func (s *Stages) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.open {
		one.Close()
	}
	clear(s.open)
}

// run runs the stage of this name, which build makes.
func (s *Stages) run(ctx context.Context, name string, build func(*onnx.Module), in map[string]ort.Operand, crossed *ort.Traffic, fetched ...string) (map[string]*ort.Resident, map[string]ort.Array, error) {
	session, err := s.stage(name, build)
	if err != nil {
		return nil, nil, fmt.Errorf("loop: %s: %w", name, err)
	}
	stay, arrays, err := session.RunOn(ctx, in, crossed, fetched...)
	if err != nil {
		return nil, nil, fmt.Errorf("loop: %s: %w", name, err)
	}
	return stay, arrays, nil
}

func (s *Stages) stage(name string, build func(*onnx.Module)) (*ort.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.open[name]; one != nil {
		return one, nil
	}
	m, err := onnx.Build(nil, build)
	if err != nil {
		return nil, err
	}
	one, err := ort.Open(m, s.options)
	if err == nil {
		s.open[name] = one
	}
	return one, err
}

// images is an input of images [N,C,H,W].
func images(m *onnx.Module, name string, shape []int) onnx.Value {
	return m.Input(name, checkpoint.F32, onnx.Batch, shape[0], shape[1], shape[2])
}

// numbers is an input of n numbers, each a value of its own.
func numbers(m *onnx.Module, name string, n int) []onnx.Value {
	all := m.Input(name, checkpoint.F32, n)
	each := make([]onnx.Value, n)
	for i := range each {
		each[i] = m.Slice(all, 0, i, i+1)
	}
	return each
}

// linear is a·x + b·y.
func linear(m *onnx.Module, a, x, b, y onnx.Value) onnx.Value {
	return m.Add(m.Mul(a, x), m.Mul(b, y))
}

// magnitude is Σ v² of each image, which is no finite number where one of its values is
// none, or beyond 10¹⁸.
func magnitude(m *onnx.Module, v onnx.Value) onnx.Value {
	return m.Sum(m.Mul(v, v), axesOf(v)...)
}

// axesOf are all axes of v but the first.
func axesOf(v onnx.Value) (axes []int) {
	for i := 1; i < len(v.Shape); i++ {
		axes = append(axes, i)
	}
	return axes
}

// scaled is the stage y = k·x of an array of any shape.
func scaled(shape []int) func(*onnx.Module) {
	return func(m *onnx.Module) {
		x := m.Input("x", checkpoint.F32, append([]int{onnx.Batch}, shape...)...)
		m.Output("y", m.Mul(x, numbers(m, "k", 1)[0]))
	}
}

// read is the stage that takes the network's output model apart: the prediction
// eps = k₀ x + k₁ F, the learned variance where there is one, and health, the sum of all
// magnitudes so far.
func read(shape []int, outputs int, variance bool, positions int) func(*onnx.Module) {
	return func(m *onnx.Module) {
		x, model := images(m, "x", shape), images(m, "model", []int{outputs, shape[1], shape[2]})
		k, health := numbers(m, "k", 2), m.Input("before", checkpoint.F32, onnx.Batch)
		eps := linear(m, k[0], x, k[1], m.Slice(model, 1, 0, shape[0]))
		m.Output("eps", eps)
		health = m.Add(health, magnitude(m, model))
		if variance {
			m.Output("variance", m.Slice(model, 1, shape[0], outputs))
		}
		if positions > 0 {
			health = m.Add(health, magnitude(m, m.Input("attention", checkpoint.F32, onnx.Batch, positions)))
		}
		m.Output("health", health)
	}
}

// difference is the stage of a guidance.Difference: guided + s (c − u).
func difference(shape []int, d guidance.Difference) func(*onnx.Module) {
	return func(m *onnx.Module) {
		guided, c, u := images(m, "output", shape), images(m, "c", shape), images(m, "u", shape)
		scale := make([]float32, shape[0])
		for i := range scale {
			if d.Channels == 0 || i < d.Channels {
				scale[i] = d.Scale
			}
		}
		m.Output("guided", m.Add(guided, m.Mul(m.Const(scale, 1, shape[0], 1, 1), m.Sub(c, u))))
	}
}

// degrade is the stage of a guidance.Degradation: x̂_t; where the difference is one of ε the
// output fit that the network's at x̂_t is compared with, which else is that at x_t; and
// with a mask moved, 1 for images for which x̂_t is not x_t and else 0.
func degrade(shape []int, d guidance.Degradation) func(*onnx.Module) {
	return func(m *onnx.Module) {
		height, width := shape[1], shape[2]
		x, output := images(m, "x", shape), images(m, "eps", shape)
		k := numbers(m, "k", 8)
		one, zero := m.Scalar(1), m.Scalar(0)
		xStart, eps := linear(m, k[0], x, k[1], output), linear(m, k[2], x, k[3], output)
		var changes []onnx.Value // of each image, how much is changed
		if d.Clip && d.Masked {
			beyond := m.Add(m.Where(m.Greater(xStart, one), one, zero), m.Where(m.Greater(m.Scalar(-1), xStart), one, zero))
			changes = append(changes, m.Sum(beyond, axesOf(beyond)...))
		}
		if d.Clip {
			xStart = m.Clip(xStart, -1, 1)
		}
		blurred := m.MatMul(m.MatMul(m.Const(d.Vertical, height, height), xStart), m.Const(d.Horizontal, width, width))
		degraded := blurred
		if d.Masked {
			rows, columns := d.Grid[0], d.Grid[1]
			attention := m.Input("attention", checkpoint.F32, onnx.Batch, rows*columns)
			above := m.Where(m.Greater(attention, m.Scalar(d.Threshold)), one, zero)
			grid := m.Reshape(above, onnx.Batch, 1, rows, columns)
			mask := m.MatMul(m.MatMul(m.Const(d.Rows, height, rows), grid), m.Const(d.Columns, columns, width))
			degraded = m.Where(m.Greater(mask, m.Scalar(0.5)), blurred, xStart)
			changes = append(changes, m.Sum(above, 1))
		}
		m.Output("xhat", linear(m, k[4], degraded, k[5], eps))
		if d.InEps {
			m.Output("fit", linear(m, k[6], degraded, k[7], eps))
		}
		if d.Masked { // else all of it is blurred
			change := changes[0]
			for _, c := range changes[1:] {
				change = m.Add(change, c)
			}
			m.Output("moved", m.Where(m.Greater(change, zero), one, zero))
		}
	}
}

// away is the stage of what follows: guided + s moved (fit − theirs).
func away(shape []int, d guidance.Degradation) func(*onnx.Module) {
	return func(m *onnx.Module) {
		guided, fit, theirs := images(m, "output", shape), images(m, "fit", shape), images(m, "theirs", shape)
		change := m.Mul(m.Scalar(d.Scale), m.Sub(fit, theirs))
		if d.Masked {
			moved := m.Reshape(m.Input("moved", checkpoint.F32, onnx.Batch), onnx.Batch, 1, 1, 1)
			change = m.Mul(moved, change)
		}
		m.Output("guided", m.Add(guided, change))
	}
}

// update is the stage of a sampling.Update.
func update(shape []int, u sampling.Update, variance bool) func(*onnx.Module) {
	return func(m *onnx.Module) {
		x, guided := images(m, "x", shape), images(m, "guided", shape)
		k := numbers(m, "k", 8)
		xStart := linear(m, k[0], x, k[1], guided)
		if !math.IsInf(float64(u.Limit), 1) {
			xStart = m.Clip(xStart, -u.Limit, u.Limit)
		}
		next := m.Add(m.Mul(k[2], xStart), linear(m, k[3], guided, k[4], x))
		if u.Draws {
			sigma := k[5]
			if u.Learned && variance {
				half := m.Scalar(0.5)
				v := images(m, "variance", shape)
				fraction := m.Mul(m.Add(v, m.Scalar(1)), half)
				sigma = m.Exp(m.Mul(half, linear(m, fraction, k[7], m.Sub(m.Scalar(1), fraction), k[6])))
			}
			next = m.Add(next, m.Mul(sigma, images(m, "z", shape)))
		}
		m.Output("next", next)
		m.Output("health", m.Add(m.Input("before", checkpoint.F32, onnx.Batch), m.Add(magnitude(m, guided), magnitude(m, next))))
	}
}
