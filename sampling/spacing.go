package sampling

import (
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
	StepsOffset     *int   `yaml:"steps_offset" min:"0" max:"1000000" doc:"added to every timestep of leading spacing; absent for the checkpoint's own"`
}

// Validate tells everything that is wrong with the options.
func (s *Spacing) Validate() error {
	var f Faults
	f.When(!slices.Contains([]string{"", "leading", "trailing", "linspace"}, s.TimestepSpacing), "timestep_spacing is %q, expected leading, trailing or linspace, or empty for the checkpoint's own", s.TimestepSpacing)
	f.When(or(s.StepsOffset, 0) < 0, "steps_offset is %d, expected 0 or more", or(s.StepsOffset, 0))
	return f.Join()
}

// unset reports whether all options are left out.
func (s *Spacing) unset() bool { return *s == Spacing{} }

// processFor is the process for a sampler that chooses the timesteps itself.
func (c ScheduleConfig) processFor(sampler string) (process, error) {
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
	byFlags, err := NewSchedule(c)
	if err != nil {
		return nil, err
	}
	if byFlags.Len() != s.Len() {
		return nil, fmt.Errorf("timestep_respacing %q keeps %d steps, but the sampler %s asks for %d; leave it out, or make them agree", c.TimestepRespacing, byFlags.Len(), sampler, s.Len())
	}
	return byFlags, nil
}

// A spacer chooses timesteps in one of the three ways.
type spacer struct {
	spacing string
	offset  int
	round   bool // linspace: to whole timesteps
	inner   bool // leading and linspace: the lowest of n + 1 timesteps is left out
}

// spacer is the way that the options choose, or else the file of the process, or
// else the default of diffusers' class.
func (s *Spacing) spacer(p *process, def string) spacer {
	return spacer{
		spacing: chosen(optional(s.TimestepSpacing), p.from.TimestepSpacing, def),
		offset:  chosen(s.StepsOffset, p.from.StepsOffset, 0),
		round:   true,
	}
}

// optional is a pointer to an option, nil to an empty one.
func optional(option string) *string {
	if option == "" {
		return nil
	}
	return &option
}

// times is n timesteps, largest first, of the total original ones, of which
// those from limit on are left out (limit = total: none). Source: diffusers,
// set_timesteps of its schedulers.
func (s spacer) times(total, limit, n int) ([]float64, error) {
	points := n
	if s.inner {
		points++
	}
	if points > limit {
		return nil, fmt.Errorf("%d steps of a process that has %d; take at most %d", n, limit, limit-(points-n))
	}
	var out []float64
	switch s.spacing {
	case "leading":
		stride := limit / points
		for i := range points {
			out = append(out, float64(i*stride+s.offset))
		}
	case "linspace":
		out = linspace(0, float64(limit-1), points)
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

// chained is the schedule of a sampler that steps from each visited timestep to
// the next one, and at last to x_0: DDPM.
func (p *process) chained(sampler string, s spacer, n int) (*Schedule, error) {
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

// strided is the schedule of the samplers that step from each visited timestep t
// to t − ⌊T/n⌋, whatever the spacing: DDIM and PNDM. Below 0 they step to
// x_0 (toOne), or to timestep 0.
func (p *process) strided(sampler string, s spacer, n int, toOne bool) (*Schedule, error) {
	times, err := s.times(p.steps(), p.steps(), n)
	if err != nil {
		return nil, fmt.Errorf("sampling: %s: %w", sampler, err)
	}
	stops, stride := make([]stop, len(times)), p.steps()/n
	for k, t := range times {
		stops[k] = stop{time: t, alphaBar: p.alphaBar[int(t)], next: p.alphaBar[max(0, int(t)-stride)]}
		if toOne && int(t) < stride {
			stops[k].next = 1
		}
	}
	return p.visiting(stops), nil
}

// atLevels is the schedule of the samplers that choose noise levels σ, largest
// first, one for each of the times and perhaps one more, and then go on to final.
func (p *process) atLevels(times, sigmas []float64, final float64) *Schedule {
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

// respacedLevels is n noise levels from high to low in the way that the sampler's
// own use_karras_sigmas or the file chooses, nil where it chooses none; equalLogs
// asks for equal steps of log σ in place of the file's lesser options.
func (p *process) respacedLevels(ownKarras *bool, equalLogs bool, high, low float64, n int) []float64 {
	f := &p.from
	switch {
	case chosen(ownKarras, f.UseKarrasSigmas, false):
		return karras(high, low, n)
	case equalLogs, or(f.UseExponentialSigmas, false):
		return exponential(high, low, n)
	case or(f.UseBetaSigmas, false):
		return betaSpaced(high, low, n)
	}
	return nil
}

// finalLevel is the noise level that the last step goes to, of the process's
// sigmas: that of timestep 0, or 0.
func (p *process) finalLevel(own string, sigmas []float64) float64 {
	if chosen(optional(own), p.from.FinalSigmasType, "zero") == "sigma_min" {
		return sigmas[0]
	}
	return 0
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
