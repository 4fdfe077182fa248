package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/tensor"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// metricsRegistry reads the metrics of an experiment.
var metricsRegistry = configs.Registry[eval.Metric](eval.Metrics)

// An experiment is an experiment file, decoded and checked.
type experiment struct {
	path string // of its YAML file
	name string
	rows []*row
}

// A row is one row of the table, decoded and checked.
type row struct {
	Experiment
	index    int // in the table, from 0
	label    string
	settings []configs.Setting

	model         netSpec
	reference     inputPath
	networkFiles  map[string]inputPath // of the feature networks, by name
	shares        []share              // of the evaluation, a feature network each
	sampler       configs.Named[sampling.Sampler]
	schedule      sampling.ScheduleConfig // of the model's flags, with the respacing that is sampled with, if it is one
	guidances     []configs.Named[sampling.Guidance]
	attachments   []attachment // the networks of the guidances that have one
	taps          []sampling.Tap
	perturbations []sampling.Perturbation
	protocol      eval.Protocol
	metrics       []configs.Named[eval.Metric]
	prompts       []string                 // those of the list or of the file
	encoded       map[string]tensor.Tensor // [1,L,D] by prompt, made by the row's network
	published     map[string]float64
}

// title names the row among the others.
func (r *row) title() string { return describe(r.label, r.settings) }

// loadExperiment reads the experiment file at path with the settings of the
// command line. The error lists everything that is wrong with it.
func loadExperiment(path string, overrides []string) (*experiment, error) {
	doc, err := configs.Load(path, overrides...)
	if err != nil {
		return nil, err
	}
	rows, err := doc.Rows()
	if err != nil {
		return nil, err
	}
	e := &experiment{path: path}
	var faults []error
	for i, r := range rows {
		decoded, err := decodeRow(r)
		decoded.index = i
		faults = append(faults, err)
		e.rows = append(e.rows, decoded)
	}
	if err := configs.Join(faults...); err != nil {
		return nil, err
	}
	e.name = e.rows[0].Name
	for i, r := range e.rows {
		if r.Name != e.name {
			at, _ := rows[i].Block.At("name")
			faults = append(faults, at.Errorf("a row is named %q and another %q; the name is the whole experiment's", r.Name, e.name))
		}
	}
	faults = append(faults, e.publish(rows, len(overrides) > 0))
	return e, configs.Join(faults...)
}

// decodeRow reads one row's block.
func decodeRow(from configs.Row) (*row, error) {
	r := &row{Experiment: defaults(), label: from.Label, settings: from.Settings}
	b := from.Block
	err := b.Decode(&r.Experiment)
	var errModel, errSampler, errGuidance, errMetrics error
	r.model, errModel = decodeNet(r.Model)
	r.sampler.Name, r.sampler.Value, errSampler = sampling.Samplers.One(r.Sampler)
	r.guidances, errGuidance = guidance.Registry.Many(r.Guidance)
	if p, unknown := eval.ProtocolOf(r.Protocol); unknown == nil { // else err tells
		r.protocol = p
		r.metrics, errMetrics = registry(p).Many(r.Metrics)
	}
	if err := configs.Join(err, errModel, errSampler, errGuidance, errMetrics); err != nil {
		return r, err
	}
	if !b.Has("inception.resize") {
		r.Inception.Resize = models.Resize(r.protocol.Resize)
	}
	r.reference = pathAt(b, "reference")
	networks := r.featureNetworks()
	r.networkFiles = map[string]inputPath{}
	for name, n := range networks {
		r.networkFiles[name] = pathAt(b, name+".checkpoint")
		n.path = r.networkFiles[name].Path
		networks[name] = n
	}
	r.shares = sharesOf(r.metrics, networks, r.Network)
	return r, configs.Join(r.space(), r.tap(), r.readAttachments(), r.readPrompts(b), r.complete())
}

// space has the sampler choose its steps of the process of the model's flags.
func (r *row) space() error {
	c, err := scheduleOf(r.model.Flags)
	if err != nil {
		return r.Model.Errorf("%w", err)
	}
	if c.TimestepRespacing != "" {
		if err := c.Validate(); err != nil {
			return r.Model.Errorf("%w", err)
		}
	}
	s, err := r.sampler.Value.Schedule(c)
	if err != nil {
		return r.Sampler.Errorf("%w", err)
	}
	r.schedule = s.Config()
	return nil
}

// tap is the attention layer that the guidances look at, and what they perturb.
func (r *row) tap() error {
	var all []sampling.Guidance
	for _, g := range r.guidances {
		all = append(all, g.Value)
	}
	t, needed, err := sampling.TapOf(all)
	if err != nil {
		return r.Guidance.Errorf("%w", err)
	}
	if needed {
		r.taps = []sampling.Tap{t}
	}
	r.perturbations = sampling.PerturbationsOf(all)
	return nil
}

// complete checks that an evaluation has all that it needs, and that the
// published values are of metrics.
func (r *row) complete() error {
	for name, v := range r.Published {
		if _, known := metricsRegistry[name]; !known {
			return v.at.Errorf("no metric is called %q; known: %s", name, strings.Join(metricsRegistry.Names(), ", "))
		}
	}
	if len(r.metrics) == 0 {
		return nil
	}
	faults := []error{r.enough()}
	if r.reference.Written == "" {
		faults = append(faults, r.Metrics.Errorf("metrics need a reference batch: give reference: FILE.npz, or metrics: [] to draw images only"))
	}
	for _, s := range r.shares {
		if r.networkFiles[s.name].Written == "" {
			faults = append(faults, r.Metrics.Errorf("%s: metrics need the %s: give %s: {checkpoint: FILE}, or metrics: [] to draw images only", s.names(), s.title, s.name))
		}
	}
	return configs.Join(faults...)
}

// enough checks that there are more images than the neighbours that a metric
// looks at, before they are drawn.
func (r *row) enough() error {
	var faults []error
	for _, m := range r.metrics {
		neighbours := 1 // a covariance takes two images
		fields, err := settled(m.Value)
		if err == nil && fields["k"] != nil {
			err = json.Unmarshal(fields["k"], &neighbours)
		}
		if err == nil && r.Samples <= neighbours {
			err = r.Metrics.Errorf("samples is %d: %s needs at least %d images", r.Samples, m.Name, neighbours+1)
		}
		faults = append(faults, err)
	}
	return configs.Join(faults...)
}

// publish hands each row the authors' values. Lists run parallel to the rows
// that their key reaches: an entry of rows: with its sweep, or the whole table.
func (e *experiment) publish(rows []configs.Row, overridden bool) error {
	at := func(i int) string {
		b, _ := rows[i].Block.At("published")
		return b.Position()
	}
	var faults []error
	for from := 0; from < len(rows); {
		to := from + 1
		for to < len(rows) && at(to) == at(from) {
			to++
		}
		for i := from; i < to; i++ {
			var err error
			e.rows[i].published, err = e.rows[i].Published.row(i-from, to-from, overridden)
			faults = append(faults, err)
		}
		from = to
	}
	return configs.Join(faults...)
}

// scheduleOf reads the diffusion process off a family's flags. A family without
// such flags has a scheduler_config.json beside its weights; until it is opened
// the defaults of one stand for it.
func scheduleOf(f models.Family) (sampling.ScheduleConfig, error) {
	c := sampling.DefaultSchedule()
	flags, err := flagsOf(f)
	if err != nil {
		return c, err
	}
	if !flags.Has("diffusion_steps") {
		c.Scheduler = &sampling.SchedulerConfig{}
	}
	err = flags.Only("diffusion_steps", "noise_schedule", "timestep_respacing", "rescale_timesteps", "sigma_small").Decode(&c)
	return c, err
}

// flagsOf is a family's flags by the names that its authors gave them.
func flagsOf(f models.Family) (configs.Block, error) {
	data, err := configs.Canonical(f)
	if err != nil {
		return configs.Block{}, err
	}
	b, err := configs.Parse("flags", data)
	if err != nil {
		return b, errors.Join(fmt.Errorf("the family's flags have no common form"), err)
	}
	return b, nil
}
