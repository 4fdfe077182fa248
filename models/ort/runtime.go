// Package ort runs graphs in ONNX Runtime: an onnx.Model goes in, a Session
// that maps arrays to arrays comes out. It is the only package that knows the
// runtime, and the only one that calls into C.
package ort

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	rt "github.com/yalue/onnxruntime_go"
)

// Version is the release of ONNX Runtime that the Makefile installs and that
// the numbers in docs/ were measured with.
const Version = "1.31.1"

// EnvLibrary names the environment variable that overrides where the shared
// library is looked for.
const EnvLibrary = "SAGBENCH_ONNXRUNTIME"

var initialize = sync.OnceValue(func() error {
	path, err := libraryPath()
	if err != nil {
		return err
	}
	rt.SetSharedLibraryPath(path)
	if err := rt.InitializeEnvironment(rt.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("ort: %s cannot be loaded: %w; install it anew with `make onnxruntime`", path, err)
	}
	return nil
})

// libraryPath is $SAGBENCH_ONNXRUNTIME, or else the library in the user's
// cache folder where `make onnxruntime` puts it; the CUDA build, if it is
// there, is a superset of the CPU one and is preferred.
func libraryPath() (string, error) {
	if p := os.Getenv(EnvLibrary); p != "" {
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("ort: %s names a file that cannot be opened: %w", EnvLibrary, err)
		}
		return p, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("ort: no cache folder to look for ONNX Runtime in: %w; set %s to the path of libonnxruntime.so", err, EnvLibrary)
	}
	var tried []string
	for _, build := range []string{"cuda", "cpu"} {
		p := filepath.Join(cache, "sagbench", "onnxruntime-"+Version+"-"+build, "libonnxruntime.so."+Version)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		tried = append(tried, p)
	}
	return "", fmt.Errorf("ort: ONNX Runtime %s is not installed; run `make onnxruntime` in the repository, or set %s to the path of libonnxruntime.so (looked for %s)",
		Version, EnvLibrary, strings.Join(tried, " and "))
}

// RuntimeVersion loads ONNX Runtime and returns the version it reports.
func RuntimeVersion() (string, error) {
	if err := initialize(); err != nil {
		return "", err
	}
	return rt.GetVersion(), nil
}
