package sd

import (
	"reflect"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// TestSingleFileUNets: the published U-Nets in the layout of their authors' code,
// shapes alone, become those of the published config.json files.
func TestSingleFileUNets(t *testing.T) {
	four, inThree := []int{1, 2, 4, 4}, []int{1, 1, 1, 0}
	for name, s := range map[string]tiny.LDM{
		"stable-diffusion-v1-5":        {Base: 320, Blocks: 2, Context: 768, Mult: four, Depth: inThree},
		"stable-diffusion-2-1":         {Base: 320, Blocks: 2, Context: 1024, Mult: four, Depth: inThree, Linear: true},
		"stable-diffusion-xl-base-1.0": {Base: 320, Blocks: 2, Context: 2048, Mult: []int{1, 2, 4}, Depth: []int{0, 2, 10}, Linear: true, Added: 2816},
	} {
		sd := checkpoint.StateDict{}
		for key, shape := range s.Shapes() {
			sd[key] = checkpoint.Tensor{DType: checkpoint.F32, Shape: shape, File: "model.ckpt", Size: int64(4 * tensor.Size(shape)), Raw: small(tensor.Size(shape))}
		}
		p := (&SD{}).pipeline()
		if s.Added > 0 {
			p = NewSDXL().pipeline()
		}
		p.Component = "unet"
		file, err := p.split(&weights{path: name, tensors: sd})
		if err != nil {
			t.Fatal(err)
		}
		want, got := configOf(t, newSDUNetConfig(), publishedUNets[name]), file.unetConfig()
		for _, c := range []*sdUNetConfig{want, got} { // one number and the same four times are alike
			for _, o := range []*oneOrMany{&c.AttentionHeadDim, &c.LayersPerBlock, &c.TransformerLayersPerBlock} {
				if o.values, err = o.of("", len(s.Mult), maxWidth); err != nil {
					t.Fatal(err)
				}
				o.list = true
			}
			for level, depth := range s.Depth {
				if depth == 0 { // what a level without transformers is said to have means nothing
					c.TransformerLayersPerBlock.values[level] = 0
				}
			}
			c.SampleSize = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the shapes say\n%+v, config.json\n%+v", name, *got, *want)
		}
		got.TransformerLayersPerBlock = file.unetConfig().TransformerLayersPerBlock
		if _, err := onnx.Build(file.unet, func(m *onnx.Module) { got.build(m, sdSize{size{8, 8}, 77}, models.NewTaps(models.Options{})) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
