package tiny

import "fmt"

// An LDM is a U-Net of openaimodel.py UNetModel, in the layout of CompVis' and
// Stability AI's single files.
type LDM struct {
	Base, Blocks int   // model_channels, num_res_blocks
	Mult         []int // channel_mult
	Depth        []int // transformer blocks a level; 0 = no attention
	Context      int   // context_dim
	Added        int   // adm_in_channels
	Linear       bool  // use_linear_in_transformer

	shapes map[string][]int
}

// Shapes are its parameters' by their keys in a single file.
func (u LDM) Shapes() map[string][]int {
	u.shapes = map[string][]int{}
	u.unet()
	return u.shapes
}

func (u LDM) put(key string, shape ...int) { u.shapes["model.diffusion_model."+key] = shape }

func (u LDM) layer(key string, weight ...int) {
	u.put(key+".weight", weight...)
	u.put(key+".bias", weight[0])
}

func (u LDM) resnet(key string, in, out int) {
	u.layer(key+".in_layers.0", in)
	u.layer(key+".in_layers.2", out, in, 3, 3)
	u.layer(key+".emb_layers.1", out, 4*u.Base)
	u.layer(key+".out_layers.0", out)
	u.layer(key+".out_layers.3", out, out, 3, 3)
	if in != out {
		u.layer(key+".skip_connection", out, in, 1, 1)
	}
}

func (u LDM) transformer(key string, ch, depth int) {
	proj := []int{ch, ch, 1, 1}
	if u.Linear {
		proj = proj[:2]
	}
	u.layer(key+".norm", ch)
	u.layer(key+".proj_in", proj...)
	u.layer(key+".proj_out", proj...)
	for j := range depth {
		b := fmt.Sprintf("%s.transformer_blocks.%d", key, j)
		for i, context := range []int{ch, u.Context} {
			a := fmt.Sprintf("%s.attn%d", b, i+1)
			u.put(a+".to_q.weight", ch, ch)
			u.put(a+".to_k.weight", ch, context)
			u.put(a+".to_v.weight", ch, context)
			u.layer(a+".to_out.0", ch, ch)
		}
		for _, n := range []string{".norm1", ".norm2", ".norm3"} {
			u.layer(b+n, ch)
		}
		u.layer(b+".ff.net.0.proj", 8*ch, ch)
		u.layer(b+".ff.net.2", ch, 4*ch)
	}
}

func (u LDM) unet() {
	emb := 4 * u.Base
	if u.Added > 0 {
		u.layer("label_emb.0.0", emb, u.Added)
		u.layer("label_emb.0.2", emb, emb)
	}
	u.layer("time_embed.0", emb, u.Base)
	u.layer("time_embed.2", emb, emb)
	u.layer("input_blocks.0.0", u.Base, 4, 3, 3)
	ch, at, skips := u.Base, 1, []int{u.Base}
	for level, m := range u.Mult {
		for range u.Blocks {
			u.resnet(fmt.Sprintf("input_blocks.%d.0", at), ch, m*u.Base)
			if ch = m * u.Base; u.Depth[level] > 0 {
				u.transformer(fmt.Sprintf("input_blocks.%d.1", at), ch, u.Depth[level])
			}
			skips, at = append(skips, ch), at+1
		}
		if level < len(u.Mult)-1 {
			u.layer(fmt.Sprintf("input_blocks.%d.0.op", at), ch, ch, 3, 3)
			skips, at = append(skips, ch), at+1
		}
	}
	u.resnet("middle_block.0", ch, ch)
	u.transformer("middle_block.1", ch, max(1, u.Depth[len(u.Mult)-1]))
	u.resnet("middle_block.2", ch, ch)
	at = 0
	for level := len(u.Mult) - 1; level >= 0; level-- {
		for i := range u.Blocks + 1 {
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			u.resnet(fmt.Sprintf("output_blocks.%d.0", at), ch+skip, u.Mult[level]*u.Base)
			next := 1
			if ch = u.Mult[level] * u.Base; u.Depth[level] > 0 {
				u.transformer(fmt.Sprintf("output_blocks.%d.1", at), ch, u.Depth[level])
				next = 2
			}
			if level > 0 && i == u.Blocks {
				u.layer(fmt.Sprintf("output_blocks.%d.%d.conv", at, next), ch, ch, 3, 3)
			}
			at++
		}
	}
	u.layer("out.0", u.Base)
	u.layer("out.2", 4, u.Base, 3, 3)
}
