package guidance

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"sagbench/sampling"
)

// What follows tells guidances to package loop, which computes them on a device: the same
// arithmetic as Delta, as matrices and numbers. A guidance that is not here goes through
// the host.

// A Difference is a guidance that adds Scale·(ε_c − ε_∅) to the network's output.
type Difference struct {
	Scale    float32
	Channels int // the first ones, which alone are guided; 0 for all
}

// Difference is the guidance as one; the error says why it is none.
func (g *CFG) Difference() (Difference, error) {
	switch {
	case !g.Network().IsZero():
		return Difference{}, errors.New("takes ε_∅ from another network")
	case g.Rescale != 0:
		return Difference{}, errors.New("rescales")
	case g.Space != "" && g.Space != output:
		return Difference{}, fmt.Errorf("takes the difference in %s", g.Space)
	}
	return Difference{float32(g.Scale - 1), g.Channels}, nil
}

// On tells whether the guidance is on at the step.
func (g *CFG) On(s *sampling.Step) bool { return g.on(s) }

// A Degradation is how SAG makes x̂_t of images of H×W pixels.
type Degradation struct {
	Scale      float32
	Vertical   []float32 // [H,H]: the blur of a column of pixels
	Horizontal []float32 // [W,W]: of a row, on its right
	Masked     bool      // by the attention map; else all is blurred
	Threshold  float32
	Grid       [2]int    // rows and columns of the map
	Rows       []float32 // [H,rows]: 1 where a pixel's row lies
	Columns    []float32 // [columns,W]
	Clip       bool      // x̂0, to [-1,1]
	InEps      bool      // the difference is one of ε
}

// Degrading says why the guidance's x̂_t is no Degradation; nil where it is one.
func (g *SAG) Degrading() error {
	if name := g.mask(); name != selfAttention && name != noMask {
		return fmt.Errorf("has the mask %s", name)
	}
	return nil
}

// Degradation is the guidance's at images of H×W pixels, under an attention map of as many
// positions; 0 where there is none.
func (g *SAG) Degradation(s *sampling.Step, height, width, positions int) (Degradation, error) {
	if err := g.Degrading(); err != nil {
		return Degradation{}, err
	}
	kind := maskKinds[g.mask()]
	b := newBlur(height, width, g.BlurKernel, g.BlurSigma)
	d := Degradation{Scale: float32(g.Scale), Vertical: b.vertical.matrix(false), Horizontal: b.horizontal.matrix(true),
		Masked: kind.mapped, Threshold: float32(g.MaskThreshold), Clip: s.ClipDenoised(), InEps: g.inEps(s)}
	if g.Clip != nil {
		d.Clip = *g.Clip
	}
	if !d.Masked {
		return d, nil
	}
	m, err := newMasker(positions, height, width)
	if err != nil {
		return d, fmt.Errorf("layer %q: %w", g.Layer, err)
	}
	d.Grid = [2]int{m.gridHeight, m.gridWidth}
	d.Rows, d.Columns = make([]float32, height*m.gridHeight), make([]float32, m.gridWidth*width)
	for y, r := range m.rows {
		d.Rows[y*m.gridHeight+r] = 1
	}
	for x, c := range m.columns {
		d.Columns[c*width+x] = 1
	}
	return d, nil
}

// Key tells the degradation from others.
func (d Degradation) Key() string {
	h := sha256.New()
	fmt.Fprint(h, d.Scale, d.Masked, d.Threshold, d.Grid, d.Clip, d.InEps)
	for _, matrix := range [][]float32{d.Vertical, d.Horizontal, d.Rows, d.Columns} {
		binary.Write(h, binary.LittleEndian, matrix)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Degrades is the condition of the prediction that is degraded at the step, and whether
// the guidance is on.
func (g *SAG) Degrades(s *sampling.Step) (c sampling.Cond, on bool, err error) {
	if !g.on(s) {
		return c, false, nil
	}
	c, err = g.condition(s)
	return c, true, err
}

// matrix is R, [n,n], or its transpose.
func (a *axis) matrix(transposed bool) []float32 {
	r := make([]float32, a.n*a.n)
	set := func(i, j int, v float32) {
		if transposed {
			i, j = j, i
		}
		r[i*a.n+j] += v
	}
	for i, row := range a.rows {
		for k, t := range row.taps {
			j := row.from + k
			near, far := t.even+t.odd, t.even-t.odd // of x_j and of its mirror image, which for the middle is x_j too
			set(i, j, near)
			set(i, a.n-1-j, far)
			if i != a.n-1-i {
				set(a.n-1-i, a.n-1-j, near)
				set(a.n-1-i, j, far)
			}
		}
	}
	return r
}
