//go:build !(linux && amd64)

package kernels

import (
	"errors"
	"unsafe"
)

// Name names the implementation for this processor; "" where there is none.
func Name() string { return "" }

// Check is an error where $SAGBENCH_KERNELS names no implementation.
func Check() error { return nil }

// Add makes the operators known to the session that options will make.
func Add(getAPIBase, options unsafe.Pointer) error {
	return errors.New("kernels: there are none for this processor")
}
