// Package features holds the networks that images are compared with. Images go
// in, an evaluator's resize brings them to the network's size and range, and
// features come out, by the names of the metrics' inputs: Pool, Spatial, Logits.
package features

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// An Extractor is a network that images are compared with: images go in,
// features come out. It looks at images of one size, to which Input brings
// others.
type Extractor interface {
	models.Model
	// Width is the number of pool features of an image.
	Width() int
	// Outputs lists what Run can return; Pool is always among it.
	Outputs() []string
	// InputShape is the shape of one image as Run takes it, such as [3,S,S].
	InputShape() []int
	// Input brings images, one size for all, to InputShape and the network's
	// range. It may be called from several goroutines.
	Input(r Resize, images models.Images) (tensor.Tensor, error)
	// Run computes outputs of what Input gives.
	Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error)
	// Rest gives the memory of the network's graphs back until the next Run, half
	// a gigabyte and more at full size.
	Rest()
}

// A Classifying Extractor ends in a linear layer over its pool features.
type Classifying interface {
	Extractor
	// ClassWeight is the layer's weight [K,Width], without its bias.
	ClassWeight() ([]float32, error)
}

// A Described Extractor has a name of its own among the published networks of its
// kind, and may have taken what its files do not say.
type Described interface {
	Extractor
	Name() string    // ViT-L/14@336px
	Notes() []string // what was taken, for people and results
}

// A Texting Extractor embeds texts in the space of its pool features.
type Texting interface {
	Extractor
	// CheckTexts is an error where it cannot, as there is no text network.
	CheckTexts() error
	// TextIDs are the tokens of texts in a form, [N,L], and how many of the texts
	// have more of them than the network takes.
	TextIDs(texts []string, form TextForm) (ids ort.Array, cut int, err error)
	// Texts are the embeddings [N,Width] of texts in a form, not normalized. tick is
	// told how many more are done.
	Texts(ctx context.Context, texts []string, form TextForm, tick func(int)) (tensor.Tensor, error)
}

// Flags are a Family of feature networks.
type Flags interface {
	models.Family
	// Extractor prepares the network whose weights lie at path. What it computes for
	// that ends with ctx.
	Extractor(ctx context.Context, path string, opt models.Options) (Extractor, error)
	// Resize is how the authors of the network's scores resize images.
	Resize() Resize
	// Features is how many pool and spatial features of an image the network at
	// path has; 0 where its file does not tell.
	Features(path string) (pool, spatial int)
}

// A Sized Flags can leave the size of the network's images to its file.
type Sized interface {
	Flags
	// Adopt sets the size, where it is not set, to that of the network at path with a
	// set of weights, so that results name it. It stays unset where the file does not
	// tell.
	Adopt(path, weights string)
}

// A Network is a kind of network that images are compared with: a row of the
// table that experiments, the command line, results and docs are made from.
type Network struct {
	Name  string // of its block in an experiment, and in results
	Title string // for people
	Doc   string // of the block
	// File is the file that its authors publish, "" for a network of the user's
	// own. Usage is the help of the flag --NAME that takes the file; "": the file
	// is the value of --network, which ends in Suffix.
	File, Usage, Suffix string
	Size                string // what --input-size 0 stands for
	Folder              bool   // its checkpoint may be a folder
	// UsualWidth and UsualSide are the features of an image and the height and width
	// of the network that published numbers are of; 0 where there is no such network.
	UsualWidth, UsualSide int
	// FollowsProtocol: an evaluator's protocol says how images are resized.
	FollowsProtocol bool
	Arguments       []Argument
	New             func() Flags // with the authors' defaults
}

// An Argument is a flag of the command line that sets keys of the network's
// block: --range VALUE the one key that there is, --output KEY=VALUE one of
// several.
type Argument struct {
	Flag, Usage string
	Keys        []string
}

// Networks are the feature networks; the first is the one whose statistics
// references hold that do not say of which network they are.
var Networks = []Network{
	{
		Name: "inception", Title: "Inception network", Doc: "the network that images are compared with: the FID Inception with pytorch-fid's names",
		File: "pt_inception-2015-12-05-6726825d.pth", Usage: "weights of the FID Inception, with pytorch-fid's names",
		Size: "the network's own (inception)", UsualWidth: officialWidth, UsualSide: officialSize, FollowsProtocol: true,
		New: func() Flags { return newInception() },
	},
	{
		Name: "dinov2", Title: "DINOv2 network", Doc: "the network that fd_dinov2 compares images with, and all metrics with `network: dinov2`: DINOv2 as published; FD-DINOv2 is of ViT-L/14 without registers",
		File: "dinov2_vitl14_pretrain.pth", Usage: "weights of DINOv2 ViT-L/14 as published, for fd_dinov2 and --network dinov2",
		Size: "224 (dinov2)", UsualWidth: 1024, UsualSide: 224,
		New: func() Flags { return newDINOv2() },
	},
	{
		Name: "clip", Title: "CLIP network", Doc: "the network that cmmd and clip_score take, and all metrics with `network: clip`: a CLIP with a vision transformer, as a folder of transformers or OpenCLIP or as one file with OpenCLIP's or OpenAI's names",
		File: "clip-vit-large-patch14-336", Usage: "CLIP as published, a folder or a file, for cmmd, clip_score and --network clip",
		Size: "the network's own (clip)", Folder: true,
		New: func() Flags { return &CLIP{} },
	},
	{
		Name: "onnx", Title: "feature network", Doc: "a feature network of your own, for `network: onnx`: an .onnx file that takes RGB images",
		Suffix: ".onnx", Size: "those of the .onnx file",
		Arguments: []Argument{
			{"output", "outputs of the .onnx file: pool=NAME, and spatial=NAME for sFID, logits=NAME for IS", []string{Pool, Spatial, Logits}},
			{"range", "range in which the .onnx file takes pixels: byte (0 to 255), unit (0 to 1), signed (-1 to 1) or imagenet", []string{"range"}},
		},
		New: func() Flags { return &ONNXFile{} },
	},
}

// maxSide is the largest image that a network may ask for, so that a mistyped
// number is an error.
const maxSide = 1 << 12

// Of are outputs of a network for images, one size for all.
func Of(ctx context.Context, x Extractor, r Resize, images models.Images, outputs ...string) (map[string]ort.Array, error) {
	in, err := x.Input(r, images)
	if err != nil {
		return nil, err
	}
	return x.Run(ctx, in, outputs...)
}

// A network is what all Extractors here have in common. Its sessions are told
// apart by the outputs that they compute, see key.
type network struct {
	*models.Sessions[string]
	path    string           // for messages
	file    *checkpoint.File // nil where the graph itself is a file
	size    int              // height and width of its images
	width   int              // pool features of an image
	outputs []string
}

// key names the session of some outputs.
func key(outputs []string) string { return strings.Join(outputs, " ") }

// fileSessions are sessions of a checkpoint's weights, whose graphs build
// describes. Errors name the file.
func fileSessions(f *checkpoint.File, opt models.Options, build func(m *onnx.Module, outputs []string)) *models.Sessions[string] {
	opt.Content = f.SHA256
	return models.NewSessions(f.Tensors, func(key string) (*ort.Session, error) {
		m, err := onnx.Build(f.Tensors, func(m *onnx.Module) { build(m, strings.Fields(key)) })
		if err != nil {
			return nil, fmt.Errorf("models: %s: %w", f.Path, err)
		}
		return ort.Open(m, opt.Options)
	})
}

// Width implements Extractor.
func (n *network) Width() int { return n.width }

// Outputs implements Extractor.
func (n *network) Outputs() []string { return n.outputs }

// InputShape implements Extractor.
func (n *network) InputShape() []int { return []int{3, n.size, n.size} }

// Run implements Extractor.
func (n *network) Run(ctx context.Context, x tensor.Tensor, outputs ...string) (map[string]ort.Array, error) {
	if err := n.has(outputs); err != nil {
		return nil, err
	}
	out, err := n.Sessions.Run(ctx, key(outputs), map[string]ort.Array{"x": ort.Floats(x)})
	if err == nil {
		err = n.finite(out)
	}
	return out, err
}

// finite is an error where an output holds a NaN or an infinity.
func (n *network) finite(out map[string]ort.Array) error {
	for _, o := range slices.Sorted(maps.Keys(out)) {
		if err := models.CheckFinite(out[o].Tensor(), n.path, "output "+o); err != nil {
			return err
		}
	}
	return nil
}

// has is an error where the network lacks one of the outputs.
func (n *network) has(outputs []string) error {
	for _, o := range outputs {
		if !slices.Contains(n.outputs, o) {
			return fmt.Errorf("models: %s has no output %q; it has %s", n.path, o, strings.Join(n.outputs, ", "))
		}
	}
	return nil
}

// Close implements Model.
func (n *network) Close() {
	n.Sessions.Close()
	if n.file != nil {
		n.file.Close()
	}
}

// forward is Model.Forward of an Extractor: images uint8 [N,H,W,3] → every output
// under the name of its resize, such as pil.pool.
func forward(ctx context.Context, x Extractor, in map[string]ort.Array, resizes ...Resize) (map[string]ort.Array, error) {
	images, err := models.ImagesIn(in)
	if err != nil {
		return nil, err
	}
	out := map[string]ort.Array{}
	for _, r := range resizes {
		o, err := Of(ctx, x, r, images, x.Outputs()...)
		if err != nil {
			return nil, err
		}
		for k, v := range o {
			out[string(r)+"."+k] = v
		}
	}
	return out, nil
}
