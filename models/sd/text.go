package sd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/clipbpe"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// CLIPText is the text half of CLIP (Radford et al., arXiv 2103.00020), a
// text_encoder/ folder of a diffusers checkpoint (transformers
// modeling_clip.py CLIPTextModel or CLIPTextModelWithProjection), whose
// config.json is the source of its dimensions.
type CLIPText struct {
	Variant string `yaml:"variant" doc:"which weights of the folder: fp16 = model.fp16.safetensors; empty = those without a variant"`
}

// clipTextConfig are the keys of a CLIPTextConfig that matter here.
type clipTextConfig clipSizes

// clipSizes are the sizes of a text encoder. As flags they state what differs from
// the published ones where a checkpoint has no config.json; 0 and "" = what the
// shapes and the published models say.
type clipSizes struct {
	VocabSize             int     `yaml:"vocab_size" min:"1" max:"1000000" doc:"number of tokens"`
	HiddenSize            int     `yaml:"hidden_size" min:"1" max:"65536" doc:"width"`
	IntermediateSize      int     `yaml:"intermediate_size" min:"1" max:"262144" doc:"width between the two layers of each perceptron"`
	NumHiddenLayers       int     `yaml:"num_hidden_layers" min:"1" max:"256" doc:"number of transformer layers"`
	NumAttentionHeads     int     `yaml:"num_attention_heads" min:"1" max:"1024" doc:"attention heads a layer"`
	MaxPositionEmbeddings int     `yaml:"max_position_embeddings" min:"1" max:"4096" doc:"most tokens of a prompt"`
	ProjectionDim         int     `yaml:"projection_dim" min:"0" max:"65536" doc:"width of the projection, where there is one"`
	HiddenAct             string  `yaml:"hidden_act" doc:"quick_gelu or gelu"`
	LayerNormEps          float64 `yaml:"layer_norm_eps" min:"0" max:"1" doc:"eps of every LayerNorm"`
	EOSTokenID            int64   `yaml:"eos_token_id" min:"0" max:"1000000" doc:"the token that is pooled at"` // 2 = the largest id of the prompt, as the first published files want it
}

// replace sets the sizes of c that are stated.
func (s *clipSizes) replace(c *clipTextConfig) {
	if s == nil {
		return
	}
	from, to := reflect.ValueOf(s).Elem(), reflect.ValueOf(c).Elem()
	for i := range from.NumField() {
		if f := from.Field(i); !f.IsZero() {
			to.Field(i).Set(f)
		}
	}
}

var clipFormat = configFormat{
	class: "CLIPTextModel", stems: transformersStems, untapped: "a text encoder",
	key: "model_type", is: "clip_text_model", unsupported: "%q is not supported; supported: %s",
	ignoresRest: true, // of the dozens that transformers writes, which concern training and generation
}

func (*clipTextConfig) format() *configFormat { return &clipFormat }

// newCLIPTextConfig are CLIPTextConfig's defaults.
func newCLIPTextConfig() *clipTextConfig {
	return &clipTextConfig{
		VocabSize: 49408, HiddenSize: 512, IntermediateSize: 2048, NumHiddenLayers: 12, NumAttentionHeads: 8,
		MaxPositionEmbeddings: 77, ProjectionDim: 512, HiddenAct: "quick_gelu", LayerNormEps: 1e-5, EOSTokenID: 49407,
	}
}

// Validate implements componentConfig.
func (c *clipTextConfig) Validate() error {
	errs := []error{
		oneOf("hidden_act", c.HiddenAct, "quick_gelu", "gelu"),
		check(quantity{"vocab_size", c.VocabSize, 1 << 24}, quantity{"hidden_size", c.HiddenSize, maxWidth}, quantity{"intermediate_size", c.IntermediateSize, 4 * maxWidth},
			quantity{"num_hidden_layers", c.NumHiddenLayers, 8 * maxLayers}, quantity{"num_attention_heads", c.NumAttentionHeads, maxWidth},
			quantity{"max_position_embeddings", c.MaxPositionEmbeddings, 1 << 12}, quantity{"projection_dim", c.ProjectionDim, maxWidth}),
	}
	if c.NumAttentionHeads > 0 && c.HiddenSize%c.NumAttentionHeads != 0 {
		errs = append(errs, fmt.Errorf("num_attention_heads %d does not divide hidden_size %d", c.NumAttentionHeads, c.HiddenSize))
	}
	return errors.Join(errs...)
}

// textKey tells the graphs of a text encoder apart.
type textKey struct {
	length int  // tokens of a prompt
	skip   int  // layers at the end that are left out for "hidden"; 0 = none
	raw    bool // "hidden" is the state itself, as SDXL takes it, and not normalized
}

// build is CLIPTextModel.forward: ids [N,L] and pick [N,1,L], which is one at the
// token that is pooled and zero elsewhere → model, hidden [N,L,D], pooled [N,D]
// and, where there is a projection, text_embeds [N,P].
func (c *clipTextConfig) build(m *onnx.Module, key textKey) error {
	ids := m.Input("ids", checkpoint.I64, onnx.Batch, key.length)
	pick := m.Input("pick", checkpoint.F32, onnx.Batch, 1, key.length)
	text := m
	if m.Has("text_model.embeddings.token_embedding.weight") { // transformers 5 saves without the prefix
		text = m.In("text_model")
	}
	e := text.In("embeddings")
	e.Ignore("position_ids")
	positions := e.In("position_embedding").Param("weight", c.MaxPositionEmbeddings, c.HiddenSize)
	h := e.In("token_embedding").Embedding(ids, c.VocabSize, c.HiddenSize) // [N, L, D]
	h = m.Add(h, m.Slice(positions, 0, 0, key.length))

	states := []onnx.Value{h}
	mask := causalMask(m, key.length)
	for i := range c.NumHiddenLayers {
		h = c.layer(text.In("encoder.layers.%d", i), h, mask)
		states = append(states, h)
	}
	norm := text.In("final_layer_norm")
	h = norm.LayerNorm(h, c.LayerNormEps)
	m.Output("model", h)
	if key.skip > 0 {
		hidden := states[c.NumHiddenLayers-key.skip]
		if !key.raw {
			hidden = norm.LayerNorm(hidden, c.LayerNormEps)
		}
		m.Output("hidden", hidden)
	}
	pooled := m.Reshape(m.MatMul(pick, h), onnx.Batch, c.HiddenSize)
	m.Output("pooled", pooled)
	if m.Has("text_projection.weight") {
		m.Output("text_embeds", m.In("text_projection").LinearNoBias(pooled, c.ProjectionDim))
	} else if m.Has("text_projection") { // of OpenCLIP, the other way round
		m.Output("text_embeds", m.MatMul(pooled, m.Param("text_projection", c.HiddenSize, c.ProjectionDim)))
	}
	return nil
}

// layer is modeling_clip.py CLIPEncoderLayer: h [N,L,D] → the same shape.
func (c *clipTextConfig) layer(m *onnx.Module, h, mask onnx.Value) onnx.Value {
	x := m.In("layer_norm1").LayerNorm(h, c.LayerNormEps)
	a := m.In("self_attn")
	q, k, v := a.In("q_proj").Linear(x, c.HiddenSize), a.In("k_proj").Linear(x, c.HiddenSize), a.In("v_proj").Linear(x, c.HiddenSize)
	w := m.Softmax(m.Add(attentionScores(m, q, k, c.NumAttentionHeads), mask))
	x = mergeHeads(m, m.MatMul(w, splitHeads(m, v, c.NumAttentionHeads)))
	h = m.Add(h, a.In("out_proj").Linear(x, c.HiddenSize))

	x = m.In("mlp.fc1").Linear(m.In("layer_norm2").LayerNorm(h, c.LayerNormEps), c.IntermediateSize)
	if c.HiddenAct == "gelu" {
		x = m.GELU(x)
	} else {
		x = m.QuickGELU(x)
	}
	return m.Add(h, m.In("mlp.fc2").Linear(x, c.HiddenSize))
}

// causalMask is 0 where the key is not after the query and −max elsewhere, [1,1,L,L].
func causalMask(m *onnx.Module, length int) onnx.Value {
	mask := make([]float32, length*length)
	for q := range length {
		for k := q + 1; k < length; k++ {
			mask[q*length+k] = -math.MaxFloat32
		}
	}
	return m.Const(mask, 1, 1, length, length)
}

// Open implements Family.
func (c *CLIPText) Open(path string, opt models.Options) (models.Model, error) {
	if err := exact(path, opt); err != nil {
		return nil, err
	}
	return c.load(path, opt)
}

// load opens the text encoder; graphs are made for the lengths that come.
func (c *CLIPText) load(path string, opt models.Options) (*textNet, error) {
	return loadPart(path, newCLIPTextConfig(), c.Variant, newTextNet, opt)
}

func newTextNet(c *clipTextConfig, w *weights, opt models.Options) (*textNet, error) {
	opt.Precision = "" // of the denoiser alone
	// A CLIPTextModel has no projection: what config.json says of one is a default,
	// whatever CLIP the file comes of.
	if t, ok := w.tensors["text_projection.weight"]; ok && len(t.Shape) == 2 {
		c.ProjectionDim = t.Shape[0]
	} else if t, ok := w.tensors["text_projection"]; ok && len(t.Shape) == 2 {
		c.ProjectionDim = t.Shape[1]
	}
	if _, err := models.Build(w.tensors, func(m *onnx.Module) error { return c.build(m, textKey{length: 1}) }); err != nil {
		return nil, w.fault(err)
	}
	return &textNet{config: c, weights: w, net: sessions(w, w.tensors, opt, c.build)}, nil
}

// A textNet is a text encoder with its weights at hand.
type textNet struct {
	config  *clipTextConfig
	weights *weights
	net     *models.Sessions[textKey]
}

var _ models.Model = (*textNet)(nil)

// Close frees all sessions.
func (n *textNet) Close() {
	n.net.Close()
	n.weights.Close()
}

// projects reports whether the text encoder has a projection, and so text_embeds.
func (n *textNet) projects() bool {
	return n.weights.tensors.Has("text_projection.weight") || n.weights.tensors.Has("text_projection")
}

// Encode embeds prompts of L tokens each: ids [N,L] → [N,L,D], the last hidden
// state after its LayerNorm, or with skip > 0 the state before the last skip
// layers after the same LayerNorm (clip_skip of the pipelines).
func (n *textNet) Encode(ctx context.Context, ids ort.Array, skip int) (tensor.Tensor, error) {
	out, err := n.run(ctx, ids, textKey{skip: skip})
	if err != nil {
		return tensor.Tensor{}, err
	}
	if skip > 0 {
		return out["hidden"].Tensor(), nil
	}
	return out["model"].Tensor(), nil
}

// Forward implements Model: ids [N,L] → model [N,L,D] (last hidden state),
// hidden_penultimate [N,L,D] (the state before the last layer), penultimate (that
// normalized), pooled [N,D] and, with a projection, text_embeds [N,P].
func (n *textNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	out, err := n.run(ctx, in["ids"], textKey{skip: 1})
	if err != nil {
		return nil, err
	}
	raw, err := n.run(ctx, in["ids"], textKey{skip: 1, raw: true})
	if err != nil {
		return nil, err
	}
	out["penultimate"], out["hidden_penultimate"] = out["hidden"], raw["hidden"]
	delete(out, "hidden")
	return out, nil
}

// run computes the outputs of the graph with this key; its length is that of the ids.
func (n *textNet) run(ctx context.Context, a ort.Array, key textKey) (map[string]ort.Array, error) {
	ids, ok := a.Data.([]int64)
	if !ok || len(a.Shape) != 2 || a.Shape[1] < 1 {
		return nil, fmt.Errorf("models: ids have shape %v and hold %T, expected int64 [N,L]", a.Shape, a.Data)
	}
	length := a.Shape[1]
	switch {
	case length > n.config.MaxPositionEmbeddings:
		return nil, fmt.Errorf("models: %s: prompts of %d tokens; max_position_embeddings is %d", n.weights.path, length, n.config.MaxPositionEmbeddings)
	case key.skip < 0 || key.skip > n.config.NumHiddenLayers:
		return nil, fmt.Errorf("models: %s: %d layers cannot be skipped, the text encoder has %d", n.weights.path, key.skip, n.config.NumHiddenLayers)
	}
	pick := tensor.New(a.Shape[0], 1, length)
	for i := range a.Shape[0] {
		prompt := ids[i*length : (i+1)*length]
		for _, id := range prompt {
			if id < 0 || id >= int64(n.config.VocabSize) {
				return nil, fmt.Errorf("models: %s: token %d: the text encoder knows 0 to %d; does the tokenizer belong to it?", n.weights.path, id, n.config.VocabSize-1)
			}
		}
		pick.Row(i)[n.config.pooledAt(prompt)] = 1
	}
	key.length = length
	return n.net.Run(ctx, key, map[string]ort.Array{"ids": a, "pick": ort.Floats(pick)})
}

// pooledAt is the position of the end of the prompt: the first eos_token_id, or
// where config.json still says 2, which no published vocabulary means, the
// first of the largest ids.
func (c *clipTextConfig) pooledAt(ids []int64) int {
	if c.EOSTokenID == 2 {
		return slices.Index(ids, slices.Max(ids))
	}
	return max(0, slices.Index(ids, c.EOSTokenID))
}

// clipTokens is CLIP's tokenizer for prompts of one length.
type clipTokens struct {
	*clipbpe.Tokenizer
	length int
}

// clipLength is the length of a prompt where tokenizer_config.json does not say.
const clipLength = 77

// OpenTokenizer implements Tokenizing: path is a tokenizer/ folder.
func (c *CLIPText) OpenTokenizer(path string) (models.Tokenizer, error) { return openCLIPTokens(path) }

func openCLIPTokens(path string) (*clipTokens, error) {
	t, err := clipbpe.Load(path)
	if err != nil {
		return nil, err
	}
	length := t.MaxLength()
	if length == 0 {
		length = clipLength
	}
	return &clipTokens{t, length}, nil
}

// Tokenize implements Tokenizer.
func (t *clipTokens) Tokenize(prompts []string) (ids, mask ort.Array, err error) {
	var allIDs, allMask []int64
	for _, p := range prompts {
		i, m, err := t.Encode(p, t.length)
		if err != nil {
			return ids, mask, fmt.Errorf("models: %w", err)
		}
		allIDs, allMask = append(allIDs, i...), append(allMask, m...)
	}
	shape := []int{len(prompts), t.length}
	return ort.Array{Shape: shape, Data: allIDs}, ort.Array{Shape: shape, Data: allMask}, nil
}

// Files implements FileLister: config.json and the weights that it is opened with.
func (c *CLIPText) Files(path string) ([]string, error) {
	return componentFiles(path, transformersStems, c.Variant)
}

// shortened keeps messages that quote a text readable.
func shortened(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + " …"
	}
	return s
}
