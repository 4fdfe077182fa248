package families

import (
	"cmp"
	"context"
	"slices"
	"testing"

	"sagbench/models"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// conditionOf is a condition of images for a network.
func conditionOf(t *testing.T, g models.Generator, images int) sampling.Cond {
	t.Helper()
	var c sampling.Cond
	for i := range min(images, images*g.Classes()) {
		c.Labels = append(c.Labels, int64(i%g.Classes()))
	}
	if p, ok := g.(models.Prompted); ok {
		var err error
		if c, err = p.Encode(context.Background(), slices.Repeat([]string{"a photo of a bag", "a coat", ""}, images)[:images]); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// A network with perturbations predicts the bits of one without where
// they are off, something else where they are on, each image for itself; it runs
// them beside each other in one call.
func TestPerturbedFamilies(t *testing.T) {
	for name, f := range smallNetworks() {
		at := sampling.Timestep{Value: cmp.Or(f.time, 500)}
		open := func(p ...sampling.Perturbation) models.Generator {
			t.Helper()
			m, err := f.flags.Open(f.path, models.Options{Taps: []sampling.Tap{{Layer: f.attention}}, Perturbations: p})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(m.Close)
			return m.(models.Generator)
		}
		perturbations := []sampling.Perturbation{
			sampling.Perturb(sampling.IdentityAttention, 0, []string{f.attention}),
			sampling.Perturb(sampling.BlurredQueries, 1.5, []string{f.attention}),
			sampling.Perturb(sampling.BlurredQueries, 1e6, []string{f.attention}),
			sampling.Perturb(sampling.SkippedBlock, 0, []string{f.block}),
		}
		plain, g := open(), open(perturbations...)
		const n = 3
		x, c := noise(t, append([]int{n}, g.SampleShape()...)...), conditionOf(t, g, n)
		denoise := func(g models.Generator, x tensor.Tensor, c sampling.Cond) sampling.Prediction {
			t.Helper()
			p, err := g.Denoise(context.Background(), x, at, c)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		want := denoise(plain, x, c)
		got := denoise(g, x, c)
		if !slices.Equal(got.Eps.Data, want.Eps.Data) || !slices.Equal(got.Var.Data, want.Var.Data) || !slices.Equal(got.Attn.Data, want.Attn.Data) {
			t.Errorf("%s: perturbations that are off change the prediction", name)
		}

		// image 1 under each of them in turn, between two that are not
		seen := [][]float32{want.Eps.Row(1)}
		for _, p := range perturbations {
			mixed := c
			mixed.Perturbed = []sampling.Perturbation{{}, p, {}}
			got := denoise(g, x, mixed)
			if !slices.Equal(got.Eps.Row(0), want.Eps.Row(0)) || !slices.Equal(got.Eps.Row(2), want.Eps.Row(2)) {
				t.Errorf("%s: %s of one image changes others", name, p.Kind)
			}
			if !slices.Equal(got.Attn.Row(0), want.Attn.Row(0)) {
				t.Errorf("%s: %s of one image changes the map of others", name, p.Kind)
			}
			alone := denoise(g, x.Slice(1, 2), c.Pick([]int{1}).Under(p, 1))
			if !slices.Equal(alone.Eps.Data, got.Eps.Row(1)) {
				t.Errorf("%s: %s has other bits alone", name, p.Kind)
			}
			for _, other := range seen {
				far := 0.0
				for j, v := range got.Eps.Row(1) {
					far = max(far, float64(v-other[j]), float64(other[j]-v))
				}
				if !(far > 1e-4 && far < 100) {
					t.Errorf("%s: %s (σ = %g): largest change of ε %g", name, p.Kind, p.Sigma, far)
				}
			}
			seen = append(seen, slices.Clone(got.Eps.Row(1)))
		}
		_, err := plain.Denoise(context.Background(), x, at, c.Under(perturbations[0], n))
		wantError(t, err, "the network was built without identity attention of "+f.attention)
		_, err = g.Denoise(context.Background(), x, at, c.Under(perturbations[0], n-1))
		wantError(t, err, "2 perturbations for 3 images")
	}
}

// A layer that does not exist is told with those that do.
func TestPerturbedLayers(t *testing.T) {
	for name, c := range map[string]struct {
		kind   sampling.Kind
		layers []string
		want   []string
	}{
		"adm":   {sampling.IdentityAttention, []string{"middle_block.1", "middle_block.2"}, []string{`layer "middle_block.2" is no self-attention layer of this network; it has input_blocks.3.1, input_blocks.5.1, middle_block.1, output_blocks.0.1`}},
		"iddpm": {sampling.SkippedBlock, []string{"middle_block"}, []string{`layer "middle_block" is no block of this network that can be skipped; it has input_blocks`}},
		"dit":   {sampling.SkippedBlock, []string{"blocks.1", "blocks.6", "blocks.7"}, []string{`layer "blocks.6" is no block`, `layer "blocks.7" is no block of this network that can be skipped; it has blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, blocks.5`}},
		"sd":    {sampling.BlurredQueries, []string{"mid_block.attentions.0.transformer_blocks.0.attn2"}, []string{`attn2" is no self-attention layer of this network; it has down_blocks.0`, midLayer}},
	} {
		f := embeddedNetworks()[name]
		m, err := f.flags.Open(f.path, models.Options{Perturbations: []sampling.Perturbation{sampling.Perturb(c.kind, 1, c.layers)}})
		if err == nil {
			m.Close()
		}
		wantError(t, err, c.want...)
	}
}
