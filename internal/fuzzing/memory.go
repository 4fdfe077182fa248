// Package fuzzing holds what the fuzz targets of several packages share.
package fuzzing

import (
	"runtime"
	"testing"
)

// Bounded calls f, which reads an input of size bytes, and fails where it
// allocates more than factor times that and a slack of 1 MiB, garbage included.
func Bounded(t testing.TB, size, factor int, f func()) {
	t.Helper()
	before := allocated()
	f()
	if took, most := allocated()-before, uint64(factor*size+1<<20); took > most {
		t.Errorf("an input of %d bytes allocates %d, more than %d times its size and 1 MiB", size, took, factor)
	}
}

// allocated is the bytes that were ever allocated on the heap, up to now.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
