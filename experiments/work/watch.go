package work

import (
	"path/filepath"
	"strings"
	"time"
)

// Watch looks at the workers on a folder from outside: who they are, and of which rows,
// by their keys, each has claimed units.
func Watch(on FS, folder string) (others []Other, claimed map[string][]string, err error) {
	w := &Worker{FS: on, folder: filepath.Join(folder, Folder)}
	if others, err = workers(on, w.folder, clockOf(on, w.folder)); err != nil {
		return nil, nil, err
	}
	names, err := w.claims()
	claimed = map[string][]string{}
	for _, n := range names {
		if i := strings.LastIndexByte(n, '-'); err == nil && i > 0 && n[i:] != "-finish" {
			var owner string
			owner, _, err = w.owner(n)
			claimed[owner] = append(claimed[owner], n[:i])
		}
	}
	return others, claimed, err
}

// clockOf is the time of a folder's server, which a new file in it has; where none can
// be made, that of this machine.
func clockOf(on FS, folder string) time.Time {
	path := filepath.Join(folder, ".now."+newID())
	w := &Worker{FS: on}
	if w.write(path, nil) != nil {
		return time.Now()
	}
	info, err := on.Look(path)
	on.Remove(path)
	if err != nil {
		return time.Now()
	}
	return info.Time
}
