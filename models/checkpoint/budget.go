package checkpoint

import "fmt"

// A budget bounds the memory that reading one checkpoint may take: four times
// the file's size and 256 MiB on top, which is 30 times what a real file of a
// few thousand tensors needs. Compressed entries, strided views and the
// objects of a pickle all draw on it, before they are allocated.
type budget struct{ size, left int64 }

func newBudget(fileSize int64) *budget {
	return &budget{size: fileSize, left: 256<<20 + 4*fileSize}
}

// take reserves n bytes for what.
func (b *budget) take(n int64, what string) error {
	if n < 0 || n > b.left {
		return fmt.Errorf("%s needs %d bytes of memory; 256 MiB + 4× the file's %d bytes is the limit, %d are left: "+
			"the file is broken or malicious, or must be saved again uncompressed", what, n, b.size, b.left)
	}
	b.left -= n
	return nil
}
