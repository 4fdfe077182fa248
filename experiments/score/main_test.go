package score

import (
	"os"
	"testing"

	"sagbench/internal/tiny"
)

func TestMain(m *testing.M) { os.Exit(tiny.Main(m)) }
