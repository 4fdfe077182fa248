package run

import (
	"fmt"

	"sagbench/experiments/plan"
	"sagbench/experiments/score"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// loopKey stands in place of a network's key for the graphs between its calls, of the row
// that is being drawn.
const loopKey = "loop"

// runtimeOf is how a row's network with the key runs: it takes note of the graphs that
// are prepared for another device than the CPU.
func (s *session) runtimeOf(key string) ort.Options {
	o := s.runtime()
	o.Placed = func(p ort.Placement) {
		if s.placements[key] == nil {
			s.placements[key] = map[string]store.Placement{}
		}
		s.placements[key][p.Graph] = score.PlacementOf(p)
		s.noteOnce(score.PlacementOf(p).String())
	}
	o.Timed = func(t ort.Times) { s.Progress.Note(fmt.Sprintf("note: %s: %s", o.Device, t)) }
	return o
}

// recordDevices writes down on which devices the row's images are drawn, the before
// ones that were there already among them. Where the CPU draws all there is nothing to
// write.
func (s *session) recordDevices(r *plan.Run, before int) error {
	known, err := store.ReadPlacements(r.Folder)
	if err != nil {
		return err
	}
	keys, err := networkKeys(r.Row, r.Contents)
	if err != nil {
		return err
	}
	var now []store.Placement
	for _, key := range append(keys, loopKey) {
		for _, p := range s.placements[key] {
			p.Loop = s.network.way
			now = append(now, p)
		}
	}
	if s.network.way != "" {
		s.noteOnce(fmt.Sprintf("%s: %s", r.Title(), s.network.way))
	}
	switch {
	case len(now) == 0 && len(known) == 0:
		return nil
	case len(now) == 0 || len(known) == 0 && before > 0:
		now = append(now, store.Placement{Device: "cpu"})
	}
	return store.AddPlacements(r.Folder, now)
}

// noteOnce shows a note, unless it was shown before.
func (s *session) noteOnce(text string) {
	if !s.said[text] {
		s.said[text] = true
		s.Progress.Note("note: " + text)
	}
}
