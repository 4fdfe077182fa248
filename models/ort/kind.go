package ort

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// AnyBatch tells whether an image has the same bits in any batch on the device. On
// the CPU tests hold that; libraries of GPUs may choose other algorithms for another
// number of images.
func (o Options) AnyBatch() bool { return o.device() == "cpu" }

// Kind names what the bits of results can depend on beside the graph: the kind of the
// device, not which one it is, and the versions of what runs on it. Equal kinds give
// equal bits. On a GPU the device is opened.
func (o Options) Kind() (string, error) {
	version, err := RuntimeVersion()
	if err != nil {
		return "", err
	}
	if o.device() == "cpu" {
		kernels := Kernels()
		if kernels == "" {
			kernels = "none"
		}
		return fmt.Sprintf("CPU %s %s, kernels %s, ONNX Runtime %s", runtime.GOARCH, instructions(), kernels, version), nil
	}
	if err := CheckDevice(o); err != nil { // which loads the libraries
		return "", err
	}
	kind, _, _ := strings.Cut(o.device(), ":")
	maps, _ := os.ReadFile("/proc/self/maps")
	kind = fmt.Sprintf("%s %s, ONNX Runtime %s, %s", kind, gpuModels("/proc/driver/nvidia/gpus"), version, gpuLibraries(string(maps)))
	if o.HostLoop {
		kind += ", states through the host"
	}
	return kind, nil
}

// instructions is the widest set of vector instructions that the processor has, by
// which ONNX Runtime chooses its kernels.
func instructions() string {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL:
		return "AVX-512"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return "AVX2"
	case cpu.X86.HasAVX:
		return "AVX"
	}
	return "baseline"
}

// gpuModels are the models of the GPUs that the driver tells of, each once: which of
// them a number means is the application's affair.
func gpuModels(folder string) string {
	files, _ := filepath.Glob(filepath.Join(folder, "*", "information"))
	var models []string
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "Model:"); ok && !slices.Contains(models, strings.TrimSpace(name)) {
				models = append(models, strings.TrimSpace(name))
			}
		}
	}
	slices.Sort(models)
	if len(models) == 0 {
		return "of an unknown model"
	}
	return strings.Join(models, " or ")
}

// gpuLibrary matches the path of a library of CUDA that a process has mapped.
var gpuLibrary = regexp.MustCompile(`/lib(cudart|cublas|cublasLt|cudnn|cufft)\.so\.([0-9.]+)$`)

// gpuLibraries are the versions of the libraries in /proc/self/maps.
func gpuLibraries(maps string) string {
	var all []string
	for line := range strings.Lines(maps) {
		if m := gpuLibrary.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			if one := m[1] + " " + m[2]; !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		return "libraries unknown"
	}
	return strings.Join(all, " ")
}

// GPUs is the number of NVIDIA GPUs that this process may use.
func GPUs() int {
	if visible, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
		return len(strings.FieldsFunc(visible, func(r rune) bool { return r == ',' || r == ' ' }))
	}
	nodes, _ := filepath.Glob("/dev/nvidia[0-9]*")
	return len(nodes)
}
