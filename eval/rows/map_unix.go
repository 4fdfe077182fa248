//go:build unix

package rows

import (
	"os"

	"golang.org/x/sys/unix"
)

const mappable = true

func mapFile(f *os.File, n int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
}

func unmap(b []byte) error { return unix.Munmap(b) }

// forgetPages takes the pages of a file from the process; they stay in the system's
// cache while there is room. That it fails costs memory alone.
func forgetPages(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }
