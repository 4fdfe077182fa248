package plan

import (
	"errors"
	"strings"
	"testing"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/sampling"
)

// beside is a family whose process is described beside its weights.
type beside struct {
	Size int `yaml:"size"`
}

func (*beside) Open(string, models.Options) (models.Model, error) {
	return nil, errors.New("no weights")
}

// Until such a family is opened, a number of steps that the official stride
// cannot make is no fault.
func TestScheduleBesideWeights(t *testing.T) {
	c := scheduleOf(&beside{})
	if c.Scheduler == nil {
		t.Fatal(c)
	}
	for name, sampler := range sampling.Samplers {
		s := sampler()
		b, err := configs.Parse("options", []byte("steps: 37"))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Decode(s); err != nil {
			t.Fatal(err)
		}
		made, err := s.Schedule(c)
		if err != nil && strings.Contains(err.Error(), "the network is told one of a number of timesteps") {
			continue // a sampler for continuous time
		}
		if err != nil || made.Len() != 37 {
			t.Errorf("%s: %v", name, err)
		}
		official := scheduleOf(&models.ADM{ScheduleConfig: sampling.DefaultSchedule()})
		if _, err := s.Schedule(official); (err != nil) != (name == "ddim") {
			t.Errorf("%s, official flags: %v", name, err)
		}
	}
}

// What a step asks of the network under combinations of guidances.
func TestCosts(t *testing.T) {
	const cfg, sag, pag, seg, cg = "cfg: {scale: 3}", "sag: {layer: a}", "pag: {layers: [a]}", "seg: {layers: [a, b]}",
		"classifier: {model: {family: classifier, checkpoint: c.pt, image_size: 64}}"
	join := func(guidances ...string) string { return "{" + strings.Join(guidances, ", ") + "}" }
	for _, c := range []struct {
		guidance, sampler string
		perStep           string
		total             Cost
	}{
		{"{}", "ddpm", "1 pass in 1 call", Cost{20, 20}},
		{join(sag), "ddpm", "2 passes in 2 calls", Cost{40, 40}},
		{"{sag: {layer: a, mask_threshold: 7}}", "ddpm", "2 passes in 2 calls", Cost{40, 40}},
		{"{sag: {layer: a, start: 5}}", "ddim", "1 pass in 1 call, then 2 passes in 2 calls", Cost{25, 25}},
		{"{sag: {layer: a, condition: unconditional}}", "ddpm", "3 passes in 2 calls", Cost{40, 60}},
		{join(cfg), "ddpm", "2 passes in 1 call", Cost{20, 40}},
		{"{cfg: {scale: 1}}", "ddpm", "1 pass in 1 call", Cost{20, 20}},
		{"{cfg: {scale: 3, start: 500}}", "ddim", "1 pass in 1 call, then 2 passes in 1 call", Cost{20, 31}},
		{join(cfg, sag), "ddpm", "3 passes in 2 calls", Cost{40, 60}},
		{join(sag, cfg), "euler", "3 passes in 2 calls", Cost{40, 60}},
		{"{cfg: {scale: 3}, sag: {layer: a, condition: conditional}}", "pndm", "3 passes in 2 calls", Cost{42, 63}}, // which makes a step twice
		{join(cg), "ddpm", "1 pass in 1 call + 1 of classifier", Cost{20, 20}},
		{join(sag, cg), "ddpm", "2 passes in 2 calls + 1 of classifier", Cost{40, 40}},
		{join(cfg, sag, cg), "ddpm", "3 passes in 2 calls + 1 of classifier", Cost{40, 60}},
		{join(pag), "ddpm", "2 passes in 1 call", Cost{20, 40}},
		{"{pag: {layers: [a], scale: 0}}", "ddpm", "1 pass in 1 call", Cost{20, 20}},
		{join(cfg, pag, seg), "ddpm", "4 passes in 1 call", Cost{20, 80}},
		{join(cfg, pag, sag), "ddpm", "4 passes in 2 calls", Cost{40, 80}},
	} {
		r := fashion(t, "guidance=!replace "+c.guidance, "sampler=!replace {"+c.sampler+": {steps: 20}}", "sweep=!replace {}").Rows[0]
		r.Model.Flags = &models.DiT{ClassDropoutProb: 0.1} // which knows ∅
		costs, err := r.Costs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := total(costs.Own); costs.String() != c.perStep || got != c.total {
			t.Errorf("%s, %s: %v, %+v; want %s, %+v", c.guidance, c.sampler, costs, got, c.perStep, c.total)
		}
	}
}
