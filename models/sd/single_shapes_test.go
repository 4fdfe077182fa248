package sd

import (
	"fmt"
	"reflect"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/sampling/tensor"
)

// ldmShapes lists the keys and shapes of a U-Net as openaimodel.py UNetModel
// makes them, level by level.
type ldmShapes struct {
	sd     checkpoint.StateDict
	linear bool
	width  int   // context_dim
	mult   []int // channel_mult
	depth  []int // transformer blocks a level; 0 = no attention
	added  int   // adm_in_channels
}

func (s *ldmShapes) put(key string, shape ...int) {
	s.sd[ldmUNet+key] = checkpoint.Tensor{DType: checkpoint.F32, Shape: shape, File: "model.ckpt", Size: int64(4 * tensor.Size(shape)), Raw: small(tensor.Size(shape))}
}

func (s *ldmShapes) layer(key string, weight ...int) {
	s.put(key+".weight", weight...)
	s.put(key+".bias", weight[0])
}

func (s *ldmShapes) resnet(key string, in, out, emb int) {
	s.layer(key+".in_layers.0", in)
	s.layer(key+".in_layers.2", out, in, 3, 3)
	s.layer(key+".emb_layers.1", out, emb)
	s.layer(key+".out_layers.0", out)
	s.layer(key+".out_layers.3", out, out, 3, 3)
	if in != out {
		s.layer(key+".skip_connection", out, in, 1, 1)
	}
}

func (s *ldmShapes) transformer(key string, ch, depth int) {
	proj := []int{ch, ch, 1, 1}
	if s.linear {
		proj = proj[:2]
	}
	s.layer(key+".norm", ch)
	s.layer(key+".proj_in", proj...)
	s.layer(key+".proj_out", proj...)
	for j := range depth {
		b := fmt.Sprintf("%s.transformer_blocks.%d", key, j)
		for i, context := range []int{ch, s.width} {
			a := fmt.Sprintf("%s.attn%d", b, i+1)
			s.put(a+".to_q.weight", ch, ch)
			s.put(a+".to_k.weight", ch, context)
			s.put(a+".to_v.weight", ch, context)
			s.layer(a+".to_out.0", ch, ch)
		}
		for _, n := range []string{".norm1", ".norm2", ".norm3"} {
			s.layer(b+n, ch)
		}
		s.layer(b+".ff.net.0.proj", 8*ch, ch)
		s.layer(b+".ff.net.2", ch, 4*ch)
	}
}

// unet has model_channels 320 and two blocks a level.
func (s *ldmShapes) unet() {
	const base, blocks, emb = 320, 2, 1280
	mult := s.mult
	if s.added > 0 {
		s.layer("label_emb.0.0", emb, s.added)
		s.layer("label_emb.0.2", emb, emb)
	}
	s.layer("time_embed.0", emb, base)
	s.layer("time_embed.2", emb, emb)
	s.layer("input_blocks.0.0", base, 4, 3, 3)
	ch, at, skips := base, 1, []int{base}
	for level, m := range mult {
		for range blocks {
			s.resnet(fmt.Sprintf("input_blocks.%d.0", at), ch, m*base, emb)
			if ch = m * base; s.depth[level] > 0 {
				s.transformer(fmt.Sprintf("input_blocks.%d.1", at), ch, s.depth[level])
			}
			skips, at = append(skips, ch), at+1
		}
		if level < len(mult)-1 {
			s.layer(fmt.Sprintf("input_blocks.%d.0.op", at), ch, ch, 3, 3)
			skips, at = append(skips, ch), at+1
		}
	}
	s.resnet("middle_block.0", ch, ch, emb)
	s.transformer("middle_block.1", ch, max(1, s.depth[len(mult)-1]))
	s.resnet("middle_block.2", ch, ch, emb)
	at = 0
	for level := len(mult) - 1; level >= 0; level-- {
		for i := range blocks + 1 {
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			s.resnet(fmt.Sprintf("output_blocks.%d.0", at), ch+skip, mult[level]*base, emb)
			next := 1
			if ch = mult[level] * base; s.depth[level] > 0 {
				s.transformer(fmt.Sprintf("output_blocks.%d.1", at), ch, s.depth[level])
				next = 2
			}
			if level > 0 && i == blocks {
				s.layer(fmt.Sprintf("output_blocks.%d.%d.conv", at, next), ch, ch, 3, 3)
			}
			at++
		}
	}
	s.layer("out.0", base)
	s.layer("out.2", 4, base, 3, 3)
}

// TestSingleFileUNets: the published U-Nets in the layout of their authors' code,
// shapes alone, become those of the published config.json files.
func TestSingleFileUNets(t *testing.T) {
	four, inThree := []int{1, 2, 4, 4}, []int{1, 1, 1, 0}
	for name, s := range map[string]*ldmShapes{
		"stable-diffusion-v1-5":        {width: 768, mult: four, depth: inThree},
		"stable-diffusion-2-1":         {width: 1024, mult: four, depth: inThree, linear: true},
		"stable-diffusion-xl-base-1.0": {width: 2048, mult: []int{1, 2, 4}, depth: []int{0, 2, 10}, linear: true, added: 2816},
	} {
		s.sd = checkpoint.StateDict{}
		s.unet()
		p := (&SD{}).pipeline()
		if s.added > 0 {
			p = NewSDXL().pipeline()
		}
		p.Component = "unet"
		file, err := p.split(&weights{path: name, tensors: s.sd})
		if err != nil {
			t.Fatal(err)
		}
		want, got := configOf(t, newSDUNetConfig(), publishedUNets[name]), file.unetConfig()
		for _, c := range []*sdUNetConfig{want, got} { // one number and the same four times are alike
			for _, o := range []*oneOrMany{&c.AttentionHeadDim, &c.LayersPerBlock, &c.TransformerLayersPerBlock} {
				if o.values, err = o.of("", len(s.mult), maxWidth); err != nil {
					t.Fatal(err)
				}
				o.list = true
			}
			for level, depth := range s.depth {
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
