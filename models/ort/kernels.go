package ort

import (
	"errors"
	"reflect"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/kernels"
)

// HasKernels tells whether graphs with operators of onnx.KernelsDomain run with
// these options: on the CPU, if it is one that package kernels is for.
func (o Options) HasKernels() bool { return o.device() == "cpu" && kernels.Name() != "" }

// Kernels names what computes these operators on this processor; "" for none.
func Kernels() string { return kernels.Name() }

// addKernels makes those operators known to the session that o will make.
func addKernels(o *rt.SessionOptions) error {
	library, err := libraryPath()
	if err != nil {
		return err
	}
	// The binding has no call for operators of one's own; its SessionOptions
	// hold the C pointer that takes one.
	pointer := reflect.ValueOf(o).Elem().FieldByName("o")
	if pointer.Kind() != reflect.Pointer {
		return errors.New("ort: SessionOptions of this release of onnxruntime_go do not hold a pointer o: package kernels cannot be used with it")
	}
	return kernels.Add(library, pointer.UnsafePointer())
}
