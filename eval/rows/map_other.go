//go:build !unix

package rows

import (
	"errors"
	"os"
)

// mappable: elsewhere rows stay in memory, however many they are.
const mappable = false

func mapFile(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }
func unmap([]byte) error                    { return nil }
func forgetPages([]byte)                    {}
