//go:build linux && amd64

package kernels

// #cgo CFLAGS: -O3 -Wno-psabi
// #cgo LDFLAGS: -ldl -lm
// #include <dlfcn.h>
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
// *OrtSessionOptions, will make. library is the path of ONNX Runtime, which is
// loaded already.
func Add(library string, options unsafe.Pointer) error {
	path, symbol := C.CString(library), C.CString("OrtGetApiBase")
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(symbol))
	handle := C.dlopen(path, C.RTLD_NOW|C.RTLD_NOLOAD)
	if handle == nil {
		return fmt.Errorf("kernels: %s is not loaded", library)
	}
	defer C.dlclose(handle)
	base := C.dlsym(handle, symbol)
	if base == nil {
		return fmt.Errorf("kernels: %s has no OrtGetApiBase: expected the shared library of ONNX Runtime", library)
	}
	message := C.operators_add(base, options)
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return fmt.Errorf("kernels: %s takes no operators: %s", library, C.GoString(message))
}
