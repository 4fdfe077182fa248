package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/models/tensor"
	"sagbench/sampling"
)

// An attachment is the network that a guidance of the row has of its own.
type attachment struct {
	netSpec
	name     string // of the guidance
	guidance sampling.Networked
}

// readAttachments decodes the model blocks of the row's guidances.
func (r *row) readAttachments() error {
	r.attachments = nil
	var faults []error
	for _, g := range r.guidances {
		n, ok := g.Value.(sampling.Networked)
		if !ok || n.Network().IsNull() {
			continue
		}
		s, err := decodeNet(n.Network())
		faults = append(faults, err)
		r.attachments = append(r.attachments, attachment{s, g.Name, n})
	}
	return configs.Join(faults...)
}

// attach hands the guidances their networks, in the order of the attachments.
func (r *row) attach(networks []any) error {
	if len(networks) != len(r.attachments) {
		return fmt.Errorf("row %q: %d networks for the guidances, which need %d", r.title(), len(networks), len(r.attachments))
	}
	var faults []error
	for i, a := range r.attachments {
		if err := a.guidance.Attach(networks[i]); err != nil {
			faults = append(faults, a.guidance.Network().Errorf("%w", err))
		}
	}
	return configs.Join(faults...)
}

// attachmentOf is the index of a guidance's network; -1 where it has none.
func (r *row) attachmentOf(name string) int {
	return slices.IndexFunc(r.attachments, func(a attachment) bool { return a.name == name })
}

// guidanceIdentity is what run ids know of a guidance: its options, where a
// network stands for the content of its checkpoint.
func (r *row) guidanceIdentity(g configs.Named[sampling.Guidance], contents []string) (any, error) {
	options, err := settled(g.Value)
	i := r.attachmentOf(g.Name)
	if err != nil || i < 0 {
		return options, err
	}
	a := &r.attachments[i]
	flags, err := a.effective()
	if err != nil {
		return nil, err
	}
	options["model"], err = configs.Canonical(attachedIdentity{a.Family, flags, contents[1+i]})
	return options, err
}

// An attachedIdentity is what run ids know of a guidance's network.
type attachedIdentity struct {
	Family     string                     `yaml:"family"`
	Flags      map[string]json.RawMessage `yaml:"flags"`
	Checkpoint string                     `yaml:"checkpoint"` // sha256 of the content
}

// guidanceConfig is a guidance with every default written out.
func (r *row) guidanceConfig(g configs.Named[sampling.Guidance]) (any, error) {
	i := r.attachmentOf(g.Name)
	if i < 0 {
		return g.Value, nil
	}
	options, err := fieldsOf(g.Value)
	if err != nil {
		return nil, err
	}
	model, err := r.attachments[i].settings()
	if err != nil {
		return nil, err
	}
	options["model"], err = configs.Canonical(model)
	return options, err
}

// classes is the number of classes that the row's images are drawn with: that of
// the generator, or of a guidance's network where the generator knows none; 0
// for images without labels.
func (r *row) classes(g models.Generator, attached []any) (int, error) {
	classes := g.Classes()
	for i, a := range attached {
		labelled, ok := a.(interface{ Classes() int })
		if !ok || labelled.Classes() == 0 || labelled.Classes() == classes {
			continue
		}
		if classes > 0 {
			return 0, r.attachments[i].guidance.Network().Errorf("this network knows %d classes, the others of the row %d: an image has one label", labelled.Classes(), classes)
		}
		classes = labelled.Classes()
	}
	return classes, nil
}

// agrees is an error unless attachment i sees what the generator draws, and,
// where it draws as well, makes the same of every timestep: guidances compare the
// two.
func (r *row) agrees(i int, g models.Generator, attached any) error {
	at := r.attachments[i].guidance.Network()
	if a, ok := attached.(interface{ SampleShape() []int }); ok && !slices.Equal(g.SampleShape(), a.SampleShape()) {
		return at.Errorf("this network is one of images or latents of %v, that of the row of %v; expected the same", a.SampleShape(), g.SampleShape())
	}
	a, ok := attached.(models.Generator)
	if !ok {
		return nil
	}
	ours, theirs := g.Process(), a.Process()
	if ours.Predicts != theirs.Predicts {
		return at.Errorf("this network predicts %s, that of the row %s; expected the same", theirs.Predicts, ours.Predicts)
	}
	s, err := r.sampler.Value.Schedule(ours.Schedule)
	other, errOther := r.sampler.Value.Schedule(theirs.Schedule)
	if err := errors.Join(err, errOther); err != nil {
		return at.Errorf("%w", err)
	}
	for k := range s.Len() {
		if k >= other.Len() || s.Timestep(k) != other.Timestep(k) || s.AlphaBar(k) != other.AlphaBar(k) {
			return at.Errorf("this network belongs to another diffusion process than that of the row (they part at step %d); diffusion_steps, noise_schedule and rescale_timesteps have to be the same", k)
		}
	}
	return nil
}

// try is one call of a guidance's network.
func try(ctx context.Context, network any, x tensor.Tensor, t sampling.Timestep, c sampling.Cond) (err error) {
	switch n := network.(type) {
	case sampling.Classifier:
		_, err = n.Gradient(ctx, x, t, c.Labels)
	case sampling.Denoiser:
		_, err = n.Denoise(ctx, x, t, c)
	default:
		err = errors.New("the network is neither a denoiser nor a classifier")
	}
	return err
}
