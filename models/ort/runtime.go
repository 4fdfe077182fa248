// Package ort runs graphs in ONNX Runtime: an onnx.Model goes in, a Session
// that maps arrays to arrays comes out. It is the only package that knows the
// runtime, and the only one that calls into C.
package ort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/cache"
)

// Version is the release of ONNX Runtime that the Makefile installs and that
// the numbers in docs/ were measured with.
const Version = "1.31.1"

// EnvLibrary names the environment variable that overrides where the shared
// library is looked for.
const EnvLibrary = "SAGBENCH_ONNXRUNTIME"

// envTelemetry, set to 1, keeps ONNX Runtime's official builds from writing
// a device id and events below the cache folder and from sending them to their
// maker. They look at it while they are loaded.
const envTelemetry = "ORT_DISABLE_TELEMETRY"

// libraries are the sha256 of the files in the pinned wheels (install.sh), by build,
// processor and name.
var libraries = map[string]string{
	"cpu amd64 libonnxruntime.so." + Version:        "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
	"cpu arm64 libonnxruntime.so." + Version:        "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
	"cuda amd64 libonnxruntime.so." + Version:       "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
	"cuda amd64 libonnxruntime_providers_shared.so": "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
	"cuda amd64 libonnxruntime_providers_cuda.so":   "f62fddac1a32c2893ba9268058fa91e38d14d5ce5609c6e31e7e8b7d61f97e26",
}

// verifyLibrary reports that a file of the installed runtime is not what was
// installed: a flipped byte in it may be another number. A library that the user
// names is theirs to know.
func verifyLibrary(path string) error {
	folder := filepath.Dir(path)
	build := strings.TrimPrefix(filepath.Base(folder), "onnxruntime-"+Version+"-")
	want := libraries[build+" "+runtime.GOARCH+" "+filepath.Base(path)]
	if os.Getenv(EnvLibrary) != "" || want == "" {
		return nil
	}
	sum, err := cache.Sum(path)
	if err != nil {
		return fmt.Errorf("ort: %w", err)
	}
	if sum != want {
		return fmt.Errorf("ort: %s is damaged: its sha256 is %s, expected %s; remove the folder %s and run `make onnxruntime`", path, sum, want, folder)
	}
	return nil
}

// verifyCUDA is verifyLibrary for what the runtime loads when a GPU is asked for.
var verifyCUDA = sync.OnceValue(func() error {
	library, err := LibraryPath()
	if err != nil {
		return err
	}
	folder := filepath.Dir(library)
	return errors.Join(verifyLibrary(filepath.Join(folder, "libonnxruntime_providers_shared.so")),
		verifyLibrary(filepath.Join(folder, "libonnxruntime_providers_cuda.so")))
})

var initialize = sync.OnceValue(func() error {
	path, err := LibraryPath()
	if err == nil {
		err = verifyLibrary(path)
	}
	if err != nil {
		return err
	}
	if _, set := os.LookupEnv(envTelemetry); !set {
		os.Setenv(envTelemetry, "1") // in C's environment too, as the program uses cgo
	}
	rt.SetSharedLibraryPath(path)
	if err := rt.InitializeEnvironment(rt.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("ort: %s cannot be loaded: %w; install it anew with `make onnxruntime`", path, err)
	}
	return nil
})

// LibraryPath is $SAGBENCH_ONNXRUNTIME, or else the library in the user's
// cache folder where `make onnxruntime` puts it, or in ../lib/sagbench of the
// program's folder, as in a container; the CUDA build, if it is
// there, is a superset of the CPU one and is preferred.
func LibraryPath() (string, error) {
	if p := os.Getenv(EnvLibrary); p != "" {
		info, err := os.Stat(p)
		if err == nil && !info.Mode().IsRegular() { // loading would wait on a pipe
			err = fmt.Errorf("%s is no regular file", p)
		}
		if err != nil {
			return "", fmt.Errorf("ort: %s names a file that cannot be opened: %w", EnvLibrary, err)
		}
		return p, nil
	}
	var roots []string
	if root, err := cache.Root(); err == nil { // who has no HOME has no cache
		roots = append(roots, root)
	}
	if program, err := os.Executable(); err == nil {
		roots = append(roots, filepath.Join(filepath.Dir(program), "..", "lib", "sagbench"))
	}
	var tried []string
	for _, build := range []string{"cuda", "cpu"} {
		for _, root := range roots {
			p := filepath.Join(root, "onnxruntime-"+Version+"-"+build, "libonnxruntime.so."+Version)
			if _, err := os.Stat(p); err == nil {
				return p, nil
			}
			tried = append(tried, p)
		}
	}
	return "", fmt.Errorf("ort: ONNX Runtime %s is not installed; run `make onnxruntime` in the repository, or set %s to the path of libonnxruntime.so (looked for %s)",
		Version, EnvLibrary, strings.Join(tried, ", "))
}

// HasCUDA is an error where the ONNX Runtime that is found is not the GPU build. It
// needs no GPU.
func HasCUDA() error {
	library, err := LibraryPath()
	if err == nil {
		_, err = os.Stat(filepath.Join(filepath.Dir(library), "libonnxruntime_providers_cuda.so"))
	}
	if err != nil {
		return fmt.Errorf("ort: no GPU build of ONNX Runtime: %w; run `make onnxruntime DEVICE=cuda`, or choose --device cpu", err)
	}
	return nil
}

// RuntimeVersion loads ONNX Runtime and returns the version it reports.
func RuntimeVersion() (string, error) {
	if err := initialize(); err != nil {
		return "", err
	}
	return rt.GetVersion(), nil
}
