//go:build linux && amd64

package kernels

// #cgo CFLAGS: -O3 -Wno-psabi
// #cgo LDFLAGS: -lm
// #include <stdlib.h>
// #include "operators.h"
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

// Name names the implementation for this processor, avx512 or avx2; "" where
// there is none. $SAGBENCH_KERNELS allows for the one that it names alone, and
// for none if it is "none".
func Name() string { return C.GoString(C.operators_name()) }

// Check is an error where $SAGBENCH_KERNELS names no implementation: images differ
// in the last bits by it, so a misspelt name must not pass for "none".
func Check() error {
	switch name := os.Getenv("SAGBENCH_KERNELS"); name {
	case "", "none", "avx2", "avx512":
		return nil
	default:
		return fmt.Errorf("$SAGBENCH_KERNELS is %q, expected avx512, avx2 or none; unset it for what suits this processor best", name)
	}
}

// Add makes the operators known to the session that options, an
// *OrtSessionOptions, will make. getAPIBase is the runtime's OrtGetApiBase.
func Add(getAPIBase, options unsafe.Pointer) error {
	message := C.operators_add(getAPIBase, options)
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return fmt.Errorf("kernels: ONNX Runtime takes no operators: %s", C.GoString(message))
}
