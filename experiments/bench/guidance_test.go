package bench

import "testing"

// Every line of the table of guided steps is a row, whose attention layer is the
// one that the experiment's own SAG names.
func TestGuidedModels(t *testing.T) {
	t.Chdir("../..")
	for _, m := range guidedModels {
		for _, c := range m.combinations {
			r, err := m.row(&bench{}, c)
			if err != nil {
				t.Fatalf("%s, %s: %v", m.name, c.name, err)
			}
			if _, err := r.Costs(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", m.name, c.name, err)
			}
			for _, p := range r.Perturbations {
				if p.Layers == "LAYER" || p.Layers == "BLOCK" {
					t.Errorf("%s, %s: perturbs %q", m.name, c.name, p.Layers)
				}
			}
		}
	}
}
