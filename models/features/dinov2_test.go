package features

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/checkpoint/randomweights"
)

// tinyDINOv2 writes a checkpoint of one block of width 64 over a grid of 3×3,
// after a change to its shapes.
func tinyDINOv2(t *testing.T, change func(shapes map[string][]int)) string {
	t.Helper()
	shapes := map[string][]int{
		"cls_token": {1, 1, 64}, "pos_embed": {1, 10, 64}, "mask_token": {1, 64},
		"patch_embed.proj.weight": {64, 3, 14, 14}, "patch_embed.proj.bias": {64},
		"norm.weight": {64}, "norm.bias": {64},
		"blocks.0.norm1.weight": {64}, "blocks.0.norm1.bias": {64}, "blocks.0.norm2.weight": {64}, "blocks.0.norm2.bias": {64},
		"blocks.0.attn.qkv.weight": {192, 64}, "blocks.0.attn.qkv.bias": {192}, "blocks.0.attn.proj.weight": {64, 64}, "blocks.0.attn.proj.bias": {64},
		"blocks.0.ls1.gamma": {64}, "blocks.0.ls2.gamma": {64},
		"blocks.0.mlp.fc1.weight": {256, 64}, "blocks.0.mlp.fc1.bias": {256}, "blocks.0.mlp.fc2.weight": {64, 256}, "blocks.0.mlp.fc2.bias": {64},
	}
	change(shapes)
	path := filepath.Join(t.TempDir(), "dino.pth")
	if err := randomweights.Write(path, shapes, 1); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDINOv2Refuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		size       int
		change     func(map[string][]int)
	}{
		{"another checkpoint", "expected a DINOv2 checkpoint", 28, func(s map[string][]int) { delete(s, "pos_embed") }},
		{"no square of positions", "pos_embed [1 9 64]", 28, func(s map[string][]int) { s["pos_embed"] = []int{1, 9, 64} }},
		{"odd width", "multiple of 64 channels", 28, func(s map[string][]int) { s["patch_embed.proj.weight"] = []int{60, 3, 14, 14} }},
		{"input size", "input_size 30: expected a multiple of the patch size 14", 30, func(map[string][]int) {}},
		{"no input size", "input_size 0", 0, func(map[string][]int) {}},
		{"missing", "missing    blocks.0.ls1.gamma [64]", 28, func(s map[string][]int) { delete(s, "blocks.0.ls1.gamma") }},
		{"unexpected", "unexpected head.weight [10 64]", 28, func(s map[string][]int) { s["head.weight"] = []int{10, 64} }},
	} {
		path := tinyDINOv2(t, c.change)
		m, err := (&DINOv2{InputSize: c.size}).Open(path, models.Options{})
		if err == nil {
			m.Close()
			t.Errorf("%s: it was opened", c.name)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestDINOv2Guess: the published networks are told by their parameters.
func TestDINOv2Guess(t *testing.T) {
	for _, n := range dinoNetworks {
		shapes, err := newDINOv2().Parameters(n.name)
		if err != nil {
			t.Fatal(err)
		}
		sd := checkpoint.StateDict{}
		for k, s := range shapes {
			sd[k] = checkpoint.Tensor{DType: checkpoint.F32, Shape: s}
		}
		s, err := shapeOfDINOv2(sd)
		if err != nil || s.name() != n.name {
			t.Errorf("%s is taken for %s: %v", n.name, s.name(), err)
		}
		if s.grid != 37 || s.patch != 14 || s.registers != 0 {
			t.Errorf("%s: %+v", n.name, s)
		}
	}
}

// TestTorchBicubic: weights add up to one, and reproduce a straight line away
// from the borders, at the place that torch's factor 16.1/37 gives.
func TestTorchBicubic(t *testing.T) {
	const in, out = 37, 16
	w := torchBicubic(in, out, out+0.1)
	for i := range out {
		sum, at := 0.0, 0.0
		for j := range in {
			sum += float64(w[i*in+j])
			at += float64(j) * float64(w[i*in+j])
		}
		source := in/(out+0.1)*(float64(i)+0.5) - 0.5
		if math.Abs(sum-1) > 1e-6 {
			t.Errorf("weights of %d add up to %g", i, sum)
		}
		if inside := source > 1 && source < in-3; inside && math.Abs(at-source) > 0.12 {
			t.Errorf("the centre of %d is %g, want about %g", i, at, source)
		}
	}
}
