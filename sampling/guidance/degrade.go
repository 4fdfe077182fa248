package guidance

import (
	"fmt"
	"sync"

	"sagbench/models/tensor"
	"sagbench/sampling"
)

// degrade is x̂_t, [N,C,H,W], and the images for which it is not x_t.
func (g *SAG) degrade(s *sampling.Step, p sampling.Prediction) (xHat tensor.Tensor, moved []int, err error) {
	if len(s.X.Shape) != 4 {
		return tensor.Tensor{}, nil, fmt.Errorf("the state has shape %v, expected [N,C,H,W]", s.X.Shape)
	}
	d, err := g.degrader(s, p)
	if err != nil {
		return tensor.Tensor{}, nil, err
	}
	drawn, err := d.kind.drawn(s, d.masker.positions())
	if err != nil {
		return tensor.Tensor{}, nil, err
	}
	xHat = s.X.Like()
	changed := make([]bool, xHat.Rows())
	sampling.EachImage(xHat.Rows(), func(n int) {
		w := d.workspaces.Get().(*workspace)
		changed[n] = d.image(w, &degraded{xHat.Row(n), s.X.Row(n), p.Eps.Row(n), rowOf(p.Attn, n), rowOf(drawn, n)})
		d.workspaces.Put(w)
	})
	for n, c := range changed {
		if c {
			moved = append(moved, n)
		}
	}
	return xHat, moved, nil
}

// rowOf is image n of a tensor, nil of the zero tensor.
func rowOf(t tensor.Tensor, n int) []float32 {
	if t.IsZero() {
		return nil
	}
	return t.Row(n)
}

// degrader makes x̂_t of the step's images.
func (g *SAG) degrader(s *sampling.Step, p sampling.Prediction) (*degrader, error) {
	height, width := s.X.Shape[2], s.X.Shape[3]
	d := &degrader{
		kind: maskKinds[g.mask()], threshold: float32(g.MaskThreshold),
		blur: newBlur(height, width, g.BlurKernel, g.BlurSigma),
		c:    s.Schedule().At(s.T.Index), predicts: s.Predicts(), clip: s.ClipDenoised(),
	}
	if g.Clip != nil {
		d.clip = *g.Clip
	}
	d.workspaces.New = func() any { return d.blur.newWorkspace() }
	if !d.kind.mapped {
		return d, nil
	}
	if p.Attn.IsZero() {
		return nil, fmt.Errorf("the network returned no attention map; it has to be built with layer %q tapped", g.Layer)
	}
	var err error
	if d.masker, err = newMasker(p.Attn.Shape[1], height, width); err != nil {
		return nil, fmt.Errorf("layer %q: %w", g.Layer, err)
	}
	return d, nil
}

// A degrader makes x̂_t of the images of one step.
type degrader struct {
	kind       maskKind
	masker     masker // of masks that need a map
	threshold  float32
	blur       blur
	c          sampling.Coefficients
	predicts   sampling.Parametrization
	clip       bool
	workspaces sync.Pool
}

// A degraded is an image with what it is made of.
type degraded struct {
	xHat, x, output []float32 // [C,H,W]; output is the network's at x
	attention       []float32 // [positions]; nil where no layer is tapped
	drawn           []float32 // random numbers of the mask
}

// image sets xHat, and tells whether it is another image than x but for
// rounding: something was blurred or clipped.
func (d *degrader) image(w *workspace, im *degraded) (changed bool) {
	blurs := d.kind.choose(d, w, im)
	changed = blurs
	d.blur.need(w)
	size := len(w.mask)
	for c := 0; c < len(im.x); c += size {
		clipped := d.predicted(w, im.x[c:], im.output[c:])
		changed = changed || clipped
		if blurs {
			d.blur.blur(w)
		}
		for j, masked := range w.mask {
			x0 := w.xStart[j]
			if masked {
				x0 = w.blurred[j]
			}
			im.xHat[c+j] = d.c.Noised(x0, w.eps[j])
		}
	}
	return changed
}

// predicted sets w.xStart and w.eps to those of the first channel of x and the
// output, and tells whether x̂0 was clipped.
func (d *degrader) predicted(w *workspace, x, output []float32) (clipped bool) {
	size := len(w.mask)
	d.c.Split(d.predicts, x[:size], output[:size], w.xStart, w.eps)
	if d.clip {
		for j, x0 := range w.xStart {
			w.xStart[j] = sampling.Clip(x0)
			clipped = clipped || w.xStart[j] != x0
		}
	}
	return clipped
}
