package checkpoint

import "fmt"

// A budget bounds the memory that reading one checkpoint may take: 64 times the
// file's size, but at most 256 MiB, which the tensors of a real file need a
// fraction of, and four times its size and 16 MiB on top, for compressed entries
// and strided views. These and the objects of a pickle draw on it before they
// are allocated.
type budget struct{ size, most, left int64 }

func newBudget(fileSize int64) *budget {
	most := min(64*fileSize, 256<<20) + 4*fileSize + 16<<20
	return &budget{size: fileSize, most: most, left: most}
}

// take reserves n bytes for what.
func (b *budget) take(n int64, what string) error {
	if n < 0 || n > b.left {
		return fmt.Errorf("%s needs %d bytes of memory; %d is the limit for a file of %d bytes, %d are left: "+
			"the file is broken or malicious, or must be saved again uncompressed", what, n, b.most, b.size, b.left)
	}
	b.left -= n
	return nil
}
