package guidance

import (
	"context"
	"errors"
	"fmt"

	"sagbench/sampling"
)

var _ sampling.Networked = (*Classifier)(nil)

// Classifier is classifier guidance: along the gradient of a classifier of noisy
// images towards the label that an image is to have,
//
//	Score = s ∇ₓ log p(y | x_t, t)
//
// at the state x_t itself, whatever other guidances do there. What a sampler
// makes of a score is its own: DDPM moves the mean by σ² Score with the variance
// of the unguided prediction, DDIM follows it in ε.
//
// A generator without classes can be guided as well: its images are given labels
// that only the classifier sees.
//
// Sources: Dhariwal and Nichol 2021 (arXiv:2105.05233), algorithms 1 and 2;
// openai/guided-diffusion scripts/classifier_sample.py cond_fn, whose
// classifier_scale is s. KU-CVLAB/Self-Attention-Guidance adds it to SAG as the
// same.
type Classifier struct {
	Scale    float64      `yaml:"scale" min:"-10000" max:"10000" doc:"s: 0 switches the guidance off, without a call of the classifier (the official classifier_scale)"`
	Model    sampling.Ref `yaml:"model" doc:"the classifier, as a model block: {family: classifier, checkpoint: FILE, image_size: 128, …}"`
	Interval `yaml:",inline"`

	network sampling.Classifier
}

// NewClassifier is classifier guidance with the official scale; the classifier
// is still to be named.
func NewClassifier() *Classifier { return &Classifier{Scale: 1} }

// Validate tells everything that is wrong with the options.
func (g *Classifier) Validate() error {
	f := sampling.Faults{Of: "classifier"}
	f.When(!finite(g.Scale), "scale is %g, expected a finite number (0 is off)", g.Scale)
	f.When(g.Model.IsZero(), "model is missing: name the classifier of noisy images as a model block, {family: classifier, checkpoint: FILE, …}")
	g.Interval.check(&f)
	return f.Join()
}

// Network implements sampling.Networked.
func (g *Classifier) Network() *sampling.Ref { return &g.Model }

// Attach implements sampling.Networked for a classifier.
func (g *Classifier) Attach(_ context.Context, network any) error {
	c, ok := network.(sampling.Classifier)
	if !ok {
		return errors.New("classifier: this network gives no gradient of a class's probability; expected one of family classifier")
	}
	g.network = c
	return nil
}

// Delta is the Score; where the scale is 0, nothing, without any network call.
func (g *Classifier) Delta(ctx context.Context, s *sampling.Step) (sampling.Delta, error) {
	if g.Scale == 0 || !g.Interval.holds(s) {
		return sampling.Delta{}, nil
	}
	if s.Schedule().Continuous() {
		return sampling.Delta{}, errors.New("guidance: classifier: a classifier of noisy images is told one of a number of timesteps, but the network of the row the time itself; expected one of the same process")
	}
	labels := s.Cond().Labels
	if labels == nil {
		return sampling.Delta{}, errors.New("guidance: classifier: the images have no labels to be guided to")
	}
	score, err := g.network.Gradient(ctx, s.X, s.T, labels)
	if err != nil {
		return sampling.Delta{}, fmt.Errorf("guidance: classifier: %w", err)
	}
	scale := float32(g.Scale)
	sampling.EachImage(score.Rows(), func(n int) {
		for j, v := range score.Row(n) {
			score.Row(n)[j] = v * scale
		}
	})
	return sampling.Delta{Score: score}, nil
}
