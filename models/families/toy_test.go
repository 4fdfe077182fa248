package families

import (
	"context"
	"maps"
	"math"
	"reflect"
	"testing"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// A toy is the smallest family that images can be drawn from. Its flags are a
// struct with yaml tags, and it has one method.
type toy struct {
	Grey float64 `yaml:"grey" doc:"the level of every pixel, in [-1,1]"`
}

// Open implements models.Family.
func (c *toy) Open(string, models.Options) (models.Model, error) {
	return &toyNet{float32(c.Grey)}, nil
}

// A toyNet is sure that every image is grey. Its seven methods are all that a
// network needs.
type toyNet struct{ grey float32 }

func (n *toyNet) Process() models.Process {
	return models.Process{Schedule: sampling.DefaultSchedule(), Predicts: sampling.XStart, ClipDenoised: true}
}
func (n *toyNet) SampleShape() []int { return []int{3, 4, 4} }
func (n *toyNet) Classes() int       { return 0 }
func (n *toyNet) Close()             {}

func (n *toyNet) Denoise(_ context.Context, x tensor.Tensor, _ sampling.Timestep, _ sampling.Cond) (sampling.Prediction, error) {
	p := sampling.Prediction{Eps: x.Like()}
	for i := range p.Eps.Data {
		p.Eps.Data[i] = n.grey
	}
	return p, nil
}

func (n *toyNet) Forward(ctx context.Context, in map[string]ort.Array) (map[string]ort.Array, error) {
	p, err := n.Denoise(ctx, in["x"].Tensor(), sampling.Timestep{}, sampling.Cond{})
	return map[string]ort.Array{"model": ort.Floats(p.Eps)}, err
}

func (n *toyNet) Pixels(_ context.Context, x tensor.Tensor) (models.Images, error) {
	return models.ImagesOf(x, func(v float32) float32 { return (v + 1) * 127.5 }, "")
}

// TestToyFamily adds the toy to the table by one row and draws from it. The count
// of its methods is what a new family has to bring: one, and seven of its network.
func TestToyFamily(t *testing.T) {
	table := maps.Clone(Table)
	table["toy"] = func() models.Family { return &toy{Grey: 0.5} }

	family := table["toy"]()
	m, err := family.Open("no weights", models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if of, net := reflect.TypeOf(family).NumMethod(), reflect.TypeOf(m).NumMethod(); of != 1 || net != 7 {
		t.Errorf("a family needs %d methods and its network %d, want 1 and 7", of, net)
	}
	g := m.(models.Generator)
	noise := sampling.Keyed{Seed: 1, Images: []int{0, 1}}
	for _, name := range []string{"ddim", "ddpm", "euler"} {
		s := sampling.Samplers[name]()
		schedule, err := s.Schedule(g.Process().Schedule)
		if err != nil {
			t.Fatal(name, err)
		}
		x := tensor.New(append([]int{2}, g.SampleShape()...)...)
		if err := noise.Fill(-1, x); err != nil {
			t.Fatal(err)
		}
		p := &sampling.Predictor{Denoiser: g, Schedule: schedule, Predicts: g.Process().Predicts, ClipDenoised: true, Random: noise}
		drawn, err := s.Sample(t.Context(), p, x, noise)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, v := range drawn.Data {
			if math.Abs(float64(v)-0.5) > 0.05 {
				t.Errorf("%s draws %g, want 0.5", name, v)
				break
			}
		}
		if _, err := g.Pixels(t.Context(), drawn); err != nil {
			t.Error(name, err)
		}
	}
}
