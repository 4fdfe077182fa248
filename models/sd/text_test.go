package sd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

const (
	tinyText    = casesFolder + "clip-text-tiny/model/text_encoder"
	fashionText = "../pretrained/sd/text_encoder"
)

func TestCLIPTextCases(t *testing.T) {
	forwardCase(t, "clip-text-tiny")
	forwardCase(t, "clip-text-gelu-tiny")
}

func openText(t testing.TB, folder string) *textNet {
	t.Helper()
	n, err := (&CLIPText{}).load(folder, models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func tokens(rows int, ids ...int64) ort.Array {
	return ort.Array{Shape: []int{rows, len(ids) / rows}, Data: ids}
}

// TestCLIPTextBatch embeds the prompts of a case alone and together, and a
// prompt's beginning alone: the attention is causal.
func TestCLIPTextBatch(t *testing.T) {
	n := openText(t, tinyText)
	all := openCase(t, "clip-text-tiny").array(t, "in.ids")
	ids := all.Data.([]int64)
	out, err := n.Forward(context.Background(), map[string]ort.Array{"ids": all})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		one, err := n.Forward(context.Background(), map[string]ort.Array{"ids": tokens(1, ids[77*i:77*(i+1)]...)})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range out {
			if !slices.Equal(one[name].Tensor().Data, want.Tensor().Row(i)) {
				t.Errorf("%s of prompt %d has other bits alone than in a batch", name, i)
			}
		}
	}
	begin, err := n.Encode(context.Background(), tokens(1, ids[:9]...), 0)
	if err != nil {
		t.Fatal(err)
	}
	whole := out["model"].Tensor().Row(0)[:len(begin.Data)]
	if e := relativeError(t, ort.Floats(begin), ort.Floats(tensor.Of(whole, begin.Shape...))); e > 1e-5 {
		t.Errorf("the first 9 tokens alone differ by %g from the same before others", e)
	}
}

// TestCLIPSkip: skipping no layer is the last hidden state, skipping one the
// penultimate, skipping all of them the normalized embeddings.
func TestCLIPSkip(t *testing.T) {
	n, ids := openText(t, tinyText), tokens(1, 3, 4, 5)
	out, err := n.Forward(context.Background(), map[string]ort.Array{"ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	for skip, name := range []string{"model", "penultimate"} {
		if h, err := n.Encode(context.Background(), ids, skip); err != nil || !slices.Equal(h.Data, out[name].Tensor().Data) {
			t.Errorf("skip %d is not %s (%v)", skip, name, err)
		}
	}
	a, err := n.Encode(context.Background(), tokens(1, 3, 4, 5), 3)
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Encode(context.Background(), tokens(1, 9, 4, 5), 3)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(a.Data[:32], b.Data[:32]) || !slices.Equal(a.Data[32:], b.Data[32:]) {
		t.Error("without any layer a token has to change its own place and no other")
	}
	_, err = n.Encode(context.Background(), ids, 4)
	wantError(t, err, "4 layers cannot be skipped, the text encoder has 3")
}

func TestPooledAt(t *testing.T) {
	for _, c := range []struct {
		eos  int64
		ids  []int64
		want int
	}{
		{2, []int64{5, 1, 9, 2, 9, 9}, 2}, // the first of the largest
		{7, []int64{5, 1, 9, 7, 7, 7}, 3},
		{7, []int64{5, 1, 9}, 0}, // as argmax over nothing
	} {
		if got := (&clipTextConfig{EOSTokenID: c.eos}).pooledAt(c.ids); got != c.want {
			t.Errorf("%v with eos %d: %d, want %d", c.ids, c.eos, got, c.want)
		}
	}
}

// TestProjection adds a projection (CLIPTextModelWithProjection), and takes the
// prefix from the keys: text_embeds is pooled times its weight.
func TestProjection(t *testing.T) {
	folder := copyFolder(t, tinyText)
	sd := checkpoint.StateDict{}
	for key, x := range readTensors(t, filepath.Join(folder, "model.safetensors")) {
		sd[strings.TrimPrefix(key, "text_model.")] = x
	}
	weight := make([]float32, 2*32) // the first channel, and twice the second
	weight[0], weight[32+1] = 1, 2
	sd["text_projection.weight"] = checkpoint.FromFloat32(weight, 2, 32)
	sd["embeddings.position_ids"] = checkpoint.FromInt64(make([]int64, 77), 1, 77)
	writeTensors(t, filepath.Join(folder, "model.safetensors"), sd)
	editJSON(t, filepath.Join(folder, "config.json"), func(m map[string]any) { m["projection_dim"] = 2 })
	ids := tokens(2, 3, 4, 400, 5, 6, 7)
	out, err := openText(t, folder).Forward(context.Background(), map[string]ort.Array{"ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	with, err := openText(t, tinyText).Forward(context.Background(), map[string]ort.Array{"ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p, e := out["pooled"].Tensor().Row(i), out["text_embeds"].Tensor().Row(i)
		if !slices.Equal(e, []float32{p[0], 2 * p[1]}) {
			t.Errorf("prompt %d: text_embeds %v of pooled %v…", i, e, p[:2])
		}
		if !slices.Equal(p, with["pooled"].Tensor().Row(i)) {
			t.Errorf("prompt %d: other numbers without the prefix", i)
		}
	}
}

func TestCLIPTextConfig(t *testing.T) {
	for _, c := range []struct {
		want  string
		spoil func(map[string]any)
	}{
		{`hidden_act is "gelu_new", which is not supported; supported: quick_gelu, gelu`, func(m map[string]any) { m["hidden_act"] = "gelu_new" }},
		{`model_type: "t5" is not supported; supported: clip_text_model`, func(m map[string]any) { m["model_type"] = "t5" }},
		{"num_attention_heads 5 does not divide hidden_size 32", func(m map[string]any) { m["num_attention_heads"] = 5 }},
		{"num_hidden_layers is 0, expected 1 to 256", func(m map[string]any) { m["num_hidden_layers"] = 0 }},
		{"missing    text_model.encoder.layers.3.layer_norm1.weight [32]", func(m map[string]any) { m["num_hidden_layers"] = 4 }},
		{"unexpected text_model.encoder.layers.2.layer_norm1.bias [32]", func(m map[string]any) { m["num_hidden_layers"] = 2 }},
		{"mis-shaped text_model.embeddings.token_embedding.weight: the network wants [499 32], the checkpoint has [500 32]", func(m map[string]any) { m["vocab_size"] = 499 }},
	} {
		folder := copyFolder(t, tinyText)
		editJSON(t, filepath.Join(folder, "config.json"), c.spoil)
		_, err := (&CLIPText{}).load(folder, models.Options{})
		wantError(t, err, c.want)
	}
	folder := copyFolder(t, tinyText)
	if err := os.Remove(filepath.Join(folder, "config.json")); err != nil {
		t.Fatal(err)
	}
	_, err := (&CLIPText{}).load(folder, models.Options{})
	wantError(t, err, "config.json is missing; expected the folder of one CLIPTextModel")
	_, err = (&CLIPText{}).load(tinyText, models.Options{Taps: []sampling.Tap{{Layer: "x"}}})
	wantError(t, err, "cannot be tapped")
}

func TestCLIPTextInputs(t *testing.T) {
	n := openText(t, tinyText)
	for want, ids := range map[string]ort.Array{
		"token 500: the text encoder knows 0 to 499; does the tokenizer": tokens(1, 1, 500),
		"token -1:": tokens(1, 1, -1),
		"prompts of 78 tokens; max_position_embeddings is 77":       tokens(1, make([]int64, 78)...),
		"ids have shape [2] and hold []int64, expected int64 [N,L]": {Shape: []int{2}, Data: []int64{1, 2}},
		"ids have shape [] and hold <nil>":                          {},
	} {
		_, err := n.Forward(context.Background(), map[string]ort.Array{"ids": ids})
		wantError(t, err, want)
	}
}

// TestTokenizer: the embedded tokenizer and text encoder belong together.
func TestTokenizer(t *testing.T) {
	tok, err := (&CLIPText{}).OpenTokenizer("../pretrained/sd/tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	ids, mask, err := tok.Tokenize([]string{"", "a photo of an ankle boot"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ids.Shape, []int{2, 77}) || !slices.Equal(mask.Data.([]int64)[:3], []int64{1, 1, 0}) {
		t.Errorf("ids %v, mask %v…", ids.Shape, mask.Data.([]int64)[:3])
	}
	h, err := openText(t, fashionText).Encode(context.Background(), ids, 0)
	if err != nil || !slices.Equal(h.Shape, []int{2, 77, 64}) {
		t.Errorf("embeddings %v, %v", h.Shape, err)
	}
	_, err = (&CLIPText{}).OpenTokenizer(fashionText)
	wantError(t, err, "the folder lacks vocab.json, merges.txt, tokenizer.json")
}
