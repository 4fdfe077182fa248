package ort

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"

	"sagbench/models/checkpoint"
)

// The precisions that networks are computed in. The first is exact: IEEE float32
// throughout. What a device cannot do is an error, never another precision.
const (
	Float32  = "float32"
	TF32     = "tf32"     // products of float32 whose factors keep 10 bits of mantissa
	BFloat16 = "bfloat16" // 8 bits of mantissa, float32's range
	Float16  = "float16"  // 11 bits of mantissa, up to 65504
)

// AllPrecisions are the names of all.
var AllPrecisions = []string{Float32, TF32, BFloat16, Float16}

// A Precision is one that a provider offers, and how it is asked for.
type Precision struct {
	Name string
	// Graph is the element type that the values and weights of the graph must have: a
	// provider with a setting of its own takes a graph in float32.
	Graph checkpoint.DType
	// value is the provider's own word for it, where its options name one.
	value string
	// kernels are the operators that it has in this element type; nil = all.
	kernels []string
	// chosen says that the provider computes a graph in float32 in this precision, or
	// thinks it does: it is tried out, and no sine or cosine is left to it.
	chosen bool
}

// A Provider is an execution provider of ONNX Runtime: what stands before the colon
// in --device.
type Provider struct {
	Name  string         // in --device
	EP    string         // as the runtime calls it
	where *regexp.Regexp // what may stand behind the colon
	usual string         // what does if nothing does
	usage string         // of both, for messages
	needs string         // on the machine, beside what `make onnxruntime` installs

	plugin     *plugin // nil = it is part of the runtime
	Precisions []Precision
	// can tells whether a device has a precision, where not all have all; nil = they do.
	can     func(Hardware, Precision) bool
	options func(where string, p Precision, threads int) map[string]string // the provider's
	// coarse says that its sines and cosines are no float32's: they are left to the CPU,
	// with all that they are computed from.
	coarse bool
	// doubted says that its fused attention was seen to be wrong for some shapes: each is
	// tried out before it is used.
	doubted bool
	// resident says that it computes in a memory of its own, where states can stay from
	// call to call.
	resident bool
	// Absent are operators that graphs here have and for which the provider has no
	// kernel, with the element type of their input: the CPU runs them.
	Absent []string
}

// A plugin is a provider in a library of its own.
type plugin struct {
	folder  string            // in the user's cache: the wheel's name and version
	library string            // the file that the runtime loads
	before  []string          // files that it needs and would not find
	records map[string]string // sha256 of the wheel's RECORD, by GOARCH
	env     map[string]string // environment that it has to find
}

var (
	number = regexp.MustCompile(`^(0|[1-9][0-9]?)$`)
	intels = regexp.MustCompile(`^(CPU|NPU|GPU(\.(0|[1-9][0-9]?))?)$`)
)

// Providers are those that --device knows.
var Providers = []*Provider{
	{
		Name: "cpu", EP: "CPUExecutionProvider", where: regexp.MustCompile(`^$`), usage: "cpu",
		Precisions: []Precision{
			{Name: Float32, Graph: checkpoint.F32}, {Name: BFloat16, Graph: checkpoint.BF16, kernels: moves}, {Name: Float16, Graph: checkpoint.F16, kernels: moves},
		},
	},
	{
		Name: "cuda", EP: "CUDAExecutionProvider", resident: true, where: number, usual: "0", usage: "cuda[:N] with the number of the GPU",
		needs: "it needs an NVIDIA GPU with its driver, and the CUDA 13 and cuDNN 9 libraries",
		Precisions: []Precision{
			{Name: Float32, Graph: checkpoint.F32, value: "0"}, {Name: TF32, Graph: checkpoint.F32, value: "1", chosen: true},
			{Name: BFloat16, Graph: checkpoint.BF16, value: "0", kernels: cudaBFloat16}, {Name: Float16, Graph: checkpoint.F16, value: "0"},
		},
		// The provider uses TF32 unless told otherwise. The others are those that the
		// runtime's documentation names for fixed shapes and throughput.
		options: func(where string, p Precision, _ int) map[string]string {
			return map[string]string{"device_id": where, "use_tf32": p.value, "cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1"}
		},
	},
	{
		Name: "webgpu", EP: "WebGpuExecutionProvider", resident: true, where: number, usual: "0", usage: "webgpu[:N] with the number of the GPU",
		needs: "it needs a GPU with its Vulkan driver, and the Vulkan loader libvulkan.so.1 (Debian: libvulkan1)",
		plugin: &plugin{
			folder: "onnxruntime-ep-webgpu-0.4.0", library: "libonnxruntime_providers_webgpu.so",
			records: map[string]string{
				"amd64": "107f037f8385924cf5c3f952ec9b37696090882871771d41cfbd49da67127f46",
				"arm64": "356a8114339235dc12bb20f0b748eff1ecc185fdc2d29520c8ba7ee564704b1e",
			},
		},
		Precisions: []Precision{{Name: Float32, Graph: checkpoint.F32}, {Name: Float16, Graph: checkpoint.F16}},
		coarse:     true, // Vulkan and Direct3D ask for no more than 2⁻¹¹ of them
		doubted:    true, // on SwiftShader 1e-2 from the CPU's, from 64 tokens on (release 0.4.0)
		Absent:     []string{"Equal I64", "LogSoftmax F32", "OneHot I64"},
		// Its own choice, channels last, convolves 6, 9, 15 … input channels wrongly (release
		// 0.4.0, output channels in fours); graphs here are in the other layout anyway.
		options: func(string, Precision, int) map[string]string { return map[string]string{"preferredLayout": "NCHW"} },
	},
	{
		Name: "openvino", EP: "OpenVINOExecutionProvider", where: intels, usual: "CPU", usage: "openvino[:CPU|GPU[.N]|NPU]",
		needs: "it needs a processor, GPU or NPU of Intel's with its driver",
		plugin: &plugin{
			folder: "onnxruntime-ep-openvino-1.8.1", library: "libonnxruntime_providers_openvino_plugin.so",
			records: map[string]string{"amd64": "493cce24c8921d1c638521ab2a0c9cbc13d6172b3f02144736eb727c5c349884"},
		},
		Precisions: []Precision{
			{Name: Float32, Graph: checkpoint.F32, value: "f32"}, {Name: BFloat16, Graph: checkpoint.F32, value: "bf16", chosen: true},
			{Name: Float16, Graph: checkpoint.F32, value: "f16", chosen: true},
		},
		// It computes in float32, without a word, where the device has not what was asked for.
		// A processor with AVX-512 that lacks bfloat16 simulates it, which takes longer.
		can: func(h Hardware, p Precision) bool {
			if p.Name == BFloat16 && h.Kind == "CPU" && cpu.X86.HasAVX512F {
				return true
			}
			return slices.Contains(strings.Fields(h.Told["OPTIMIZATION_CAPABILITIES"]), map[string]string{Float32: "FP32", BFloat16: "BF16", Float16: "FP16"}[p.Name])
		},
		// Its own choice is the fastest that the device has. It has threads of its own, which
		// the runtime's setting does not reach.
		options: func(where string, p Precision, threads int) map[string]string {
			kind, _, _ := strings.Cut(where, ".")
			count := ""
			if kind == "CPU" && threads > 0 {
				count = fmt.Sprintf(`, "INFERENCE_NUM_THREADS": "%d"`, threads)
			}
			return map[string]string{"load_config": fmt.Sprintf(`{%q: {"INFERENCE_PRECISION_HINT": %q%s}}`, kind, p.value, count)}
		},
	},
	{
		Name: "tensorrt-rtx", EP: "NvTensorRTRTXExecutionProvider", resident: true, where: number, usual: "0", usage: "tensorrt-rtx[:N] with the number of the GPU",
		needs: "it needs an NVIDIA RTX GPU (Ampere or later) with a driver for CUDA 13",
		plugin: &plugin{
			folder: "onnxruntime-ep-nv-tensorrt-rtx-cu13-0.5.0", library: "libonnxruntime_providers_nv_tensorrt_rtx.so",
			before:  []string{"libcudart.so.13.4.36", "libtensorrt_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1.7.1"},
			records: map[string]string{"amd64": "e3044bea1feced1b92030fae0e06b112d680d395e81bc8f87a83389230bf789b"},
			// The provider has no option for TF32, which TensorRT uses unless this is 0.
			env: map[string]string{"NVIDIA_TF32_OVERRIDE": "0"},
		},
		Precisions: []Precision{{Name: Float32, Graph: checkpoint.F32}, {Name: Float16, Graph: checkpoint.F16}}, // opset 21 has no convolution in bfloat16
		options:    func(string, Precision, int) map[string]string { return nil },
	},
}

// A Device is where graphs run: a provider, and which of its devices.
type Device struct {
	*Provider
	Where string // 0, 1, … or CPU, GPU, GPU.1, NPU; "" of the CPU
}

// ParseDevice reads a device as --device and Options.Device have it; "" is the CPU.
func ParseDevice(text string) (Device, error) {
	name, where, colon := strings.Cut(text, ":")
	if text == "" {
		name = "cpu"
	}
	var known []string
	for _, p := range Providers {
		known = append(known, p.usage)
		if p.Name != name {
			continue
		}
		if !colon {
			where = p.usual
		}
		if !p.where.MatchString(where) || colon && where == "" {
			return Device{}, fmt.Errorf("device %q: expected %s", text, p.usage)
		}
		return Device{p, strings.TrimSuffix(where, ".0")}, nil // one GPU has no number
	}
	return Device{}, fmt.Errorf("device %q is not known: expected %s", text, strings.Join(known, ", "))
}

// String is the device as --device takes it, its number written out.
func (d Device) String() string {
	if d.Where == "" {
		return d.Name
	}
	return d.Name + ":" + d.Where
}

// Precision is the provider's of that name, "" for float32; an error names those that
// it offers.
func (p *Provider) Precision(name string) (Precision, error) {
	if name == "" {
		name = Float32
	}
	var offered []string
	for _, one := range p.Precisions {
		if one.Name == name {
			return one, nil
		}
		offered = append(offered, one.Name)
	}
	if !slices.Contains(AllPrecisions, name) {
		return Precision{}, fmt.Errorf("precision %q is not known: expected %s", name, strings.Join(AllPrecisions, ", "))
	}
	return Precision{}, fmt.Errorf("device %s computes in no %s, but in %s", p.Name, name, strings.Join(offered, ", "))
}
