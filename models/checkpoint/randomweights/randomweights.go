// Package randomweights writes checkpoints with random weights in the layout of
// torch.save: shapes go in, a .pt file of the true size comes out. Benchmarks
// and slow tests run official-size networks on such files, as the official
// weights are not ours to ship. Nothing else imports it.
package randomweights

import (
	"archive/zip"
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"sagbench/sampling/tensor"
)

// Write makes a zip .pt file at path that holds one float32 tensor a key.
// Weights are normal with variance 1/fan-in, biases zero, gains one and
// variances one, so that activations stay in range through a deep network.
func Write(path string, shapes map[string][]int, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	z := zip.NewWriter(w)
	err = errors.Join(write(z, shapes, seed), z.Close(), w.Flush(), f.Close())
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("randomweights: %s: %w", path, err)
	}
	return nil
}

func write(z *zip.Writer, shapes map[string][]int, seed uint64) error {
	keys := slices.Sorted(maps.Keys(shapes))
	entry := func(name string, write func(io.Writer) error) error {
		e, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err != nil {
			return err
		}
		return write(e)
	}
	err := entry("data.pkl", func(w io.Writer) error { _, err := w.Write(pickle(keys, shapes)); return err })
	r := rand.New(rand.NewPCG(seed, 0))
	for i := 0; i < len(keys) && err == nil; i++ {
		err = entry(fmt.Sprintf("data/%d", i), func(w io.Writer) error { return values(w, r, keys[i], shapes[keys[i]]) })
	}
	if err != nil {
		return err
	}
	return entry("version", func(w io.Writer) error { _, err := io.WriteString(w, "3\n"); return err })
}

// values writes the elements of one tensor, 64 Ki at a time.
func values(w io.Writer, r *rand.Rand, key string, shape []int) error {
	scale, constant := 0.0, float32(0)
	switch {
	case len(shape) >= 2:
		scale = 1 / math.Sqrt(float64(tensor.Size(shape[1:])))
	case strings.HasSuffix(key, "weight"), strings.HasSuffix(key, "running_var"), strings.HasSuffix(key, "gamma"):
		constant = 1
	}
	buf := make([]byte, 0, 4<<16)
	for left := tensor.Size(shape); left > 0; left -= len(buf) / 4 {
		buf = buf[:0]
		for range min(left, 1<<16) {
			v := constant
			if scale > 0 {
				v = float32(r.NormFloat64() * scale)
			}
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// pickle is protocol 2 for an OrderedDict of tensors, each
// torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()).
func pickle(keys []string, shapes map[string][]int) []byte {
	b := []byte{0x80, 2} // PROTO 2
	b = append(b, "ccollections\nOrderedDict\n)R("...)
	for i, k := range keys {
		b = text(b, k)
		b = append(b, "ctorch._utils\n_rebuild_tensor_v2\n(("...)
		b = text(b, "storage")
		b = append(b, "ctorch\nFloatStorage\n"...)
		b = text(b, fmt.Sprint(i))
		b = text(b, "cpu")
		b = integer(b, tensor.Size(shapes[k]))
		b = append(b, "tQ"...) // TUPLE, BINPERSID
		b = integer(b, 0)
		b = tuple(b, shapes[k])
		b = tuple(b, strides(shapes[k]))
		b = append(b, 0x89) // NEWFALSE
		b = append(b, "ccollections\nOrderedDict\n)RtR"...)
	}
	return append(b, "u."...) // SETITEMS, STOP
}

func text(b []byte, s string) []byte {
	b = append(b, 'X')
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func integer(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(n))
}

func tuple(b []byte, ns []int) []byte {
	b = append(b, '(')
	for _, n := range ns {
		b = integer(b, n)
	}
	return append(b, 't')
}

func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}
