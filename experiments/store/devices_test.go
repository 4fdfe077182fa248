package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// What several add to a devices.json at once is all there.
func TestPlacementsAtOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	const workers, each = 8, 20
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				if err := AddPlacements(folder, []Placement{{Graph: fmt.Sprintf("%02d%02d", w, i), Device: fmt.Sprintf("cuda:%d", w)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	there, err := ReadPlacements(folder)
	if err != nil || len(there) != workers*each {
		t.Errorf("%d placements, expected %d: %v", len(there), workers*each, err)
	}
}
