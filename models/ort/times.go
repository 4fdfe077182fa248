package ort

// #include <stdlib.h>
// #include "runtime_api.h"
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	rt "github.com/yalue/onnxruntime_go"
)

// Times are how long the nodes of a graph took in one call, by the clock of the host: of a
// provider that works on its own until it is waited for, what its nodes took to begin.
type Times struct {
	Nodes int // of the graph
	Call  time.Duration
	By    map[string]time.Duration // provider, as the runtime calls it
}

// String is "a call of 810 nodes took 120ms, of which WebGpuExecutionProvider 95ms and
// CPUExecutionProvider 3ms".
func (t Times) String() string {
	var each []string
	for _, ep := range slices.SortedFunc(maps.Keys(t.By), func(a, b string) int { return int(t.By[b] - t.By[a]) }) {
		each = append(each, fmt.Sprintf("%s %v", ep, rounded(t.By[ep])))
	}
	return fmt.Sprintf("a call of %d nodes took %v, of which by the host's clock %s", t.Nodes, rounded(t.Call), strings.Join(each, ", "))
}

func rounded(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// timed is interruptible, with the times of the second call, behind which nothing is
// prepared any more. That they cannot be had is no error.
func (s *Session) timed(ctx context.Context, f func(*rt.RunOptions) error) error {
	if s.options.Timed == nil || s.options.device() == "cpu" || s.calls.Add(1) != 2 {
		return interruptible(ctx, f)
	}
	folder, err := os.MkdirTemp("", "sagbench-profile-")
	if err != nil {
		return interruptible(ctx, f)
	}
	defer os.RemoveAll(folder)
	began, took := time.Now(), time.Duration(0)
	err = interruptible(ctx, func(opts *rt.RunOptions) error {
		if o, err := pointer(opts, "o"); err == nil && openAPI() == nil {
			prefix := C.CString(filepath.Join(folder, "call"))
			defer C.free(unsafe.Pointer(prefix))
			if err := failure(C.api_profile(o, prefix)); err != nil {
				return f(opts)
			}
		}
		began = time.Now()
		err := f(opts)
		took = time.Since(began)
		return err
	})
	if by := profiled(folder); err == nil && len(by) > 0 {
		s.options.Timed(Times{len(s.model.Nodes), took, by})
	}
	return err
}

// profiled are the times by provider in the profile in a folder; none where there is none.
func profiled(folder string) map[string]time.Duration {
	files, _ := filepath.Glob(filepath.Join(folder, "*"))
	by := map[string]time.Duration{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		var events []struct {
			Kind string          `json:"cat"`
			Name string          `json:"name"`
			Took int64           `json:"dur"` // µs
			Args json.RawMessage `json:"args"`
		}
		if err != nil || json.Unmarshal(data, &events) != nil {
			continue
		}
		for _, e := range events {
			var args struct {
				Provider string `json:"provider"`
			}
			if e.Kind == "Node" && strings.HasSuffix(e.Name, "_kernel_time") && json.Unmarshal(e.Args, &args) == nil && args.Provider != "" {
				by[args.Provider] += time.Duration(e.Took) * time.Microsecond
			}
		}
	}
	return by
}
