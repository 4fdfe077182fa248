//go:build slow

package sd

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/models"
	"sagbench/models/checkpoint/randomweights"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// TestFullSizeSD builds and runs the U-Net of SD 1.5, 860 M parameters, on
// random weights of the true shapes: a 3.4 GB checkpoint, one call at 512×512
// with the map of the middle block. SAGBENCH_FULL_SIZE keeps the checkpoint in
// a folder.
func TestFullSizeSD(t *testing.T) {
	fullSize(t, "stable-diffusion-v1-5", &SD{flags{Component: "unet"}}, 64, map[string]ort.Array{"context": {Shape: []int{1, 77, 768}}})
}

// TestFullSizeSDXL is TestFullSizeSD for SDXL at 1024×1024: 2,567 M parameters, a
// 10.3 GB checkpoint.
func TestFullSizeSDXL(t *testing.T) {
	fullSize(t, "stable-diffusion-xl-base-1.0", &SDXL{flags: flags{Component: "unet"}}, 128, map[string]ort.Array{
		"context": {Shape: []int{1, 77, 2048}}, "text_embeds": {Shape: []int{1, 1280}}, "time_ids": {Shape: []int{1, 6}},
	})
}

// fullSize runs a published U-Net on latents with a side. Of the other inputs the
// shapes are given.
func fullSize(t *testing.T, name string, family models.Family, side int, in map[string]ort.Array) {
	folder := os.Getenv("SAGBENCH_FULL_SIZE")
	if folder == "" {
		folder = t.TempDir()
	}
	folder = filepath.Join(folder, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(folder, "diffusion_pytorch_model.bin")
	if _, err := os.Stat(weights); err != nil {
		config, shapes, err := publishedUNet(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := randomweights.Write(weights, shapes, 1); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	layer := os.Getenv("SAGBENCH_LAYER")
	if layer == "" {
		layer = "mid_block.attentions.0.transformer_blocks.0.attn1"
	}
	start := time.Now()
	m, err := family.Open(folder, models.Options{Taps: []sampling.Tap{{Layer: layer}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	t.Logf("opened in %s, %s", time.Since(start), peak(t))
	for input, a := range in {
		n := tensor.Size(a.Shape)
		a.Data = noise(t, 1, n, 1, 1).Data
		in[input] = a
	}
	in["x"], in["t"] = ort.Floats(noise(t, 1, 4, side, side)), ort.Array{Shape: []int{1}, Data: []int64{500}}
	for range 2 {
		start = time.Now()
		out, err := m.Forward(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("one call in %s, %s", time.Since(start), peak(t))
		var square float64
		for _, v := range out["model"].Tensor().Data {
			square += float64(v) * float64(v)
		}
		if rms := math.Sqrt(square / float64(4*side*side)); math.IsNaN(rms) || rms < 1e-3 || rms > 1e3 {
			t.Errorf("root mean square of ε is %g", rms)
		}
	}
}

// publishedUNet is the config.json of a published U-Net of Stable Diffusion and
// the shapes of its parameters by key: what it takes to write a
// checkpoint of the true size.
func publishedUNet(name string) (config []byte, shapes map[string][]int, err error) {
	text, ok := publishedUNets[name]
	if !ok {
		return nil, nil, fmt.Errorf("models: sd: no published U-Net %q; known: %v", name, slices.Sorted(maps.Keys(publishedUNets)))
	}
	b, err := parseJSON(name+"/unet/config.json", []byte(text))
	if err != nil {
		return nil, nil, err
	}
	c := newSDUNetConfig()
	if err := decodeConfig(b, c); err != nil {
		return nil, nil, err
	}
	shapes, err = onnx.Parameters(func(m *onnx.Module) { c.build(m, sdSize{size{1, 1}, 1}, models.NewTaps(models.Options{})) })
	return []byte(text), shapes, err
}

// peak is the process's largest resident memory so far, where Linux tells.
func peak(t *testing.T) string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "peak memory unknown"
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(lines, ", ")
}
