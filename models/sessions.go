package models

import (
	"context"
	"slices"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// sessionLimit bounds the weights that the sessions of one network hold, in
// elements: each keeps a copy that is laid out for the processor. A small
// network keeps up to sixteen sessions, a big one only the last.
const sessionLimit = 256 << 20

// Sessions run one network in several graphs, which keys tell apart: the size of
// the input, say. A graph for one size is faster than one for all: the runtime
// plans its memory and picks layouts by the shapes. Each is made when it is first
// asked for; the ones that were used last are kept.
type Sessions[K comparable] struct {
	open func(K) (*ort.Session, error)
	most int // sessions that are kept

	mu   sync.Mutex
	kept []*keyedSession[K] // the last used at the end
}

type keyedSession[K comparable] struct {
	*ort.Session
	key   K
	users int // runs under way
}

// NewSessions are the sessions of a network with these weights, made by open.
func NewSessions[K comparable](weights checkpoint.StateDict, open func(K) (*ort.Session, error)) *Sessions[K] {
	parameters := 0
	for _, t := range weights {
		parameters += tensor.Size(t.Shape)
	}
	return &Sessions[K]{open: open, most: max(1, min(16, sessionLimit/max(1, parameters)))}
}

// Run computes the outputs of the graph with this key.
func (n *Sessions[K]) Run(ctx context.Context, key K, in map[string]ort.Array) (map[string]ort.Array, error) {
	s, err := n.acquire(key)
	if err != nil {
		return nil, err
	}
	defer n.release(s)
	return s.Run(ctx, in)
}

// RunOn is Session.RunOn of the graph with this key.
func (n *Sessions[K]) RunOn(ctx context.Context, key K, in map[string]ort.Operand, crossed *ort.Traffic, fetched ...string) (map[string]*ort.Resident, map[string]ort.Array, error) {
	s, err := n.acquire(key)
	if err != nil {
		return nil, nil, err
	}
	defer n.release(s)
	return s.RunOn(ctx, in, crossed, fetched...)
}

// Widened is that of the graph with this key; zeros where it cannot be made.
func (n *Sessions[K]) Widened(key K) ort.Widened {
	s, err := n.acquire(key)
	if err != nil {
		return ort.Widened{}
	}
	defer n.release(s)
	return s.Session.Widened()
}

// Prepare makes the graph with this key.
func (n *Sessions[K]) Prepare(key K) error {
	s, err := n.acquire(key)
	if err == nil {
		n.release(s)
	}
	return err
}

func (n *Sessions[K]) acquire(key K) (*keyedSession[K], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.IndexFunc(n.kept, func(s *keyedSession[K]) bool { return s.key == key }); i >= 0 {
		s := n.kept[i]
		s.users++
		n.kept = append(slices.Delete(n.kept, i, i+1), s)
		return s, nil
	}
	n.evict(n.most - 1)
	session, err := n.open(key)
	if err != nil {
		return nil, err
	}
	s := &keyedSession[K]{session, key, 1}
	n.kept = append(n.kept, s)
	return s, nil
}

// evict forgets the longest unused sessions until no more than keep are left;
// one that runs is closed when its last user is done.
func (n *Sessions[K]) evict(keep int) {
	for len(n.kept) > keep {
		s := n.kept[0]
		n.kept = slices.Delete(n.kept, 0, 1)
		if s.users == 0 {
			s.Close()
		}
	}
}

func (n *Sessions[K]) release(s *keyedSession[K]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.users--; s.users == 0 && !slices.Contains(n.kept, s) {
		s.Close()
	}
}

// Rest gives the memory of the graphs back until the next Run. No Run may be under
// way.
func (n *Sessions[K]) Rest() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.kept {
		s.Rest()
	}
}

// Close frees all sessions.
func (n *Sessions[K]) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.evict(0)
}
