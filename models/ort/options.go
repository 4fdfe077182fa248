package ort

import (
	"errors"
	"fmt"
	"runtime"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/checkpoint"
	"sagbench/models/kernels"
	"sagbench/models/onnx"
)

// Options say where and how a graph runs. The zero value is: CPU, all cores,
// no cache.
type Options struct {
	Device    string // as ParseDevice reads it: "cpu" or "" | "cuda:0" | "webgpu:0" | "openvino:GPU.1" …
	Precision string // Float32 or "" | TF32 | BFloat16 | Float16, of those that the device offers
	Threads   int    // of one network call; 0 = all cores
	// AllowFallback accepts that nodes with weights run elsewhere than on the device, which
	// is an error otherwise.
	AllowFallback bool
	// HostLoop takes what a graph computes through the host's memory at each step of a
	// sampler, also where it could stay on the device.
	HostLoop bool
	// Opened, if it is there, is told each graph that is opened.
	Opened func(*onnx.Model)
	// Placed, if it is there, is told where the nodes of each graph run that is prepared
	// for another device than the CPU, by the goroutine that runs it first.
	Placed func(Placement)
	// Timed, if it is there, is told once how long the nodes of each graph that runs on
	// another device than the CPU took, by provider, in the second call.
	Timed func(Times)
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

// device is the device's name in full.
func (o Options) device() string {
	d, err := ParseDevice(o.Device)
	if err != nil {
		return o.Device // which no session is made with
	}
	return d.String()
}

// Resident tells whether states stay on the device from step to step: it has a memory of
// its own, and HostLoop is not set.
func (o Options) Resident() bool {
	d, err := ParseDevice(o.Device)
	return err == nil && d.resident && !o.HostLoop
}

// sessionOptions are the runtime's for the graph m. The caller destroys them.
func (o Options) sessionOptions(m *onnx.Model) (*rt.SessionOptions, error) {
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
	if m.Folder != "" {
		errs = append(errs, so.AddSessionConfigEntry("session.model_external_initializers_file_folder_path", m.Folder))
	}
	errs = append(errs, o.provider(so))
	if err := errors.Join(errs...); err != nil {
		so.Destroy()
		return nil, fmt.Errorf("ort: %w", err)
	}
	return so, nil
}

// provider puts the graph on the device.
func (o Options) provider(so *rt.SessionOptions) error {
	d, err := ParseDevice(o.Device)
	if err != nil {
		return err
	}
	p, err := d.Precision(o.Precision)
	if err == nil && d.options != nil {
		err = errors.Join(d.appendTo(so, p, o.Threads), so.AddSessionConfigEntry(recordPlacement, "1"))
	}
	if err != nil {
		return fmt.Errorf("device %s: %w", d, err)
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
	api, err := base()
	if err != nil {
		return err
	}
	p, err := pointer(o, "o")
	if err != nil {
		return err
	}
	return kernels.Add(api, p)
}
