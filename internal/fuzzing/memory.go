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
	Within(t, size, func() int64 { f(); return int64(factor * size) })
}

// Within calls f, which reads an input of size bytes and returns how many bytes it
// may allocate, and fails where it allocates more than that and a slack of 1 MiB,
// garbage included.
func Within(t testing.TB, size int, f func() (most int64)) {
	t.Helper()
	before := allocated()
	most := f()
	if took := int64(allocated() - before); took > most+1<<20 {
		t.Errorf("an input of %d bytes allocates %d, more than %d and 1 MiB", size, took, most)
	}
}

// allocated is the bytes that were ever allocated on the heap, up to now.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
