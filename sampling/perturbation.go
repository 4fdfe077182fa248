package sampling

import (
	"slices"
	"strings"
)

// A Kind of perturbation says what is wrong with a layer.
type Kind string

const (
	IdentityAttention Kind = "identity attention" // each position of an attention layer attends to itself alone: its output is the values
	BlurredQueries    Kind = "blurred queries"    // an attention layer's queries are blurred over the image
	SkippedBlock      Kind = "skipped block"      // a residual block's output is its input
)

// A Perturbation makes a network a worse one, in some layers, for some images of
// a call. The zero Perturbation is the network as it is.
type Perturbation struct {
	Kind   Kind
	Layers string  // module paths in the checkpoint, separated by commas: blocks.3.attn,blocks.4.attn
	Sigma  float64 // of BlurredQueries: standard deviation in positions of the layer; above MaxQuerySigma the queries are their mean
}

// MaxQuerySigma is the largest blur of queries that is computed as one; above it
// they are their mean over the image, as SusungHong/SEG-SDXL has it.
const MaxQuerySigma = 9999

// Perturb is a perturbation of the layers with the given module paths.
func Perturb(k Kind, sigma float64, layers []string) Perturbation {
	return Perturbation{Kind: k, Layers: strings.Join(layers, ","), Sigma: sigma}
}

// Paths are the module paths of the layers.
func (p Perturbation) Paths() []string { return strings.Split(p.Layers, ",") }

// A Perturber is a guidance that needs predictions of a perturbed network.
type Perturber interface {
	Guidance
	// Perturbation does not depend on the scale, so that the rows of a sweep over
	// scales run the same network.
	Perturbation() Perturbation
}

// PerturbationsOf are those that the guidances need, each once.
func PerturbationsOf(guidances []Guidance) []Perturbation {
	var all []Perturbation
	for _, g := range guidances {
		if p, ok := g.(Perturber); ok && !slices.Contains(all, p.Perturbation()) {
			all = append(all, p.Perturbation())
		}
	}
	return all
}

// Under is the condition of images for a perturbed network.
func (c Cond) Under(p Perturbation, images int) Cond {
	c.Perturbed = slices.Repeat([]Perturbation{p}, images)
	return c
}

// perturbations are those of as many images.
func (c Cond) perturbations(images int) []Perturbation {
	if c.Perturbed == nil {
		return make([]Perturbation, images)
	}
	return c.Perturbed
}
