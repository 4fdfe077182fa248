package eval

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval/npz"
)

// NPZOutputs computes the arrays out.FILE.KEY.{shape,sum,weighted_sum} of a
// reference case of .npz files in a folder: shape, sum, and sum with element i
// weighted by i mod 997 + 1, in float64 over the values in C order. Every name
// of want is computed or is an error.
func NPZOutputs(dir string, want []string) (map[string][]float64, error) {
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
		sums, err := sumArray(filepath.Join(dir, parts[0]+".npz"), parts[1])
		if err != nil {
			faults = append(faults, fmt.Errorf("eval: %s: %w", name, err))
			continue
		}
		prefix := "out." + parts[0] + "." + parts[1] + "."
		out[prefix+"shape"], out[prefix+"sum"], out[prefix+"weighted_sum"] = sums.shape, sums.sum, sums.weighted
	}
	return out, errors.Join(faults...)
}

type arraySums struct{ shape, sum, weighted []float64 }

func sumArray(path, key string) (s arraySums, err error) {
	f, err := npz.Open(path)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := f.Array(key)
	if err != nil {
		return s, err
	}
	for _, n := range a.Shape {
		s.shape = append(s.shape, float64(n))
	}
	s.sum, s.weighted = make([]float64, 1), make([]float64, 1)
	row := a.RowLen()
	batch := make([]float64, min(a.Rows(), max(1, (1<<18)/max(1, row)))*row)
	at := 0
	for {
		n, err := npz.ReadRows(a, batch)
		if err == io.EOF {
			return s, a.Close()
		}
		if err != nil {
			return s, errors.Join(err, a.Close())
		}
		for _, v := range batch[:n*row] {
			s.sum[0] += v
			s.weighted[0] += v * float64(at%997+1)
			at++
		}
	}
}
