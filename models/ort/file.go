package ort

import (
	"fmt"
	"os"
	"strings"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// Inspect lists what the graph of an .onnx file takes and gives. A first axis of
// any length is onnx.Batch; every other such axis has a symbol of its own, as the
// runtime does not tell which are equal. The element type is empty where it is
// none that an Array can hold.
func Inspect(path string) (inputs, outputs []onnx.Info, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("ort: %w", err)
	}
	if m, ok, err := onnx.ReadFile(path); ok || err != nil {
		if err != nil {
			return nil, nil, fmt.Errorf("ort: %w", err)
		}
		return m.Inputs, m.Outputs, nil
	}
	if err := initialize(); err != nil {
		return nil, nil, err
	}
	options, err := Options{}.sessionOptions(&onnx.Model{})
	if err != nil {
		return nil, nil, err
	}
	defer options.Destroy()
	if err := options.SetGraphOptimizationLevel(rt.GraphOptimizationLevelDisableAll); err != nil {
		return nil, nil, fmt.Errorf("ort: %w", err)
	}
	in, out, err := rt.GetInputOutputInfoWithOptions(path, options)
	if err != nil {
		reason := err.Error()
		if _, after, ok := strings.Cut(reason, path+" failed:"); ok {
			reason = after
		}
		return nil, nil, fmt.Errorf("ort: %s: no graph that ONNX Runtime %s can run: %s", path, rt.GetVersion(), reason)
	}
	symbols := onnx.Batch
	infos := func(ports []rt.InputOutputInfo) []onnx.Info {
		var all []onnx.Info
		for _, p := range ports {
			i := onnx.Info{Name: p.Name}
			if p.OrtValueType == rt.ONNXTypeTensor {
				i.DType = fileTypes[p.DataType]
			}
			for axis, d := range p.Dimensions {
				switch {
				case d >= 0:
				case axis == 0:
					d = onnx.Batch
				default:
					symbols--
					d = int64(symbols)
				}
				i.Shape = append(i.Shape, int(d))
			}
			all = append(all, i)
		}
		return all
	}
	return infos(in), infos(out), nil
}

// OpenFile is Open for inputs and outputs of the graph of an .onnx file, all or
// some of those that Inspect lists; axes of any length may be given one. Weights
// beside the file are found there.
func OpenFile(path string, inputs, outputs []onnx.Info, opt Options) (*Session, error) {
	opt.Content = nil // the optimized graph is not kept
	m, ok, err := onnx.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	if ok {
		m.Inputs, m.Outputs = inputs, outputs
		return Open(m, opt)
	}
	s, err := Open(&onnx.Model{Inputs: inputs, Outputs: outputs}, opt)
	if err != nil {
		return nil, err
	}
	s.path = path
	return s, nil
}

var fileTypes = map[rt.TensorElementDataType]checkpoint.DType{
	rt.TensorElementDataTypeFloat:  checkpoint.F32,
	rt.TensorElementDataTypeDouble: checkpoint.F64,
	rt.TensorElementDataTypeInt64:  checkpoint.I64,
	rt.TensorElementDataTypeInt32:  checkpoint.I32,
	rt.TensorElementDataTypeUint8:  checkpoint.U8,
}
