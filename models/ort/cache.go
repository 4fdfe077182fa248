package ort

import (
	"fmt"
	"os"

	rt "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/cpu"

	"sagbench/models/cache"
	"sagbench/models/onnx"
)

// cacheLimit is the size of weights up to which an optimized graph is kept:
// larger models spend their time in the network, not in loading.
const cacheLimit = 256 << 20

// cacheKey is what the optimized form of m is kept under, nil where it is not
// kept: the optimizer's result depends on the graph, the weights, the runtime,
// the processor and the number of threads, and all of them are in the key.
func (o Options) cacheKey(m *onnx.Model) []byte {
	if o.Content == nil || o.device() != "cpu" {
		return nil
	}
	var size int64
	for _, f := range m.Files {
		fi, err := os.Stat(f)
		if err != nil {
			return nil
		}
		size += fi.Size()
	}
	if size > cacheLimit {
		return nil
	}
	content, err := o.Content()
	if err != nil {
		return nil
	}
	key := fmt.Appendf(nil, "%s\x00%s\x00%d\x00%+v%+v\x00", rt.GetVersion(), content, o.Threads, cpu.X86, cpu.ARM64)
	return append(key, m.Proto...)
}

// openCached loads the graph that is kept under a key, or optimizes and keeps it.
// A file that is damaged or cannot be used is made anew. It returns nil where
// nothing can be kept, such as on a full disk: the caller prepares the graph
// without.
func (s *Session) openCached(key []byte) *rt.DynamicAdvancedSession {
	path, damaged := cache.Graphs.Find(key)
	if damaged && s.options.Note != nil {
		s.options.Note("note: an optimized graph in the user's cache folder was damaged; it is made anew")
	}
	if path != "" {
		if session := s.openOptimized(path); session != nil {
			return session
		}
		os.Remove(path)
	}
	var session *rt.DynamicAdvancedSession
	cache.Graphs.Keep(key, func(path string) error {
		o, err := s.sessionOptions()
		if err != nil {
			return err
		}
		defer o.Destroy()
		if err := o.SetOptimizedModelFilePath(path); err != nil {
			return err
		}
		if session, err = s.create(s.model.Proto, o); err != nil {
			return err
		}
		return s.options.unchanged() // the caller refuses the session, and nothing is kept
	})
	return session // also where the file could not be kept in the end
}

// openOptimized loads a graph that was optimized before; nil where that fails.
func (s *Session) openOptimized(path string) *rt.DynamicAdvancedSession {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	o, err := s.sessionOptions()
	if err != nil {
		return nil
	}
	defer o.Destroy()
	if err := o.SetGraphOptimizationLevel(rt.GraphOptimizationLevelDisableAll); err != nil {
		return nil
	}
	session, err := s.create(b, o)
	if err != nil {
		return nil
	}
	return session
}
