package eval

import (
	"errors"
	"fmt"
	"math"

	"sagbench/eval/npz"
	"sagbench/models/tensor"
)

// maxFeatures bounds the values of an array of features: 2 GB of float32.
const maxFeatures = 1 << 29

// readFeatures reads feats [N,D], the pool features of single images that
// clean-fid keeps as the reference of its KID (cleanfid/fid.py make_custom_stats).
func readFeatures(f *npz.File) (tensor.Tensor, error) {
	a, err := f.Array("feats")
	if err != nil {
		return tensor.Tensor{}, err
	}
	if len(a.Shape) != 2 || a.Shape[0] < 1 || a.Shape[1] < 1 || a.Dtype.Kind != 'f' {
		return tensor.Tensor{}, errors.Join(fmt.Errorf("%s: feats is %s %v, expected features [N,D] as floating point numbers", f.Path(), a.Dtype, a.Shape), a.Close())
	}
	values, err := npz.ReadAll[float32](a, maxFeatures)
	if err := errors.Join(err, a.Close()); err != nil {
		return tensor.Tensor{}, err
	}
	for i, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return tensor.Tensor{}, fmt.Errorf("%s: feats%v is %v, expected a finite number", f.Path(), position(i, a.Shape), v)
		}
	}
	return tensor.Of(values, a.Shape...), nil
}
