package store

import (
	"fmt"

	"sagbench/eval/npz"
)

// ReadLabels are the classes of [0, samples), all of which lie in one file; nil where
// they have none. Of a file that is no run's, labels that are not int64 [N] and from 0
// up are an error.
func (s *Images) ReadLabels(samples int) ([]int64, error) {
	whole, ok := s.merged(samples)
	if !ok {
		return nil, fmt.Errorf("%s: there is no file with all of %d images", s.Folder, samples)
	}
	f, err := npz.Open(whole.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !f.Has("arr_1") {
		return nil, nil
	}
	a, err := f.Array("arr_1")
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if a.Dtype != npz.Int64 || len(a.Shape) != 1 || a.Shape[0] != whole.Len() {
		return nil, fmt.Errorf("%s: arr_1 is %s %v, expected labels, int64 [%d]", whole.path, a.Dtype, a.Shape, whole.Len())
	}
	labels, err := npz.ReadAll[int64](a, whole.Len())
	if err != nil {
		return nil, err
	}
	for i, l := range labels {
		if l < 0 || l > maxLabel {
			return nil, fmt.Errorf("%s: image %d has label %d in arr_1, expected 0 to %d", whole.path, i, l, maxLabel)
		}
	}
	return labels[:samples], nil
}

// maxLabel bounds the memory of a count by class.
const maxLabel = 10_000_000
