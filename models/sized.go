package models

import (
	"context"
	"fmt"
	"sync"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/models/tensor"
)

// sessionLimit bounds the weights that the sessions of one network hold, in
// elements: each keeps a copy that is laid out for the processor. A small
// network keeps a session a size, a big one the last alone.
const sessionLimit = 256 << 20

// A sizedNet makes the graph of a network for every input size that comes. A
// graph for one size is faster than one for all: the runtime plans its memory
// and picks layouts by the shapes.
type sizedNet[K comparable] struct {
	path    string // for messages
	tensors checkpoint.StateDict
	opt     ort.Options
	build   func(*onnx.Module, K) error

	mu       sync.Mutex
	sessions map[K]*sizedSession
	recent   []K // the last used at the end
}

type sizedSession struct {
	*ort.Session
	users   int
	evicted bool
}

// Run computes the outputs of the graph for one size.
func (n *sizedNet[K]) Run(ctx context.Context, size K, in map[string]ort.Array) (map[string]ort.Array, error) {
	s, err := n.acquire(size)
	if err != nil {
		return nil, err
	}
	defer n.release(s)
	return s.Run(ctx, in)
}

func (n *sizedNet[K]) acquire(size K) (*sizedSession, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok := n.sessions[size]; ok {
		s.users++
		n.touch(size)
		return s, nil
	}
	n.evict(n.capacity() - 1)
	var buildErr error
	m, err := onnx.Build(n.tensors, func(m *onnx.Module) { buildErr = n.build(m, size) })
	if err == nil {
		err = buildErr
	}
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", n.path, err)
	}
	session, err := ort.Open(m, n.opt)
	if err != nil {
		return nil, err
	}
	s := &sizedSession{Session: session, users: 1}
	if n.sessions == nil {
		n.sessions = map[K]*sizedSession{}
	}
	n.sessions[size] = s
	n.touch(size)
	return s, nil
}

// capacity is how many sessions are kept.
func (n *sizedNet[K]) capacity() int {
	parameters := 0
	for _, t := range n.tensors {
		parameters += tensor.Size(t.Shape)
	}
	return max(1, min(16, sessionLimit/max(1, parameters)))
}

func (n *sizedNet[K]) touch(size K) {
	for i, k := range n.recent {
		if k == size {
			n.recent = append(n.recent[:i], n.recent[i+1:]...)
			break
		}
	}
	n.recent = append(n.recent, size)
}

// evict forgets the longest unused sessions until no more than keep are left;
// one that runs is closed when its last user is done.
func (n *sizedNet[K]) evict(keep int) {
	for len(n.recent) > keep {
		s := n.sessions[n.recent[0]]
		delete(n.sessions, n.recent[0])
		n.recent = n.recent[1:]
		s.evicted = true
		if s.users == 0 {
			s.Close()
		}
	}
}

func (n *sizedNet[K]) release(s *sizedSession) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.users--; s.users == 0 && s.evicted {
		s.Close()
	}
}

// Close frees all sessions.
func (n *sizedNet[K]) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.evict(0)
}
