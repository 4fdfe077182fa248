package store

import (
	"fmt"
	"os"
	"slices"

	"sagbench/eval/npz"
	"sagbench/sampling/tensor"
)

// TraceFile keeps, beside metrics.json, what self-attention guidance did to a run's
// first images at a few steps.
const TraceFile = "trace.npz"

var traceArrays = []string{"key", "steps", "times", "x_start", "degraded", "guided", "mask", "attention"}

// A Trace is the content of a TraceFile. Its arrays are key, a hash of all that it
// depends on; steps and times [S]; x_start, degraded and guided [S,N,H,W,3] uint8;
// mask [S,N,h,w] uint8, of the size of the network's input; attention [S,N,P] float32,
// where the mask was made of a layer's map. Without steps, as where guidance was off at
// all of those that were asked for, there is key alone.
type Trace struct {
	Key           string
	Images        int // N
	Height, Width int // H and W
	Steps         []TraceStep
}

// A TraceStep is one step of the first images.
type TraceStep struct {
	Index     int           // of the respaced step; 0 is the last one
	Time      float64       // that the network was told
	XStart    []uint8       // x̂0 without guidance, [N,H,W,3]
	Degraded  []uint8       // x̂0, blurred where the mask is
	Guided    []uint8       // x̂0 with all guidances
	Mask      tensor.Tensor // [N,1,h,w], 1 where it is blurred
	Attention tensor.Tensor // [N,P], the attention mass of each position; zero where no layer is looked at
}

// Write puts the trace at path, whole or not at all.
func (t *Trace) Write(path string) error {
	file, err := npz.Create(path)
	if err != nil {
		return err
	}
	defer file.Abort()
	w := &arrayWriter{Writer: file}
	s, n := len(t.Steps), t.Images
	var steps []int64
	var times, attention []float32
	var xStart, degraded, guided, mask []uint8
	for _, one := range t.Steps {
		steps, times = append(steps, int64(one.Index)), append(times, float32(one.Time))
		xStart, degraded, guided = append(xStart, one.XStart...), append(degraded, one.Degraded...), append(guided, one.Guided...)
		for _, m := range one.Mask.Data {
			mask = append(mask, uint8(m))
		}
		attention = append(attention, one.Attention.Data...)
	}
	write(w, "key", []byte(t.Key), len(t.Key))
	if s == 0 {
		if w.err != nil {
			return w.err
		}
		return file.Commit()
	}
	write(w, "steps", steps, s)
	write(w, "times", times, s)
	write(w, "x_start", xStart, s, n, t.Height, t.Width, 3)
	write(w, "degraded", degraded, s, n, t.Height, t.Width, 3)
	write(w, "guided", guided, s, n, t.Height, t.Width, 3)
	write(w, "mask", mask, append([]int{s, n}, t.Steps[0].Mask.Shape[2:]...)...)
	if len(attention) > 0 {
		write(w, "attention", attention, s, n, len(attention)/s/n)
	}
	if w.err != nil {
		return w.err
	}
	return file.Commit()
}

// ReadTrace reads what Write wrote, every byte, so that checksums are compared. Arrays
// whose sizes do not belong together are errors.
func ReadTrace(path string) (*Trace, error) {
	file, err := npz.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r := &arrayReader{File: file, size: info.Size()}
	for _, name := range file.Names() { // checksums of a zip do not cover names
		r.failed = r.failed || !slices.Contains(traceArrays, name)
	}
	key := read[uint8](r, "key")
	if !r.failed && len(file.Names()) == 1 {
		return &Trace{Key: string(key)}, nil
	}
	steps, times := read[int64](r, "steps"), read[float32](r, "times")
	xStart, shape := readShaped[uint8](r, "x_start", 5)
	degraded, shape2 := readShaped[uint8](r, "degraded", 5)
	guided, shape3 := readShaped[uint8](r, "guided", 5)
	mask, maskShape := readShaped[uint8](r, "mask", 4)
	var attention []float32
	attentionShape := slices.Clone(maskShape)
	if file.Has("attention") {
		attention, attentionShape = readShaped[float32](r, "attention", 3)
	}
	if r.failed || !slices.Equal(shape, shape2) || !slices.Equal(shape, shape3) || shape[4] != 3 || !slices.Equal(maskShape[:2], shape[:2]) ||
		!slices.Equal(attentionShape[:2], shape[:2]) || len(steps) != shape[0] || len(times) != shape[0] || len(xStart) == 0 || len(mask) == 0 {
		return nil, fmt.Errorf("%s: is damaged, or no trace of this program; run the experiment again, which makes it anew", path)
	}
	t := &Trace{Key: string(key), Images: shape[1], Height: shape[2], Width: shape[3]}
	for k := range steps {
		one := TraceStep{Index: int(steps[k]), Time: float64(times[k]), XStart: part(xStart, k, shape[0]), Degraded: part(degraded, k, shape[0]), Guided: part(guided, k, shape[0])}
		one.Mask = tensor.New(t.Images, 1, maskShape[2], maskShape[3])
		for i, m := range part(mask, k, shape[0]) {
			one.Mask.Data[i] = float32(m)
		}
		if len(attention) > 0 {
			one.Attention = tensor.Tensor{Shape: attentionShape[1:], Data: part(attention, k, shape[0])}
		}
		t.Steps = append(t.Steps, one)
	}
	return t, nil
}

// part is part k of n equal ones.
func part[T any](values []T, k, n int) []T { return values[k*(len(values)/n):][:len(values)/n] }

// readShaped is read with the array's shape, which must have so many dimensions.
func readShaped[T npz.Number](r *arrayReader, name string, dims int) ([]T, []int) {
	a, err := r.Array(name)
	if err != nil {
		r.failed = true
		return nil, make([]int, dims)
	}
	defer a.Close()
	if len(a.Shape) != dims {
		r.failed = true
		return nil, make([]int, dims)
	}
	return read[T](r, name), a.Shape
}
