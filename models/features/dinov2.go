package features

import (
	"context"
	"fmt"
	"math"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// DINOv2 is the vision transformer that FD-DINOv2 is measured with (Oquab et
// al., arXiv 2304.07193): facebookresearch/dinov2 DinoVisionTransformer under
// the names of its published checkpoints, dinov2_vitl14_pretrain.pth and its
// relatives with or without registers.
type DINOv2 struct {
	InputSize int `yaml:"input_size" min:"1" max:"1024" doc:"height and width that images are resized to, a multiple of the patch size 14; 224 in dgm-eval"`
}

func newDINOv2() *DINOv2 { return &DINOv2{InputSize: 224} }

// dinoHead is the number of channels of an attention head in every published
// network.
const dinoHead = 64

// dinoNetworks are the published networks: name, width, blocks, and whether the
// perceptrons are SwiGLU.
var dinoNetworks = []struct {
	name          string
	width, blocks int
	swiGLU        bool
}{
	{"ViT-S/14", 384, 12, false},
	{"ViT-B/14", 768, 12, false},
	{"ViT-L/14", 1024, 24, false},
	{"ViT-g/14", 1536, 40, true},
}

// A dinoShape is a network's geometry as its checkpoint tells it.
type dinoShape struct {
	width, blocks, patch int
	grid                 int // positions a side that were trained: 37 of 518 pixels
	registers            int
	hidden               int // width of the perceptrons
	swiGLU               bool
}

// shapeOfDINOv2 reads the geometry off a checkpoint.
func shapeOfDINOv2(sd checkpoint.StateDict) (dinoShape, error) {
	var s dinoShape
	var faults []string
	need := func(key string, axes int) []int {
		if shape := sd[key].Shape; len(shape) == axes {
			return shape
		}
		faults = append(faults, fmt.Sprintf("%s with %d axes", key, axes))
		return make([]int, axes)
	}
	patch, positions := need("patch_embed.proj.weight", 4), need("pos_embed", 3)
	s.width, s.patch = patch[0], patch[2]
	s.grid = int(math.Sqrt(float64(max(positions[1]-1, 0))))
	hidden := "blocks.0.mlp.fc1.weight"
	if s.swiGLU = sd.Has("blocks.0.mlp.w12.weight"); s.swiGLU {
		hidden = "blocks.0.mlp.w12.weight"
	}
	if s.hidden = need(hidden, 2)[0]; s.swiGLU {
		s.hidden /= 2
	}
	if registers := sd["register_tokens"].Shape; len(registers) == 3 {
		s.registers = registers[1]
	}
	s.blocks = sd.Count("blocks.%d.norm1.weight")
	switch {
	case len(faults) > 0:
		return s, fmt.Errorf("expected a DINOv2 checkpoint such as dinov2_vitl14_pretrain.pth, but there is no %s", strings.Join(faults, " and no "))
	case max(s.width, s.hidden/4, 64*s.grid, 64*s.registers, 256*s.patch) > 1<<16:
		return s, fmt.Errorf("patch_embed.proj.weight %v, pos_embed %v, perceptrons of %d and %d registers: no DINOv2 is as large", patch, positions, s.hidden, s.registers)
	case s.patch < 1 || s.width < 1 || s.width%dinoHead != 0:
		return s, fmt.Errorf("patch_embed.proj.weight %v: expected a multiple of %d channels, which is an attention head", patch, dinoHead)
	case s.grid < 1 || s.grid*s.grid != positions[1]-1:
		return s, fmt.Errorf("pos_embed %v: expected one position for the class token and a square of them for the patches", positions)
	}
	return s, nil
}

// name is that of the published network with this geometry.
func (s dinoShape) name() string {
	for _, n := range dinoNetworks {
		if n.width == s.width && n.blocks == s.blocks && n.swiGLU == s.swiGLU {
			return n.name
		}
	}
	return fmt.Sprintf("%d blocks of width %d", s.blocks, s.width)
}

// Parameters lists the parameters of a published network, such as ViT-L/14, by
// key with their shapes.
func (c *DINOv2) Parameters(name string) (map[string][]int, error) {
	for _, n := range dinoNetworks {
		if n.name != name {
			continue
		}
		s := dinoShape{width: n.width, blocks: n.blocks, patch: 14, grid: 37, hidden: 4 * n.width, swiGLU: n.swiGLU}
		if n.swiGLU {
			s.hidden = (s.hidden*2/3 + 7) / 8 * 8
		}
		return onnx.Parameters(func(m *onnx.Module) { s.build(m, c.InputSize) })
	}
	return nil, fmt.Errorf("models: dinov2: no network is called %q", name)
}

// Resize implements Flags: dgm-eval's.
func (c *DINOv2) Resize() Resize { return PIL }

// Features implements Flags.
func (c *DINOv2) Features(path string) (pool, spatial int) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	s, err := shapeOfDINOv2(f.Tensors)
	if err != nil {
		return 0, 0
	}
	return s.width, 0
}

// Open implements Family.
func (c *DINOv2) Open(path string, opt models.Options) (models.Model, error) {
	return c.open(path, opt)
}

// Extractor implements Flags.
func (c *DINOv2) Extractor(_ context.Context, path string, opt models.Options) (Extractor, error) {
	return c.open(path, opt)
}

func (c *DINOv2) open(path string, opt models.Options) (Extractor, error) {
	f, err := checkpoint.OpenSet(path, opt.Weights)
	if err != nil {
		return nil, err
	}
	s, err := shapeOfDINOv2(f.Tensors)
	if err == nil && (c.InputSize < s.patch || c.InputSize%s.patch != 0 || c.InputSize > maxSide) {
		err = fmt.Errorf("input_size %d: expected a multiple of the patch size %d", c.InputSize, s.patch)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	sessions := fileSessions(f, opt, func(m *onnx.Module, _ []string) { s.build(m, c.InputSize) })
	n := &dinoNet{network{sessions, path, f, c.InputSize, s.width, []string{Pool}}}
	if err := n.Prepare(Pool); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Guess implements Guesser.
func (c *DINOv2) Guess(sd checkpoint.StateDict) (models.Guess, bool) {
	s, err := shapeOfDINOv2(sd)
	if err != nil {
		return models.Guess{}, false
	}
	return models.Guess{
		Evidence:   fmt.Sprintf("cls_token, pos_embed and blocks with ls1.gamma of DINOv2: %s, %d registers", s.name(), s.registers),
		Flags:      []models.Flag{models.NewFlag("input_size", newDINOv2().InputSize)},
		Mismatches: models.Mismatches(sd, nil, func(m *onnx.Module) { s.build(m, newDINOv2().InputSize) }),
	}, true
}

// A dinoNet is a DINOv2 that is ready to run.
type dinoNet struct{ network }

var _ Extractor = (*dinoNet)(nil)

// build is DinoVisionTransformer.forward_features: x [N,3,S,S] → pool [N,D],
// x_norm_clstoken.
func (s dinoShape) build(m *onnx.Module, size int) {
	x := m.Input("x", checkpoint.F32, onnx.Batch, 3, size, size)
	m.Ignore("mask_token")
	x = s.embed(m, x)
	for i := range s.blocks {
		x = s.block(m.In("blocks.%d", i), x, i == s.blocks-1)
	}
	m.Output(Pool, m.Reshape(m.In("norm").LayerNorm(x, 1e-6), onnx.Batch, s.width))
}

// embed is prepare_tokens_with_masks: x [N,3,S,S] → tokens [N,T,D]: class,
// registers, patches.
func (s dinoShape) embed(m *onnx.Module, x onnx.Value) onnx.Value {
	x = m.In("patch_embed.proj").Conv2D(x, s.width, s.patch, s.patch, 0) // [N, D, P, P]
	side := x.Dim(2)
	x = m.Transpose(m.Reshape(x, onnx.Batch, s.width, side*side), 0, 2, 1)

	positions := m.Param("pos_embed", 1, 1+s.grid*s.grid, s.width)
	class := m.Add(m.Param("cls_token", 1, 1, s.width), m.Slice(positions, 1, 0, 1))
	rows := []onnx.Value{class}
	if s.registers > 0 {
		rows = append(rows, m.Param("register_tokens", 1, s.registers, s.width))
	}
	patches := m.Slice(positions, 1, 1, 1+s.grid*s.grid)
	if side != s.grid {
		weights := positionWeights(s.grid, side, s.registers > 0)
		patches = m.MatMul(m.Const(weights, side*side, s.grid*s.grid), patches)
	}
	return m.Add(m.PadFront(x, 1, 1+s.registers), m.Concat(1, append(rows, patches)...))
}

// block is a transformer block with LayerScale: x [N,T,D] → the same shape; of
// the last one, only the class token [N,1,D].
func (s dinoShape) block(m *onnx.Module, x onnx.Value, last bool) onnx.Value {
	h := m.In("norm1").LayerNorm(x, 1e-6)
	qkv := m.Split(m.In("attn.qkv").Linear(h, 3*s.width), 2, 3)
	if last {
		x, qkv[0] = m.Slice(x, 1, 0, 1), m.Slice(qkv[0], 1, 0, 1)
	}
	h = m.In("attn.proj").Linear(m.Attention(qkv[0], qkv[1], qkv[2], s.width/dinoHead), s.width)
	x = m.Add(x, m.Mul(h, m.In("ls1").Param("gamma", s.width)))

	h = m.In("norm2").LayerNorm(x, 1e-6)
	mlp := m.In("mlp")
	if s.swiGLU {
		gates := m.Split(mlp.In("w12").Linear(h, 2*s.hidden), 2, 2)
		h = mlp.In("w3").Linear(m.Mul(m.SiLU(gates[0]), gates[1]), s.width)
	} else {
		h = mlp.In("fc2").Linear(m.GELU(mlp.In("fc1").Linear(h, s.hidden)), s.width)
	}
	return m.Add(x, m.Mul(h, m.In("ls2").Param("gamma", s.width)))
}

// Input implements Extractor: torchvision's ToTensor and Normalize.
func (n *dinoNet) Input(r Resize, images models.Images) (tensor.Tensor, error) {
	x, err := resizedPixels(r, images, n.size)
	if err == nil {
		ImageNetRange.apply(x)
	}
	return x, err
}

// Forward implements Model: images uint8 [N,H,W,3] → pil.pool [N,D].
func (n *dinoNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return forward(ctx, n, in, PIL)
}

// positionWeights is interpolate_pos_encoding as a matrix [side²,grid²] that is
// applied to the patches' position embeddings. Networks with registers are
// published for antialiased interpolation to a size, the others for plain
// bicubic interpolation by the factor (side+0.1)/grid.
func positionWeights(grid, side int, antialias bool) []float32 {
	axis := torchBicubic(grid, side, float64(side)+0.1)
	if antialias {
		axis = make([]float32, side*grid)
		for i, t := range bicubicTaps[float32](grid, side) {
			for j, w := range t.weights {
				axis[i*grid+t.first+j] = float32(w)
			}
		}
	}
	w := make([]float32, side*side*grid*grid)
	for i := range side * side {
		for j := range grid * grid {
			w[i*grid*grid+j] = axis[i/side*grid+j/grid] * axis[i%side*grid+j%grid]
		}
	}
	return w
}

// torchBicubic is torch's interpolate(mode="bicubic", align_corners=False) by
// the factor scaled/in, as weights [out,in]: the Keys kernel with a = −0.75 and
// borders repeated, in float32 (aten UpSample.h cubic_convolution1).
func torchBicubic(in, out int, scaled float64) []float32 {
	const a = -0.75
	near := func(x float32) float32 { return ((a+2)*x-(a+3))*x*x + 1 }
	far := func(x float32) float32 { return ((a*x-5*a)*x+8*a)*x - 4*a }
	step := float32(1 / (scaled / float64(in)))
	w := make([]float32, out*in)
	for i := range out {
		source := step*(float32(i)+0.5) - 0.5
		first := math.Floor(float64(source))
		t := source - float32(first)
		for j, v := range []float32{far(t + 1), near(t), near(1 - t), far(2 - t)} {
			w[i*in+min(max(int(first)-1+j, 0), in-1)] += v
		}
	}
	return w
}
