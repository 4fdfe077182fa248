package sampling

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/mathext"
)

// Spacing are the options that say which of the original timesteps a sampler
// visits, by diffusers' names. What is left out is as the checkpoint's
// scheduler_config.json says, or as diffusers' class has it by default.
type Spacing struct {
	TimestepSpacing string `yaml:"timestep_spacing" doc:"which timesteps are visited: leading, trailing or linspace (Lin et al. 2023, table 2); empty for the checkpoint's or the sampler's own"`
	StepsOffset     *int   `yaml:"steps_offset" doc:"added to every timestep of leading spacing; absent for the checkpoint's own"`
}

// Validate tells everything that is wrong with the options.
func (s *Spacing) Validate() error {
	var errs []error
	if s.TimestepSpacing != "" && !slices.Contains([]string{"leading", "trailing", "linspace"}, s.TimestepSpacing) {
		errs = append(errs, fmt.Errorf("timestep_spacing is %q, expected leading, trailing or linspace, or empty for the checkpoint's own", s.TimestepSpacing))
	}
	if s.StepsOffset != nil && *s.StepsOffset < 0 {
		errs = append(errs, fmt.Errorf("steps_offset is %d, expected 0 or more", *s.StepsOffset))
	}
	return errors.Join(errs...)
}

// none reports whether no option is given.
func (s *Spacing) none() bool { return *s == Spacing{} }

// free is the process for a sampler that chooses the timesteps itself.
func (c ScheduleConfig) free(sampler string) (process, error) {
	p, err := c.process()
	if err == nil && c.TimestepRespacing != "" {
		err = fmt.Errorf("timestep_respacing is %q, but here the sampler chooses the timesteps; leave it out", c.TimestepRespacing)
	}
	if err != nil {
		return p, fmt.Errorf("sampling: %s: %w", sampler, err)
	}
	return p, nil
}

// respaced is the schedule of the official flags with as many steps as the
// sampler's own respacing makes; a timestep_respacing among the flags decides
// which they are.
func respaced(sampler string, c ScheduleConfig, own string) (*Schedule, error) {
	wanted := c
	wanted.TimestepRespacing = own
	s, err := NewSchedule(wanted)
	if err != nil || c.TimestepRespacing == "" {
		return s, err
	}
	given, err := NewSchedule(c)
	if err != nil {
		return nil, err
	}
	if given.Len() != s.Len() {
		return nil, fmt.Errorf("timestep_respacing %q keeps %d steps, but the sampler %s asks for %d; leave it out, or make them agree", c.TimestepRespacing, given.Len(), sampler, s.Len())
	}
	return given, nil
}

// A spacer chooses timesteps in one of the three ways.
type spacer struct {
	spacing string
	offset  int
	round   bool // linspace: to whole timesteps
	inner   bool // leading and linspace: one more is laid out, and the lowest left out
}

// over is the spacer that the options, the process and a class's default make.
func (s *Spacing) over(p *process, spacing string) spacer {
	return spacer{
		spacing: first(some(s.TimestepSpacing), p.from.TimestepSpacing, spacing),
		offset:  first(s.StepsOffset, p.from.StepsOffset, 0),
		round:   true,
	}
}

// some is a pointer to an option that is given, nil to an empty one.
func some(option string) *string {
	if option == "" {
		return nil
	}
	return &option
}

// times is n timesteps, largest first, of the total original ones, of which
// those from limit on are left out (limit = total: none). Source: diffusers,
// set_timesteps of its schedulers.
func (s spacer) times(total, limit, n int) ([]float64, error) {
	laid := n
	if s.inner {
		laid++
	}
	if laid > limit {
		return nil, fmt.Errorf("%d steps of a process that has %d; take at most %d", n, limit, limit-(laid-n))
	}
	var out []float64
	switch s.spacing {
	case "leading":
		stride := limit / laid
		for i := range laid {
			out = append(out, float64(i*stride+s.offset))
		}
	case "linspace":
		out = linspace(0, float64(limit-1), laid)
		for i := range out {
			if s.round {
				out[i] = math.RoundToEven(out[i])
			}
		}
	case "trailing":
		stride := float64(total) / float64(n)
		for i := range n {
			if at := float64(limit) - float64(float64(i)*stride); at > 0.5 { // otherwise it would be rounded to −1
				out = append(out, math.RoundToEven(at)-1)
			}
		}
		slices.Reverse(out)
	}
	if s.inner && s.spacing != "trailing" {
		out = out[1:]
	}
	slices.Reverse(out)
	if len(out) == 0 || out[0] > float64(total-1) {
		return nil, fmt.Errorf("%d steps with %s timestep_spacing and steps_offset %d begin at timestep %g, but the last one is %d", n, s.spacing, s.offset, slices.Max(append(out, 0)), total-1)
	}
	return out, nil
}

// stride is the distance to the timestep to which a step goes in the schedulers
// that look ᾱ up by it: T/n rounded down, whatever the spacing.
func (p *process) stride(n int) int { return p.steps() / n }

// before is ᾱ of the state that a step from t reaches: that of t − stride, which
// is the next visited timestep with leading spacing, and below 0 that of x_0 or,
// without set_alpha_to_one, of timestep 0.
func (p *process) before(t, stride int, toOne bool) float64 {
	switch {
	case t >= stride:
		return p.alphaBar[t-stride]
	case toOne:
		return 1
	}
	return p.alphaBar[0]
}

// chain is the schedule of a sampler that steps from each visited timestep to
// the next one, and at last to x_0: DDPM.
func (p *process) chain(sampler string, s spacer, n int) (*Schedule, error) {
	times, err := s.times(p.steps(), p.steps(), n)
	if err != nil {
		return nil, fmt.Errorf("sampling: %s: %w", sampler, err)
	}
	stops, next := make([]stop, len(times)), 1.0
	for k, t := range slices.Backward(times) {
		stops[k] = stop{time: t, alphaBar: p.alphaBar[int(t)], next: next}
		next = stops[k].alphaBar
	}
	return p.visiting(stops), nil
}

// hops is the schedule of the samplers that step from whole timesteps t to
// t − stride: DDIM and PNDM.
func (p *process) hops(sampler string, s spacer, n int, toOne bool) (*Schedule, error) {
	times, err := s.times(p.steps(), p.steps(), n)
	if err != nil {
		return nil, fmt.Errorf("sampling: %s: %w", sampler, err)
	}
	var stops []stop
	for _, t := range times {
		stops = append(stops, stop{time: t, alphaBar: p.alphaBar[int(t)], next: p.before(int(t), p.stride(n), toOne)})
	}
	return p.visiting(stops), nil
}

// levels is the schedule of the samplers that are given noise levels σ, largest
// first, one for each of the times and perhaps one more, and then go on to final.
func (p *process) levels(times, sigmas []float64, final float64) *Schedule {
	sigmas = append(slices.Clone(sigmas), final)
	for k, sigma := range sigmas {
		sigmas[k] = float64(float32(sigma))
	}
	alphaBar := func(sigma float64) float64 { return 1 / (1 + sigma*sigma) }
	var stops []stop
	for k, t := range times {
		stops = append(stops, stop{time: t, alphaBar: alphaBar(sigmas[k]), next: alphaBar(sigmas[k+1])})
	}
	s := p.visiting(stops)
	s.sigmas = sigmas
	return s
}

// karras is n noise levels from high to low, equal steps of σ^(1/7) (Karras et
// al. 2022, equation 5, ρ = 7).
func karras(high, low float64, n int) []float64 {
	const rho = 7
	out := linspace(math.Pow(high, 1.0/rho), math.Pow(low, 1.0/rho), n)
	for i, root := range out {
		out[i] = math.Pow(root, rho)
	}
	return out
}

// exponential is n noise levels from high to low, equal steps of log σ.
func exponential(high, low float64, n int) []float64 {
	out := linspace(math.Log(high), math.Log(low), n)
	for i, l := range out {
		out[i] = math.Exp(l)
	}
	return out
}

// betaSpaced is n noise levels from high to low at equal steps of the cumulative
// Beta(0.6, 0.6) distribution (Lee et al. 2024, arXiv:2407.12173; diffusers
// _convert_to_beta).
func betaSpaced(high, low float64, n int) []float64 {
	out := linspace(1, 0, n)
	for i, p := range out {
		out[i] = low + float64(mathext.InvRegIncBeta(0.6, 0.6, p)*(high-low))
	}
	return out
}

// interpolated is the value at a fractional index, linear between neighbours.
func interpolated(values []float64, index float64) float64 {
	i := min(int(index), len(values)-2)
	if i < 0 {
		return values[0]
	}
	w := index - float64(i)
	return values[i] + float64(w*(values[i+1]-values[i]))
}

// timeOf is the fractional timestep at which a noise level stands among those
// of the process, ascending: linear in log σ, whose table is float32, and within
// the table.
func timeOf(sigma float64, sigmas []float64) float64 {
	if len(sigmas) < 2 {
		return 0
	}
	above := sort.Search(len(sigmas), func(i int) bool { return sigmas[i] > sigma })
	i := max(0, min(above-1, len(sigmas)-2))
	low, high := float64(float32(math.Log(sigmas[i]))), float64(float32(math.Log(sigmas[i+1])))
	w := max(0, min((low-math.Log(sigma))/(low-high), 1))
	return float64((1-w)*float64(i)) + float64(w*float64(i+1))
}
