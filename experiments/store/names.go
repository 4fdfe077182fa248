package store

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strings"
)

// NamesSum is a sha256 of the names of a set's images in their order, one a line,
// without the folder that all have in common and without suffixes: the same images as
// PNG in a folder and as JPEG in an archive have the same. It is "" for no names.
func NamesSum(names []string) string {
	if len(names) == 0 {
		return ""
	}
	folder := path.Dir(names[0])
	for _, n := range names {
		for folder != "." && !strings.HasPrefix(n, folder+"/") {
			folder = path.Dir(folder)
		}
	}
	h := sha256.New()
	for _, n := range names {
		if folder != "." {
			n = strings.TrimPrefix(n, folder+"/")
		}
		fmt.Fprintln(h, strings.TrimSuffix(n, path.Ext(n)))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
