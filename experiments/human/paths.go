package human

import (
	"path/filepath"
	"slices"
	"strings"
)

// ShortPaths are the paths without the folders that it does not take to tell them
// apart: a/samples.npz and b/samples.npz beside other.npz.
func ShortPaths(paths []string) []string {
	parts, short := make([][]string, len(paths)), make([]string, len(paths))
	for i, p := range paths {
		parts[i] = strings.Split(filepath.Clean(p), string(filepath.Separator))
		short[i] = filepath.Base(p)
	}
	for more := true; more; {
		more = false
		for i := range paths {
			var alike []int
			for j := range paths {
				if short[j] == short[i] {
					alike = append(alike, j)
				}
			}
			if len(alike) < 2 {
				continue
			}
			for _, j := range alike {
				n := strings.Count(short[j], string(filepath.Separator)) + 2
				if n > len(parts[j]) || slices.ContainsFunc(alike, func(k int) bool { return k != j && filepath.Clean(paths[k]) == filepath.Clean(paths[j]) }) {
					continue
				}
				short[j], more = strings.Join(parts[j][len(parts[j])-n:], string(filepath.Separator)), true
			}
		}
	}
	return short
}
