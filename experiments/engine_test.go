package main

import (
	"testing"

	"sagbench/experiments/human"
)

func TestCommandLine(t *testing.T) {
	got := human.CommandLine([]string{"run", "a.yaml", "sweep.guidance.sag.scale=[0, 1]", "it's"})
	if want := `sagbench run a.yaml 'sweep.guidance.sag.scale=[0, 1]' 'it'\''s'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
