package run

import (
	"context"
	"errors"
	"fmt"

	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/loop"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A Network is a row's generator, ready to run, with the networks of its
// guidances.
type Network struct {
	models.Generator
	Attached []any          // the networks of the guidances, in the order of plan.Row.Attachments
	opened   []models.Model // all of them
	classes  int
	stages   *loop.Stages                  // between the calls of the network, where states stay on its device; nil: they go through the host
	way      string                        // of the states, where the network's device is not the CPU; "" until images are drawn
	encoded  map[encodedText]sampling.Cond // of one image
}

// Classes is the number of classes that images are drawn with, those of a
// guidance's network where the generator knows none; 0 = images have no labels.
func (n *Network) Classes() int { return n.classes }

// Close closes the generator and the networks of the guidances.
func (n *Network) Close() {
	n.closeStages()
	for _, m := range n.opened {
		m.Close()
	}
}

// networkKeys tell the row's networks from those of other rows: networks with equal
// keys can be shared. contents are the hashes of their checkpoints.
func networkKeys(r *plan.Row, contents []string) ([]string, error) {
	var keys []string
	for i, n := range r.Networks() {
		key, err := n.Key(contents[i], NetworkOptions(r, i, ort.Options{}))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// NetworkOptions say how network i of the row's Networks is prepared: the layers
// that guidances read and perturb are those of network 0, which draws.
func NetworkOptions(r *plan.Row, i int, opt ort.Options) models.Options {
	o := models.Options{Options: opt}
	if i == 0 {
		o.Taps, o.Perturbations = r.Taps, r.Perturbations
	}
	return o
}

// OpenNetwork opens network i of the row's Networks.
func OpenNetwork(r *plan.Row, i int, opt ort.Options) (models.Model, error) {
	m, err := models.Open(&r.Networks()[i].Ref, NetworkOptions(r, i, opt))
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", r.Title(), err)
	}
	return m, nil
}

// prepareLoop chooses the way of the states: they stay on a device that has a memory of
// its own, where opt does not say otherwise.
func (n *Network) prepareLoop(opt ort.Options) {
	if opt.Resident() {
		n.stages = loop.NewStages(opt)
		return
	}
	if opt.HostLoop {
		if opt.HostLoop = false; opt.Resident() {
			n.way = throughHost + "--host-loop"
		}
	}
}

// closeStages closes the graphs between the calls of the network.
func (n *Network) closeStages() {
	if n != nil && n.stages != nil {
		n.stages.Close()
	}
}

// OpenRow opens all networks of a row.
func OpenRow(ctx context.Context, r *plan.Row, opt ort.Options) (*Network, error) {
	n := &Network{}
	for i := range r.Networks() {
		m, err := OpenNetwork(r, i, opt)
		if err != nil {
			n.Close()
			return nil, err
		}
		n.opened = append(n.opened, m)
	}
	assembled, err := Assemble(ctx, r, n.opened)
	if err != nil {
		n.Close()
		return nil, err
	}
	assembled.prepareLoop(opt)
	return assembled, nil
}

// Assemble checks that the opened Networks of a row fit each other, and hands the
// guidances theirs.
func Assemble(ctx context.Context, r *plan.Row, opened []models.Model) (*Network, error) {
	g, ok := opened[0].(models.Generator)
	if !ok {
		return nil, r.ModelBlock.Errorf("family %s draws no images; it can be used for evaluation only", r.Model.Family)
	}
	n := &Network{Generator: g, opened: opened}
	for _, m := range opened[1:] {
		n.Attached = append(n.Attached, m)
	}
	var err error
	if n.classes, err = r.Fit(ctx, g, n.Attached); err == nil {
		err = r.CheckLabels(n.classes)
	}
	return n, err
}

// Condition sets the predictor's conditions: the labels [images], nil where there
// are none, and what stands for ∅.
func Condition(ctx context.Context, p *sampling.Predictor, g models.Generator, labels []int64, images int) (err error) {
	p.Cond.Labels = labels
	if u, ok := g.(models.Unconditional); ok {
		p.Null, err = u.Null(ctx, images)
	}
	return err
}

// drawImages draws the images of a span: a function of the row's run id and their
// numbers alone. step is called with the number of steps that are done.
func drawImages(ctx context.Context, r *plan.Row, n *Network, at store.Span, step func(done, of int)) (models.Images, error) {
	b, err := begin(ctx, r, n, at)
	if err != nil {
		return models.Images{}, err
	}
	x, err := b.onDevice(ctx, step)
	if errors.Is(err, errHostsWay) {
		b.Trace = func(name string, t sampling.Timestep, _ tensor.Tensor) {
			if name == "x" {
				step(b.Schedule.Len()-t.Index, b.Schedule.Len())
			}
		}
		x, err = b.sample(ctx)
	}
	if err != nil {
		return models.Images{}, err
	}
	images, err := n.Pixels(ctx, x)
	if err != nil {
		err = n.explained(r, at, err)
	}
	return images, err
}

// A batch is a span of a row's images at its beginning.
type batch struct {
	*sampling.Predictor
	row     *plan.Row
	network *Network
	at      store.Span
	x       tensor.Tensor // x_T
	noise   sampling.Keyed
}

// begin is the batch of a span.
func begin(ctx context.Context, r *plan.Row, n *Network, at store.Span) (*batch, error) {
	p, err := r.Predictor(ctx, n, n.Process(), n.Attached)
	if err != nil {
		return nil, err
	}
	x, noise, labels, err := start(n, r.Labels.Labels, r.Seed, at)
	if err != nil {
		return nil, err
	}
	if err := Condition(ctx, p, n.Generator, labels, at.Len()); err != nil {
		return nil, fmt.Errorf("row %q: %w", r.Title(), err)
	}
	if err := n.Prompt(ctx, r, p, at); err != nil {
		return nil, err
	}
	p.Random = noise
	return &batch{p, r, n, at, x, noise}, nil
}

// sample is x_0, by way of the host.
func (b *batch) sample(ctx context.Context) (tensor.Tensor, error) {
	x, err := b.row.Sampler.Value.Sample(ctx, b.Predictor, b.x, b.noise)
	if err != nil {
		err = b.network.explained(b.row, b.at, err)
	}
	return x, err
}

// throughHost begins the way of states that do not stay on their device; the reason follows.
const throughHost = "states go through the host at each step: "

// errHostsWay says that a batch has to be drawn by way of the host.
var errHostsWay = errors.New("by way of the host")

// onDevice is x_0, whose states stay on the device; step is called as drawImages' is. The
// error is errHostsWay where that is not to be, and where something was not finite: the
// host's way, which looks at everything, tells what it was.
func (b *batch) onDevice(ctx context.Context, step func(done, of int)) (tensor.Tensor, error) {
	if b.network.stages == nil {
		return tensor.Tensor{}, errHostsWay
	}
	l, err := loop.New(b.Predictor, b.row.Sampler.Value, b.network.Generator, b.network.stages)
	if err != nil {
		b.network.way = throughHost + err.Error()
		return tensor.Tensor{}, errHostsWay
	}
	b.network.way = "states stay on the device"
	x, err := l.Sample(ctx, b.Predictor, b.x, b.noise, func(k int) { step(k, b.Schedule.Len()) })
	if errors.Is(err, loop.ErrNotFinite) {
		b.network.way = throughHost + "something was not finite on the device"
		return x, errHostsWay
	}
	if err != nil {
		err = b.network.explained(b.row, b.at, err)
	}
	return x, err
}

// explained is an error in drawing a span with the row and the images that it is
// about and, where a number was not finite, the one image and the network.
func (n *Network) explained(r *plan.Row, at store.Span, err error) error {
	var drawn *sampling.NotFinite
	if errors.As(err, &drawn) {
		return fmt.Errorf("row %q, image %d, %s: %w", r.Title(), at.From+drawn.Image, n.nameOf(r, drawn.Of), err)
	}
	var decoded *models.NotFinite
	if errors.As(err, &decoded) {
		decoded.Image += at.From
		return fmt.Errorf("row %q, after the last step: %w", r.Title(), err)
	}
	return fmt.Errorf("row %q, images %d to %d: %w", r.Title(), at.From, at.To-1, err)
}

// nameOf names what gave a prediction or a correction: a network of the row by its
// checkpoint, a guidance by its name.
func (n *Network) nameOf(r *plan.Row, of any) string {
	networks := r.Networks()
	for i, m := range n.opened {
		if of == any(m) {
			return "network " + networks[i].Checkpoint.Path
		}
	}
	for _, g := range r.Guidances {
		if of != any(g.Value) {
			continue
		}
		for i, a := range r.Attachments {
			if a.Name == g.Name {
				return fmt.Sprintf("guidance %s with network %s", g.Name, networks[1+i].Checkpoint.Path)
			}
		}
		return fmt.Sprintf("guidance %s of network %s", g.Name, networks[0].Checkpoint.Path)
	}
	return "network " + networks[0].Checkpoint.Path
}

// start is what the images of a span begin with, a function of the seed and their
// numbers: x_T [N,C,H,W], the noise of the steps, and labels [N], as chosen, nil where
// the generator knows no classes.
func start(g models.Generator, chosen sampling.Labels, seed uint64, at store.Span) (x tensor.Tensor, noise sampling.Keyed, labels []int64, err error) {
	noise.Seed = seed
	for i := at.From; i < at.To; i++ {
		noise.Images = append(noise.Images, i)
		if g.Classes() > 0 {
			labels = append(labels, chosen.Of(seed, i, g.Classes()))
		}
	}
	x = tensor.New(append([]int{at.Len()}, g.SampleShape()...)...)
	return x, noise, labels, noise.Fill(-1, x)
}

// NoiseInput is x_T, [n,C,H,W], and labels for n images of seed 0.
func NoiseInput(g models.Generator, n int) (tensor.Tensor, sampling.Cond, error) {
	x, _, labels, err := start(g, sampling.Labels{}, 0, store.Span{To: n})
	return x, sampling.Cond{Labels: labels}, err
}

// keptPrompts bounds the memory of embeddings: one of SDXL takes 0.6 MB.
const keptPrompts = 500

// Prompt sets the predictor's conditions to the embedded prompts of the images of a
// span, and ∅ of those that have a negative prompt to it. For a row without prompts
// it does nothing.
func (n *Network) Prompt(ctx context.Context, r *plan.Row, p *sampling.Predictor, at store.Span) error {
	if len(r.Prompts) == 0 {
		return nil
	}
	e, ok := n.Generator.(models.Prompted)
	if !ok {
		return r.ModelBlock.Errorf("family %s encodes no prompts", r.Model.Family)
	}
	var conds, nulls []sampling.Cond
	negative, blank := false, -1 // an image without a negative prompt
	for i := at.From; i < at.To; i++ {
		cond, err := n.encode(ctx, r, e, encodedText{r.PromptOf(i), false})
		if err != nil {
			return err
		}
		conds = append(conds, cond)
		if negative = negative || r.NegativeOf(i) != ""; r.NegativeOf(i) == "" {
			blank = i
		}
	}
	cond := sampling.Join(conds, 1)
	p.Cond.Context, p.Cond.Vector = cond.Context, cond.Vector
	switch {
	case !negative:
		return nil
	case blank >= 0 && p.Null.IsZero():
		return fmt.Errorf("row %q: image %d has no negative prompt, others have, and the network knows no ∅ without one", r.Title(), blank)
	}
	for i := at.From; i < at.To; i++ {
		if r.NegativeOf(i) == "" {
			nulls = append(nulls, p.Null.Pick([]int{i - at.From}))
			continue
		}
		null, err := n.encode(ctx, r, e, encodedText{r.NegativeOf(i), true})
		if err != nil {
			return err
		}
		nulls = append(nulls, null)
	}
	null := sampling.Join(nulls, 1)
	p.Null.Context, p.Null.Vector = null.Context, null.Vector
	return nil
}

// An encodedText is a prompt, or one that stands for ∅.
type encodedText struct {
	text     string
	negative bool
}

// encode is the condition of a text for one image. Each text goes through the encoder
// alone, so that no other text of a batch can change a bit, and only once.
func (n *Network) encode(ctx context.Context, r *plan.Row, e models.Prompted, t encodedText) (sampling.Cond, error) {
	if one, known := n.encoded[t]; known {
		return one, nil
	}
	encode := e.Encode
	if t.negative {
		encode = e.EncodeNegative
	}
	one, err := encode(ctx, []string{t.text})
	if err != nil {
		return one, fmt.Errorf("row %q, prompt %q: %w", r.Title(), t.text, err)
	}
	if n.encoded == nil {
		n.encoded = map[encodedText]sampling.Cond{}
	}
	if len(n.encoded) < keptPrompts {
		n.encoded[t] = one
	}
	return one, nil
}
