// Package plan reads experiments: a YAML file goes in, rows come out that are
// decoded and checked, with their run ids, their places in the results, what they
// read and how much there is to do. It draws nothing and runs no network.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/families"
	"sagbench/models/features"
	"sagbench/sampling"
	"sagbench/sampling/guidance"
)

// What an experiment chooses by name, each kind with its options.
var (
	MetricRegistry   = configs.Registry[eval.Metric](eval.Metrics)
	FamilyRegistry   = configs.Registry[models.Family](families.Table)
	samplerRegistry  = configs.Registry[sampling.Sampler](sampling.Samplers)
	GuidanceRegistry = configs.Registry[sampling.Guidance](guidance.Registry)
)

// An Experiment is an experiment file, decoded and checked.
type Experiment struct {
	path    string   // of its YAML file
	sources []string // absolute paths of it and of the files that it includes
	Name    string
	Rows    []*Row
	Left    []*Row // that Choose left out
	// Replaced says which settings of the command line took the place of what the
	// file's rows differ in, a line for each.
	Replaced []string
	Changed  bool // by settings of the command line, other than its name

	sizes map[string]models.Size // of networks by their Key without content
}

// A Row is one row of the table, decoded and checked. Its settings as the file has
// them are in Settings; the fields beside it are what they stand for.
type Row struct {
	Settings
	Index int // in the table, from 0
	of    int // rows of the table
	most  int // what samples: says, where a search has set Samples; else 0
	Label string
	Swept []store.Setting

	Model           NetworkRef
	Reference       sampling.File
	FeatureNetworks map[string]FeatureNetwork // that images can be compared with, by name
	Comparisons     []Comparison              // of the evaluation, a feature network each
	Sampler         configs.Named[sampling.Sampler]
	schedule        sampling.ScheduleConfig // of the model's flags, with the sampler's steps as respacing where they can be written as one
	Guidances       []configs.Named[sampling.Guidance]
	Attachments     []Attachment // the networks of the guidances that have one
	Taps            []sampling.Tap
	Perturbations   []sampling.Perturbation
	Protocol        eval.Protocol
	Metrics         []configs.Named[eval.Metric]
	Prompts         []string // those of the list or of the file: image i has that of place i mod n
	Negatives       []string // what stands for ∅ of each of them, "" for what the model has; nil where NegativePrompt is that of all
	FileNames       []string // that the file of prompts gives their images; nil for none
	Drawn           Drawn    // from the file of prompts
	PromptNotes     []string // on what is not read of the file of prompts
	promptsFile     sampling.File
	negativeFile    sampling.File
	Published       map[string]float64
}

// Title names the row among the others: its label and what the sweep chose.
func (r *Row) Title() string { return store.Title(r.Label, r.Swept) }

// Choose leaves the rows out that are not chosen, as store.Choose takes them. The others
// keep their numbers.
func (e *Experiment) Choose(chosen []string) error {
	rows, err := store.Choose(e.Rows, func(r *Row) store.Place { return store.PlaceOf(r.Index, r.Label, r.Swept) }, chosen)
	if err != nil {
		return fmt.Errorf("--rows: %s: %w", e.path, err)
	}
	for _, r := range e.Rows {
		if !slices.Contains(rows, r) {
			e.Left = append(e.Left, r)
		}
	}
	e.Rows = rows
	return nil
}

// Load reads the experiment file at path; overrides, "dotted.path=value", win over
// what it says. The error lists everything that is wrong, with file and line.
func Load(path string, overrides []string) (*Experiment, error) {
	doc, err := configs.Load(path, overrides...)
	if err != nil {
		return nil, err
	}
	rows, err := doc.Rows()
	if err != nil {
		return nil, err
	}
	e := &Experiment{path: path, sources: doc.Files, Replaced: doc.Replaced()}
	e.Changed = slices.ContainsFunc(overrides, func(o string) bool { return !strings.HasPrefix(o, "name=") })
	var faults []error
	files := promptCache{}
	for i, r := range rows {
		decoded, err := decodeRow(r, files)
		decoded.Index, decoded.of = i, len(rows)
		faults = append(faults, err)
		e.Rows = append(e.Rows, decoded)
	}
	if err := configs.Join(faults...); err != nil {
		return nil, err
	}
	e.Name = e.Rows[0].Name
	for i, r := range e.Rows {
		if r.Name != e.Name {
			at, _ := rows[i].Block.At("name")
			faults = append(faults, at.Errorf("a row is named %q and another %q; the name is the whole experiment's", r.Name, e.Name))
		}
	}
	faults = append(faults, e.publish(rows, len(overrides) > 0), e.checkSearch(rows), e.checkSizes(MachineMemory()))
	return e, configs.Join(faults...)
}

// decodeRow reads one row's block.
func decodeRow(from configs.Row, files promptCache) (*Row, error) {
	r := &Row{Settings: defaults(), Label: from.Label}
	for _, s := range from.Settings {
		r.Swept = append(r.Swept, store.Setting(s))
	}
	b := from.Block.With(Hooks(FileOf))
	errSettings := b.Without(networkNames()...).Decode(&r.Settings)
	if r.Search.On() && r.Bootstrap == 0 {
		r.Bootstrap = searchDraws
	}
	errDrawing := r.decodeDrawing()
	var errMetrics, errNetworks error
	if p, unknown := eval.ProtocolOf(r.ProtocolName); unknown == nil { // else errSettings tells
		r.Protocol = p
		r.Metrics, errMetrics = metricRegistry(p).Many(r.MetricsBlock)
	}
	r.FeatureNetworks = map[string]FeatureNetwork{}
	for _, n := range features.Networks {
		at, _ := b.At(n.Name)
		found, err := decodeFeatureNetwork(n, at, r.Protocol)
		r.FeatureNetworks[n.Name], errNetworks = found, configs.Join(errNetworks, err)
	}
	if err := configs.Join(errSettings, errDrawing, errNetworks, errMetrics); err != nil {
		return r, err
	}
	r.Reference = fileAt(b, "reference")
	r.Comparisons = ComparisonsOf(r.Metrics, r.FeatureNetworks, r.Network)
	return r, configs.Join(r.planDrawing(), r.checkLabels(), r.readPrompts(b, files), r.complete(), r.checkSearch(b))
}

// NewRow is a row that is no experiment's: what draws is decoded and checked, of
// the blocks of model, sampler and guidance, and nothing is evaluated.
func NewRow(s Settings) (*Row, error) {
	r := &Row{Settings: s}
	if err := r.decodeDrawing(); err != nil {
		return nil, err
	}
	return r, r.planDrawing()
}

// decodeDrawing reads the blocks of the model, the sampler and the guidances.
func (r *Row) decodeDrawing() error {
	var errModel, errSampler, errGuidance error
	r.Model, errModel = DecodeNetwork(r.ModelBlock)
	r.Sampler.Name, r.Sampler.Value, errSampler = samplerRegistry.One(r.SamplerBlock)
	r.Guidances, errGuidance = GuidanceRegistry.Many(r.GuidanceBlock)
	return configs.Join(errModel, errSampler, errGuidance)
}

// planDrawing finds what the decoded blocks ask for: the networks of the guidances,
// the layers that they read and perturb, and the sampler's steps.
func (r *Row) planDrawing() error {
	var all []sampling.Guidance
	for _, g := range r.Guidances {
		all = append(all, g.Value)
		if n, ok := g.Value.(sampling.Networked); ok && !n.Network().IsZero() {
			r.Attachments = append(r.Attachments, Attachment{NetworkRef{Ref: *n.Network()}, g.Name, n})
		}
	}
	r.Perturbations = sampling.PerturbationsOf(all)
	t, needed, errTap := sampling.TapOf(all)
	if errTap != nil {
		errTap = r.GuidanceBlock.Errorf("%w", errTap)
	} else if needed {
		r.Taps = []sampling.Tap{t}
	}
	return configs.Join(r.chooseSteps(), errTap)
}

// chooseSteps has the sampler choose its steps of the process of the model's flags.
func (r *Row) chooseSteps() error {
	c := scheduleOf(r.Model.Flags)
	if c.TimestepRespacing != "" {
		if err := c.Validate(); err != nil {
			return r.ModelBlock.Errorf("%w", err)
		}
	}
	s, err := r.Sampler.Value.Schedule(c)
	if err != nil {
		return r.SamplerBlock.Errorf("%w", err)
	}
	r.schedule = s.Config()
	if a, ok := r.Sampler.Value.(sampling.Adaptive); ok && a.Least() != nil && r.Trace.Images > 1 {
		return r.SamplerBlock.Errorf("trace.images is %d, expected 1: this sampler takes each image through steps of its own, at which no other image is", r.Trace.Images)
	}
	return nil
}

// complete checks that an evaluation has all that it needs, images included, and
// that the published values are of metrics.
func (r *Row) complete() error {
	for name, v := range r.PublishedBlock {
		if _, known := MetricRegistry[name]; !known {
			return v.at.Errorf("no metric is called %q; known: %s", name, strings.Join(MetricRegistry.Names(), ", "))
		}
	}
	if len(r.Metrics) == 0 {
		return nil
	}
	var faults []error
	for _, m := range r.Metrics {
		if least := m.Value.MinImages(); r.Samples < least {
			faults = append(faults, r.MetricsBlock.Errorf("samples is %d: %s needs at least %d images", r.Samples, m.Name, least))
		}
		if err := eval.CheckDraws(r.Bootstrap, m.Value); err != nil {
			faults = append(faults, r.MetricsBlock.Errorf("%w", err))
		}
	}
	if r.Reference.Written == "" {
		faults = append(faults, r.MetricsBlock.Errorf("metrics need a reference batch: give reference: FILE.npz, or metrics: [] to draw images only"))
	}
	for _, m := range r.Metrics {
		if eval.TextFormOf(m.Value) != "" && len(r.Prompts) == 0 {
			faults = append(faults, r.MetricsBlock.Errorf("%s compares images with the prompts that they are drawn from, and family %s has none", m.Name, r.Model.Family))
		}
	}
	for _, c := range r.Comparisons {
		if c.Checkpoint == "" {
			faults = append(faults, r.MetricsBlock.Errorf("%s: metrics need the %s: give %s: {checkpoint: FILE}, or metrics: [] to draw images only", c.MetricNames(), c.Title, c.Name))
		}
	}
	return configs.Join(faults...)
}

// publish gives each row the authors' values. A list has a value for each row that
// its key holds for: those of an entry of rows: with its sweep, or all of them.
func (e *Experiment) publish(rows []configs.Row, overridden bool) error {
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
			e.Rows[i].Published, err = e.Rows[i].PublishedBlock.row(i-from, to-from, overridden)
			faults = append(faults, err)
		}
		from = to
	}
	return configs.Join(faults...)
}

// scheduleOf is the diffusion process of a family's flags. A family without such
// flags has a scheduler_config.json beside its weights; until that is read, one with
// the defaults stands for it.
func scheduleOf(flags any) sampling.ScheduleConfig {
	if d, ok := flags.(models.Diffusing); ok {
		return d.Diffusion()
	}
	c := sampling.DefaultSchedule()
	c.Scheduler = &sampling.SchedulerConfig{}
	return c
}
