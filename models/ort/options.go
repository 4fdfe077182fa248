package ort

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sagbench/models/kernels"
	"strconv"
	"strings"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// Options say where and how a graph runs. The zero value is: CPU, all cores,
// no cache.
type Options struct {
	Device  string // "cpu" or "" | "cuda:0", "cuda:1", …
	Threads int    // of one network call; 0 = all cores
	// Content identifies the content of the checkpoint (its sha256). With it,
	// the optimized graph of a small model is kept in the user's cache folder,
	// so that the next start takes a tenth of the time.
	Content func() (string, error)
	// Note, if there is one, is told in a sentence that a kept graph was damaged. It
	// is called by the goroutine that runs the graph.
	Note func(string)
	// Unchanged is an error where the checkpoint's files are no longer those that
	// were hashed. It is asked when the weights have been loaded.
	Unchanged func() error
	// idle lets the runtime's threads sleep between calls. They otherwise wait
	// for the next one in a loop, which takes a core from what the caller does
	// between short calls.
	idle bool
}

// unchanged is Unchanged, where it is set.
func (o Options) unchanged() error {
	if o.Unchanged == nil {
		return nil
	}
	return o.Unchanged()
}

func (o Options) device() string {
	if o.Device == "" {
		return "cpu"
	}
	return o.Device
}

// sessionOptions are the runtime's for a graph whose weights lie in a folder, ""
// for none. The caller destroys them.
func (o Options) sessionOptions(folder string) (*rt.SessionOptions, error) {
	if err := kernels.Check(); err != nil {
		return nil, err
	}
	so, err := rt.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	threads := o.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	errs := []error{
		so.SetIntraOpNumThreads(threads),
		so.SetGraphOptimizationLevel(rt.GraphOptimizationLevelEnableAll),
		so.SetLogSeverityLevel(rt.LoggingLevelFatal), // errors are returned, not printed
	}
	if o.idle {
		errs = append(errs, so.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"))
	}
	if folder != "" {
		errs = append(errs, so.AddSessionConfigEntry("session.model_external_initializers_file_folder_path", folder))
	}
	errs = append(errs, o.provider(so))
	if err := errors.Join(errs...); err != nil {
		so.Destroy()
		return nil, fmt.Errorf("ort: %w", err)
	}
	return so, nil
}

// provider puts the graph on the device. The CUDA settings are those that the
// runtime's documentation names for fixed shapes and throughput.
func (o Options) provider(so *rt.SessionOptions) error {
	kind, id, _ := strings.Cut(o.device(), ":")
	if kind == "cpu" {
		return nil
	}
	if _, err := strconv.Atoi(id); kind != "cuda" || err != nil {
		return fmt.Errorf("device %q: expected cpu, or cuda:N with the number of the GPU", o.Device)
	}
	if err := verifyCUDA(); err != nil {
		return err
	}
	co, err := rt.NewCUDAProviderOptions()
	if err == nil {
		defer co.Destroy()
		err = co.Update(map[string]string{"device_id": id, "cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1"})
	}
	if err == nil {
		err = so.AppendExecutionProviderCUDA(co)
	}
	if err != nil {
		return fmt.Errorf("device %s: %w; it needs an NVIDIA GPU with its driver, the CUDA 13 and cuDNN 9 libraries, and the GPU build of ONNX Runtime (`make onnxruntime DEVICE=cuda`)", o.Device, err)
	}
	return nil
}

// HasKernels tells whether graphs with operators of onnx.KernelsDomain run with
// these options: on the CPU, if it is one that package kernels is for.
func (o Options) HasKernels() bool { return o.device() == "cpu" && kernels.Name() != "" }

// Computer names what features differ by in their last bits: the device, or on the
// CPU the kernels; "" for a CPU without any.
func (o Options) Computer() string {
	if o.device() != "cpu" {
		return o.device()
	}
	return Kernels()
}

// CheckDevice is an error where a graph cannot run on the device.
func CheckDevice(o Options) error {
	if o.device() == "cpu" {
		return nil
	}
	m, err := onnx.Build(nil, func(m *onnx.Module) { m.Output("dst", transposed(m, checkpoint.F32)) })
	if err != nil {
		return err
	}
	s, err := Open(m, Options{Device: o.Device})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.prepared()
	return err
}

// Kernels names what computes these operators on this processor; "" for none.
func Kernels() string { return kernels.Name() }

// addKernels makes those operators known to the session that o will make.
func addKernels(o *rt.SessionOptions) error {
	library, err := libraryPath()
	if err != nil {
		return err
	}
	// The binding has no call for operators of one's own; its SessionOptions
	// hold the C pointer that takes one.
	pointer := reflect.ValueOf(o).Elem().FieldByName("o")
	if pointer.Kind() != reflect.Pointer {
		return errors.New("ort: SessionOptions of this release of onnxruntime_go do not hold a pointer o: package kernels cannot be used with it")
	}
	return kernels.Add(library, pointer.UnsafePointer())
}
