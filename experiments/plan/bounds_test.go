package plan

import (
	"testing"

	"sagbench/configs"
)

// Every number of the vocabulary has a smallest and a largest value, and its default
// lies between them.
func TestEveryNumberIsBounded(t *testing.T) {
	for _, b := range blocks() {
		if err := configs.CheckBounds(b.structs...); err != nil {
			t.Errorf("%s: %v", b.title, err)
		}
	}
}
