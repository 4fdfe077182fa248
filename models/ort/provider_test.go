package ort

import (
	"strings"
	"testing"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]string{
		"": "cpu", "cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1", "webgpu": "webgpu:0", "openvino": "openvino:CPU", "openvino:GPU": "openvino:GPU",
		"openvino:GPU.0": "openvino:GPU", "openvino:GPU.1": "openvino:GPU.1", "openvino:NPU": "openvino:NPU", "tensorrt-rtx:2": "tensorrt-rtx:2",
	} {
		if d, err := ParseDevice(text); err != nil || d.String() != want {
			t.Errorf("%q: got %v, %v, want %s", text, d, err, want)
		}
	}
	for text, want := range map[string]string{
		"gpu":            `device "gpu" is not known: expected cpu, cuda[:N] with the number of the GPU, webgpu[:N]`,
		"cpu:0":          `device "cpu:0": expected cpu`,
		"cuda:":          `device "cuda:": expected cuda[:N]`,
		"cuda:01":        `device "cuda:01": expected cuda[:N]`,
		"cuda:-1":        `device "cuda:-1": expected cuda[:N]`,
		"openvino:0":     `device "openvino:0": expected openvino[:CPU|GPU[.N]|NPU]`,
		"openvino:GPU.x": `device "openvino:GPU.x": expected openvino[:CPU|GPU[.N]|NPU]`,
	} {
		m, _ := onnx.Build(nil, func(m *onnx.Module) { m.Output("y", m.Input("x", checkpoint.F32, 1)) })
		if _, err := Open(m, Options{Device: text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// TestPrecisions holds that every provider offers float32, that all but the CPU and
// those that know nothing else are told of it, and that what it does not offer is an
// error that lists what it does.
func TestPrecisions(t *testing.T) {
	asked := map[string]string{
		"cuda": "use_tf32=0", "openvino": `load_config={"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}`,
	}
	for _, p := range Providers {
		f, err := p.Precision("")
		if err != nil || f.Name != Float32 || f.Graph != checkpoint.F32 {
			t.Errorf("%s: %+v, %v without a precision", p.Name, f, err)
		}
		if want := asked[p.Name]; want != "" {
			key, value, _ := strings.Cut(want, "=")
			if got := p.options(p.usual, f, 0)[key]; got != value {
				t.Errorf("%s: %s is %q, want %q", p.Name, key, got, value)
			}
		}
	}
	d, _ := ParseDevice("openvino")
	f, _ := d.Precision("")
	for where, want := range map[string]string{
		"CPU":   `{"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3"}}`,
		"GPU.1": `{"GPU": {"INFERENCE_PRECISION_HINT": "f32"}}`, // whose driver has no such threads
	} {
		if got := d.options(where, f, 3)["load_config"]; got != want {
			t.Errorf("%s on three threads: %s, want %s", where, got, want)
		}
	}
	d, _ = ParseDevice("webgpu")
	for name, want := range map[string]string{
		TF32:   "device webgpu computes in no tf32, but in float32, float16",
		"fp32": `precision "fp32" is not known: expected float32, tf32, bfloat16, float16`,
	} {
		if _, err := d.Precision(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}
