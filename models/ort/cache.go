package ort

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	rt "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/cpu"

	"sagbench/models/onnx"
)

// cacheLimit is the size of weights up to which an optimized graph is kept:
// larger models spend their time in the network, not in loading.
const cacheLimit = 256 << 20

// cachePath is where the optimized form of m is kept, or "" where it is not:
// the optimizer's result depends on the graph, the weights, the runtime, the
// processor and the number of threads, and all of them are in the key.
func (o Options) cachePath(m *onnx.Model) string {
	if o.Content == nil || o.device() != "cpu" {
		return ""
	}
	var size int64
	for _, f := range m.Files {
		fi, err := os.Stat(f)
		if err != nil {
			return ""
		}
		size += fi.Size()
	}
	folder, err := os.UserCacheDir()
	if err != nil || size > cacheLimit {
		return ""
	}
	content, err := o.Content()
	if err != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%d\x00%+v%+v\x00", rt.GetVersion(), content, o.Threads, cpu.X86, cpu.ARM64)
	h.Write(m.Proto)
	return filepath.Join(folder, "sagbench", "graphs", fmt.Sprintf("%x.onnx", h.Sum(nil)))
}

// openCached loads the optimized graph at path, or optimizes and keeps it. A
// file that cannot be read back is made anew. It returns nil where nothing can
// be kept, such as on a full disk: the caller prepares the graph without.
func (s *Session) openCached(path string) *rt.DynamicAdvancedSession {
	if b, err := os.ReadFile(path); err == nil {
		o, err := s.sessionOptions()
		if err != nil {
			return nil
		}
		defer o.Destroy()
		if err := o.SetGraphOptimizationLevel(rt.GraphOptimizationLevelDisableAll); err != nil {
			return nil
		}
		if session, err := s.create(b, o); err == nil {
			return session
		}
		os.Remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil
	}
	scratch, err := os.MkdirTemp(filepath.Dir(path), "new-")
	if err != nil {
		return nil
	}
	defer os.RemoveAll(scratch)
	o, err := s.sessionOptions()
	if err != nil {
		return nil
	}
	defer o.Destroy()
	tmp := filepath.Join(scratch, "graph.onnx")
	if err := o.SetOptimizedModelFilePath(tmp); err != nil {
		return nil
	}
	session, err := s.create(s.model.Proto, o)
	if err != nil {
		return nil
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(path) // the next start makes it anew
	}
	return session
}
