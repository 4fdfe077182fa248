package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The structs of a small experiment, as the other packages declare theirs.
type experiment struct {
	Name     string               `yaml:"name" doc:"Folder below results/."`
	Samples  int                  `yaml:"samples" doc:"Images a row."`
	Seed     uint64               `yaml:"seed"`
	Model    modelBlock           `yaml:"model"`
	Sampler  Block                `yaml:"sampler"`
	Guidance Block                `yaml:"guidance"`
	Metrics  []string             `yaml:"metrics" doc:"fid | sfid | is"`
	Grid     *gridBlock           `yaml:"grid"`
	Paper    map[string]published `yaml:"paper"`
	Ready    bool                 `yaml:"ready"`
	Device   int8                 `yaml:"device"`
	Limit    Extended             `yaml:"limit"`
	runtime  int
	Computed []byte
}

type modelBlock struct {
	flags           `yaml:",inline"`
	Checkpoint      string `yaml:"checkpoint"`
	validationCount int
}

type flags struct {
	ImageSize   int    `yaml:"image_size"`
	ChannelMult string `yaml:"channel_mult"`
	LearnSigma  bool   `yaml:"learn_sigma"`
}

type gridBlock struct {
	Columns int     `yaml:"columns"`
	Scale   float32 `yaml:"scale"`
}

func (g *gridBlock) Validate() error {
	if g.Columns < 1 {
		return fmt.Errorf("columns must be at least 1, is %d", g.Columns)
	}
	return nil
}

func (m modelBlock) Validate() error {
	if m.Checkpoint == "" {
		return errors.New("checkpoint is missing")
	}
	return nil
}

// published is a bare number or {value: number}.
type published struct{ value float64 }

func (n *published) UnmarshalBlock(b Block) error {
	if b.IsMapping() {
		return b.Decode(&struct {
			Value *float64 `yaml:"value"`
		}{&n.value})
	}
	if text, ok := b.Text(); ok && text == "unknown" {
		return errors.New("the paper's value must be given")
	}
	return b.Decode(&n.value)
}

type guidance interface{ strength() float64 }

type sag struct {
	Scale     float64 `yaml:"scale" doc:"s of equation 16."`
	BlurSigma float64 `yaml:"blur_sigma"`
	Layer     string  `yaml:"layer"`
}

func (s *sag) strength() float64 { return s.Scale }

func (s *sag) Validate() error {
	var faults []error
	if s.BlurSigma <= 0 {
		faults = append(faults, fmt.Errorf("blur_sigma must be positive, is %g", s.BlurSigma))
	}
	if s.Scale < 0 {
		faults = append(faults, fmt.Errorf("scale must not be negative, is %g", s.Scale))
	}
	return errors.Join(faults...)
}

type cfg struct {
	Scale float64 `yaml:"scale"`
}

func (c *cfg) strength() float64 { return c.Scale }

var guidances = Registry[guidance]{
	"sag":        func() guidance { return &sag{Scale: 0.5, BlurSigma: 1.5} },
	"cfg":        func() guidance { return &cfg{Scale: 4} },
	"classifier": func() guidance { return &cfg{Scale: 1} },
}

func defaults() experiment {
	return experiment{Samples: 64, Metrics: []string{"fid"}, Model: modelBlock{Checkpoint: "model.pt"}, Grid: &gridBlock{Columns: 8}}
}

// folder writes the files into a fresh folder and makes it the current one, so
// that messages hold short names.
func folder(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// wantError compares a whole message; "" wants no error.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != strings.TrimSpace(want) {
		t.Errorf("message:\n%s\nwant:\n%s", got, strings.TrimSpace(want))
	}
}

func mustParse(t *testing.T, text string) Block {
	t.Helper()
	b, err := Parse("case.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
