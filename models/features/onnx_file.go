package features

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// ONNXFile is a feature network of the user's own: an .onnx file with one input
// of RGB images and outputs that are named here. Layout and size are read off
// the graph where it fixes them; the range of its pixels no graph tells.
type ONNXFile struct {
	Pool      string     `yaml:"pool" doc:"output [N,D] that FID, KID, precision and recall compare; empty = the graph's only output"`
	Spatial   string     `yaml:"spatial" doc:"output that sFID compares, flattened; empty = none"`
	Logits    string     `yaml:"logits" doc:"output [N,K] of class logits for the Inception Score; empty = none"`
	InputSize int        `yaml:"input_size" min:"0" max:"4096" doc:"height and width that images are resized to; 0 = those that the graph fixes"`
	Range     PixelRange `yaml:"range" doc:"what the graph takes black and white as: byte = 0 and 255, unit = 0 and 1, signed = -1 and 1, imagenet = unit less the mean over the deviation of ImageNet's channels; needed unless it takes uint8"`
}

// Validate tells everything that is wrong with the flags.
func (c *ONNXFile) Validate() error {
	if _, ok := pixelRanges[c.Range]; !ok && c.Range != "" {
		return fmt.Errorf("range is %q, expected byte, unit, signed or imagenet", c.Range)
	}
	return nil
}

// Resize implements Flags: that of torchvision on an image file.
func (c *ONNXFile) Resize() Resize { return PIL }

// Features implements Flags: only a run of the graph tells.
func (c *ONNXFile) Features(string) (pool, spatial int) { return 0, 0 }

// Files implements models.FileLister: weights may lie in files beside the graph.
func (c *ONNXFile) Files(path string) ([]string, error) {
	data, err := onnx.DataFiles(path)
	return append([]string{path}, data...), err
}

// Open implements Family.
func (c *ONNXFile) Open(path string, opt models.Options) (models.Model, error) {
	n, err := c.open(path, opt)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Extractor implements Flags: the graph is run once, which tells the width.
func (c *ONNXFile) Extractor(ctx context.Context, path string, opt models.Options) (Extractor, error) {
	n, err := c.open(path, opt)
	if err != nil {
		return nil, err
	}
	if err := n.probe(ctx); err != nil {
		n.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return n, nil
}

func (c *ONNXFile) open(path string, opt models.Options) (*onnxExtractor, error) {
	if opt.Weights != "" {
		return nil, fmt.Errorf("models: %s: weights %q: an .onnx file holds one set of weights; leave weights out", path, opt.Weights)
	}
	inputs, outputs, err := ort.Inspect(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	n := &onnxExtractor{pixels: c.Range, names: map[string]string{}}
	n.path = path
	n.Sessions = models.NewSessions(nil, func(key string) (*ort.Session, error) { return n.open(strings.Fields(key), opt) })
	err = errors.Join(n.input(inputs, c.InputSize), n.name(c, outputs))
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return n, nil
}

// maxFixedBatch bounds the images of a call where the graph fixes them, and maxInput
// the values of the smallest call: two images, or those that the graph fixes.
const (
	maxFixedBatch = 256
	maxInput      = 1 << 26
)

// An onnxExtractor is a feature network from an .onnx file.
type onnxExtractor struct {
	network
	pixels       PixelRange
	in           onnx.Info
	channelsLast bool
	names        map[string]string // of the graph's outputs, by Pool, Spatial, Logits
}

// input reads size, layout and element type off the graph.
func (n *onnxExtractor) input(inputs []onnx.Info, size int) error {
	if len(inputs) != 1 {
		return fmt.Errorf("the graph takes %d inputs, %s; expected one, images [N,3,H,W] or [N,H,W,3]", len(inputs), ports(inputs))
	}
	n.in = inputs[0]
	n.in.Shape = slices.Clone(n.in.Shape)
	s := n.in.Shape
	if len(s) != 4 || s[1] != 3 && s[3] != 3 {
		return fmt.Errorf("input %s; expected images [N,3,H,W] or [N,H,W,3]", ports(inputs))
	}
	if n.in.DType != checkpoint.F32 && n.in.DType != checkpoint.U8 {
		return fmt.Errorf("input %s; expected float32 or uint8: export the network with such an input", ports(inputs))
	}
	sides := s[2:4]
	if n.channelsLast = s[1] != 3; n.channelsLast {
		sides = s[1:3]
	}
	for i, have := range sides {
		switch {
		case have < 0 && size == 0:
			return fmt.Errorf("input %s leaves the size of images open; give input_size", ports(inputs))
		case have >= 0 && size != 0 && have != size:
			return fmt.Errorf("input_size %d, but input %s fixes another size", size, ports(inputs))
		case have < 0:
			sides[i] = size
		}
	}
	if n.size = sides[0]; sides[1] != n.size || n.size < 1 || n.size > maxSide {
		return fmt.Errorf("input %s; expected images that are square, of at most %d pixels", ports(inputs), maxSide)
	}
	if s[0] == 0 || s[0] > maxFixedBatch {
		return fmt.Errorf("input %s; expected any number of images, or 1 to %d at a time", ports(inputs), maxFixedBatch)
	}
	if values := max(2, s[0]) * 3 * n.size * n.size; values > maxInput {
		return fmt.Errorf("input %s: %d values a call, expected at most %d", ports(inputs), values, maxInput)
	}
	switch {
	case n.in.DType == checkpoint.U8 && n.pixels != "" && n.pixels != ByteRange:
		return fmt.Errorf("range %s, but input %s takes bytes", n.pixels, ports(inputs))
	case n.in.DType == checkpoint.U8:
		n.pixels = ByteRange
	case n.pixels == "":
		return errors.New("range is missing: byte, unit, signed or imagenet, as the network was trained; the graph cannot tell")
	}
	return nil
}

// name finds the outputs.
func (n *onnxExtractor) name(c *ONNXFile, outputs []onnx.Info) error {
	pool := c.Pool
	if pool == "" && len(outputs) == 1 {
		pool = outputs[0].Name
	}
	if pool == "" {
		return fmt.Errorf("pool is missing: which of the graph's outputs %s holds the features", ports(outputs))
	}
	var faults []error
	for key, name := range map[string]string{Pool: pool, Spatial: c.Spatial, Logits: c.Logits} {
		if name == "" {
			continue
		}
		at := slices.IndexFunc(outputs, func(o onnx.Info) bool { return o.Name == name })
		switch {
		case at < 0:
			faults = append(faults, fmt.Errorf("%s: the graph has no output %q; it has %s", key, name, ports(outputs)))
		case outputs[at].DType != checkpoint.F32:
			faults = append(faults, fmt.Errorf("%s: output %s; expected float32", key, ports(outputs[at:at+1])))
		}
		n.names[key] = name
	}
	n.outputs = slices.Sorted(maps.Keys(n.names))
	return errors.Join(faults...)
}

// ports lists inputs or outputs with shapes and types.
func ports(infos []onnx.Info) string {
	var all []string
	for _, i := range infos {
		var shape []string
		for axis, d := range i.Shape {
			switch {
			case d >= 0:
				shape = append(shape, fmt.Sprint(d))
			case axis == 0:
				shape = append(shape, "N")
			default:
				shape = append(shape, "?")
			}
		}
		kind := string(i.DType)
		if kind == "" {
			kind = "of another type"
		}
		all = append(all, fmt.Sprintf("%s [%s] %s", i.Name, strings.Join(shape, ","), kind))
	}
	return strings.Join(all, ", ")
}

// open prepares the graph for some outputs. The runtime says their shapes after a
// run: files are known to be wrong about them.
func (n *onnxExtractor) open(outputs []string, opt models.Options) (*ort.Session, error) {
	var infos []onnx.Info
	for _, key := range outputs {
		infos = append(infos, onnx.Info{Name: n.names[key], Shape: []int{unknownLength}, DType: checkpoint.F32})
	}
	return ort.OpenFile(n.path, []onnx.Info{n.in}, infos, opt.Options)
}

// unknownLength is a symbol that no input has.
const unknownLength = math.MinInt

// probe looks at two images, which tells the width of the features and whether
// the graph keeps images apart.
func (n *onnxExtractor) probe(ctx context.Context) error {
	x := tensor.New(append([]int{2}, n.InputShape()...)...)
	n.width = -1
	out, err := n.Run(ctx, x, n.outputs...)
	if err == nil {
		n.width = out[Pool].Tensor().RowLen()
	}
	return err
}

// InputShape implements Extractor.
func (n *onnxExtractor) InputShape() []int { return n.in.Shape[1:] }

// Input implements Extractor.
func (n *onnxExtractor) Input(r Resize, images models.Images) (tensor.Tensor, error) {
	x, err := resizedPixels(r, images, n.size)
	if err != nil {
		return x, err
	}
	n.pixels.apply(x)
	if n.channelsLast {
		x = channelsLast(x)
	}
	return x, nil
}

// Run implements Extractor.
func (n *onnxExtractor) Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error) {
	if err := n.has(outputs); err != nil {
		return nil, err
	}
	computed := []string{Pool}
	if slices.ContainsFunc(outputs, func(o string) bool { return o != Pool }) {
		computed = n.outputs
	}
	rows, batch := x.Rows(), x.Rows()
	if fixed := n.in.Shape[0]; fixed >= 0 {
		batch = fixed
	}
	all := map[string]ort.Array{}
	for first := 0; first < rows; first += batch {
		count := min(batch, rows-first)
		part := tensor.New(append([]int{batch}, x.Shape[1:]...)...) // a batch that the graph fixes is filled up with zeros
		copy(part.Data, x.Slice(first, first+count).Data)
		out, err := n.Sessions.Run(ctx, key(computed), map[string]ort.Array{n.in.Name: n.array(part)})
		if err != nil {
			return nil, err
		}
		for _, o := range outputs {
			t, err := n.rows(o, out[n.names[o]].Tensor(), batch)
			if err != nil {
				return nil, err
			}
			joined, _ := all[o].Data.([]float32)
			all[o] = ort.Array{Shape: []int{first + count, t.RowLen()}, Data: append(joined, t.Slice(0, count).Data...)}
		}
	}
	return all, n.finite(all)
}

// array is x in the graph's element type.
func (n *onnxExtractor) array(x tensor.Tensor) ort.Array {
	if n.in.DType == checkpoint.F32 {
		return ort.Floats(x)
	}
	bytes := make([]uint8, len(x.Data))
	for i, v := range x.Data {
		bytes[i] = uint8(min(max(math.Round(float64(v)), 0), 255))
	}
	return ort.Array{Shape: x.Shape, Data: bytes}
}

// rows is an output as [N,D].
func (n *onnxExtractor) rows(key string, t tensor.Tensor, images int) (tensor.Tensor, error) {
	switch {
	case len(t.Shape) < 2 || t.Shape[0] != images || t.RowLen() == 0:
		return t, fmt.Errorf("output %s has shape %v for %d images; expected a row of features for each", n.names[key], t.Shape, images)
	case key != Spatial && t.Shape[1] != t.RowLen():
		return t, fmt.Errorf("output %s has shape %v; expected [N,D]: pool it over the image, as %s compares one vector an image", n.names[key], t.Shape, key)
	case key == Pool && n.width > 0 && t.RowLen() != n.width:
		return t, fmt.Errorf("output %s has %d features, and had %d before", n.names[key], t.RowLen(), n.width)
	}
	return tensor.Of(t.Data, images, t.RowLen()), nil
}

// Forward implements Model: images uint8 [N,H,W,3] → every output under the name
// of the resize, pil.pool.
func (n *onnxExtractor) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	return forward(ctx, n, in, PIL)
}
