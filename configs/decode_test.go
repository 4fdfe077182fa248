package configs

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

const topKeys = "known: name, samples, seed, model, sampler, guidance, metrics, grid, paper, ready, device, limit"

// A researcher's slips and what is said about them.
func TestDecodeMessages(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// Keys.
		{"smaples: 3\nmodel:\n  image_size: 8\n  learnSigma: true\nseed: x\n",
			`case.yaml:1: unknown key "smaples" at the top level; did you mean "samples"? ` + topKeys + `
case.yaml:4: unknown key "learnSigma" in model; did you mean "learn_sigma"? known: image_size, channel_mult, learn_sigma, checkpoint
case.yaml:5: seed: expected a whole number from 0 up, found "x"`},
		{"Name: x", `case.yaml:1: unknown key "Name" at the top level; did you mean "name"? ` + topKeys},
		{"runtime: 3\nComputed: x", `case.yaml:1: unknown key "runtime" at the top level; ` + topKeys + `
case.yaml:2: unknown key "Computed" at the top level; ` + topKeys},
		{"grid: {scale: 0,5}", `case.yaml:1: unknown key "5" in grid; known: columns, scale`},
		// Whole numbers.
		{"samples: fast", `case.yaml:1: samples: expected a whole number, found "fast"`},
		{"samples: 2.5", `case.yaml:1: samples: expected a whole number, found 2.5; it has a fraction`},
		{"samples: 010", `case.yaml:1: samples: expected a whole number, found 010; a leading zero means octal to some readers, write 10`},
		{"samples: 00", `case.yaml:1: samples: expected a whole number, found 00; a leading zero means octal to some readers, write 0`},
		{"samples: 1e30", `case.yaml:1: samples: expected a whole number from -9223372036854775808 to 9223372036854775807, found 1e30`},
		{"samples: 9223372036854775808", `case.yaml:1: samples: expected a whole number from -9223372036854775808 to 9223372036854775807, found 9223372036854775808`},
		{"samples: \"5\"", `case.yaml:1: samples: expected a whole number, found "5"; remove the quotes`},
		{"samples: true", `case.yaml:1: samples: expected a whole number, found true`},
		{"samples: None", `case.yaml:1: samples: expected a whole number, found "None"; for the default write null`},
		{"samples: {a: 1}", `case.yaml:1: samples: expected a whole number, found a mapping ({a: 1})`},
		{"samples: [1, 2]", `case.yaml:1: samples: expected a whole number, found a list ([1, 2]); for one row of the table a value write sweep: {samples: [1, 2]}`},
		{"samples: !!int x", `case.yaml:1: samples: expected a whole number, found x; this is no number`},
		{"samples: .inf", `case.yaml:1: samples: expected a whole number, found .inf; this is no number`},
		{"seed: -3", `case.yaml:1: seed: expected a whole number from 0 up, found -3`},
		{"seed: 18446744073709551616", `case.yaml:1: seed: expected a whole number from 0 to 18446744073709551615, found 18446744073709551616`},
		{"device: 128", `case.yaml:1: device: expected a whole number from -128 to 127, found 128`},
		{"device: -129", `case.yaml:1: device: expected a whole number from -128 to 127, found -129`},
		// Numbers.
		{"grid: {scale: 0.5f}", `case.yaml:1: grid.scale: expected a number, found "0.5f"`},
		{"grid: {scale: 1e39}", `case.yaml:1: grid.scale: expected a number that fits in 32 bits, found 1e39`},
		{"grid: {scale: .nan}", `case.yaml:1: grid.scale: expected a finite number, found .nan`},
		{"grid: {scale: -.inf}", `case.yaml:1: grid.scale: expected a finite number, found -.inf`},
		{"grid: {scale: 010}", `case.yaml:1: grid.scale: expected a number, found 010; a leading zero means octal to some readers, write 10`},
		// Truth values.
		{"ready: yes", `case.yaml:1: ready: expected true or false, found "yes"; yes, no, on and off are plain words in YAML 1.2, write true`},
		{"ready: OFF", `case.yaml:1: ready: expected true or false, found "OFF"; yes, no, on and off are plain words in YAML 1.2, write false`},
		{"ready: 1", `case.yaml:1: ready: expected true or false, found 1`},
		{"ready: \"true\"", `case.yaml:1: ready: expected true or false, found "true"; remove the quotes`},
		{"ready: maybe", `case.yaml:1: ready: expected true or false, found "maybe"`},
		// Texts.
		{"name: true", `case.yaml:1: name: expected text, found true; if the word itself is meant, write "true"`},
		{"model: {channel_mult: [1, 2]}", `case.yaml:1: model.channel_mult: expected text, found a list ([1, 2]); as one text write "1,2"; for one row of the table a value write sweep: {model.channel_mult: [1, 2]}`},
		// Lists, maps, structs.
		{"metrics: fid", `case.yaml:1: metrics: expected a list of texts, found "fid"; write [fid]`},
		{"metrics: [fid, true, null,\n [is]]", `case.yaml:1: metrics.1: expected text, found true; if the word itself is meant, write "true"
case.yaml:1: metrics.2: expected text, found nothing; if the word itself is meant, write "null"
case.yaml:2: metrics.3: expected text, found a list ([is])`},
		{"metrics: {fid: 1}", `case.yaml:1: metrics: expected a list of texts, found a mapping ({fid: 1})`},
		{"paper: [1]", `case.yaml:1: paper: expected keys and values (key: value), found a list ([1])`},
		{"model: adm", `case.yaml:1: model: expected keys and values (key: value), found "adm"`},
		{"model: \"5\"", `case.yaml:1: model: expected keys and values (key: value), found "5"`},
		// Validators and unmarshalers.
		{"grid:\n  scale: 1\n  columns: 0\n", `case.yaml:3: grid: columns must be at least 1, is 0`},
		{"model: {checkpoint: \"\"}", `case.yaml:1: model: checkpoint is missing`},
		{"paper: {fid: fast}", `case.yaml:1: paper.fid: expected a number, found "fast"`},
		{"paper:\n  fid: unknown", `case.yaml:2: paper.fid: the paper's value must be given`},
		{"paper: {fid: {valu: 3}}", `case.yaml:1: unknown key "valu" in paper.fid; did you mean "value"? known: value`},
		{"paper: {fid: }", `case.yaml:1: paper.fid: needs a value, found nothing`},
	} {
		e := defaults()
		err := mustParse(t, c.text).Decode(&e)
		if err == nil {
			t.Errorf("%q: no error", c.text)
			continue
		}
		wantError(t, err, c.want)
	}
}

func TestDecodeValues(t *testing.T) {
	const text = `
name: table1
samples: 1e3
seed: 0xffff_ffff_ffff_ffff
model: &m {channel_mult: 2, image_size: 3_2.0, learn_sigma: True, checkpoint: "m.pt"}
sampler: {ddim: {steps: 25}}
metrics: []
grid: {scale: -1.5e-3}
paper: {fid: 26.21, sfid: {value: 6.35}}
ready: true
device: -128
limit: -.inf
`
	e := defaults()
	e.runtime, e.Computed = 7, []byte("kept")
	b := mustParse(t, text)
	if err := b.Decode(&e); err != nil {
		t.Fatal(err)
	}
	sampler, _ := b.At("sampler")
	guidance := e.Guidance
	if !guidance.IsZero() || guidance.Path() != "guidance" {
		t.Errorf("a block that is not there: %v at %q", guidance, guidance.Path())
	}
	e.Guidance = Block{}
	want := experiment{
		Name: "table1", Samples: 1000, Seed: math.MaxUint64,
		Model:   modelBlock{flags{32, "2", true}, "m.pt", 0},
		Sampler: sampler, Metrics: []string{},
		Grid:  &gridBlock{8, -1.5e-3},
		Paper: map[string]published{"fid": {26.21}, "sfid": {6.35}},
		Ready: true, Device: -128, Limit: Extended(math.Inf(-1)),
		runtime: 7, Computed: []byte("kept"),
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("decoded %+v\nwant    %+v", e, want)
	}
}

func TestNullKeepsDefaults(t *testing.T) {
	e := defaults()
	const text = "samples:\nmodel: ~\nmetrics: null\ngrid:\npaper:\nready:\nlimit:\nguidance:\n"
	if err := mustParse(t, text).Decode(&e); err != nil {
		t.Fatal(err)
	}
	e.Sampler, e.Guidance = Block{}, Block{}
	if !reflect.DeepEqual(e, defaults()) {
		t.Errorf("decoded %+v", e)
	}
}

// A text field takes numbers and dates as they are written.
func TestTextAsWritten(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"250", "250"}, {"1.50", "1.50"}, {"010", "010"}, {"1e3", "1e3"}, {"2024-01-01", "2024-01-01"},
		{`"1,1,2"`, "1,1,2"}, {"''", ""}, {"!!str 5", "5"}, {"1,2", "1,2"}, {"'yes'", "yes"}, {"no", "no"}, {"10:20", "10:20"},
	} {
		var s struct {
			Respacing string `yaml:"timestep_respacing"`
		}
		if err := mustParse(t, "timestep_respacing: "+c.text).Decode(&s); err != nil || s.Respacing != c.want {
			t.Errorf("%s: %q, %v; want %q", c.text, s.Respacing, err, c.want)
		}
	}
}

// What the document does not mention is validated all the same, in the block
// in which it would stand.
func TestAbsentStructIsValidated(t *testing.T) {
	var e experiment
	err := mustParse(t, "\nname: x\nsamples: 3\n").Decode(&e)
	wantError(t, err, "case.yaml:2: model: checkpoint is missing")
	if e.Grid != nil {
		t.Error("a pointer was made for a block that is not there")
	}
}

func TestDecodeOtherTypes(t *testing.T) {
	var s struct {
		Pointers []*int              `yaml:"pointers"`
		Blocks   []Block             `yaml:"blocks"`
		Nested   map[string][]uint16 `yaml:"nested"`
		Grids    []gridBlock         `yaml:"grids"`
	}
	b := mustParse(t, "pointers: [1, null]\nblocks: [x, null]\nnested: {k: [3, 5]}\ngrids: [{columns: 2}]\n")
	if err := b.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if len(s.Pointers) != 2 || *s.Pointers[0] != 1 || s.Pointers[1] != nil {
		t.Errorf("pointers: %v", s.Pointers)
	}
	if text, _ := s.Blocks[0].Text(); text != "x" || !s.Blocks[1].IsNull() {
		t.Errorf("blocks: %v", s.Blocks)
	}
	if !reflect.DeepEqual(s.Nested, map[string][]uint16{"k": {3, 5}}) || s.Grids[0].Columns != 2 {
		t.Errorf("nested: %v, grids: %v", s.Nested, s.Grids)
	}
	wantError(t, mustParse(t, "grids: [{columns: 1},\n {}]").Decode(&s), "case.yaml:2: grids.1: columns must be at least 1, is 0")
	wantError(t, mustParse(t, "grids: [null]").Decode(&s), "case.yaml:1: grids.0: columns must be at least 1, is 0")
}

// Mistakes of a struct's author are errors, not panics.
func TestDecodeAuthorsMistakes(t *testing.T) {
	b := mustParse(t, "a: 1\nb: {c: 1}")
	var nilPointer *experiment
	for _, c := range []struct {
		into any
		want string
	}{
		{experiment{}, "configs: Decode needs a non-nil pointer, not configs.experiment"},
		{nilPointer, "configs: Decode needs a non-nil pointer, not *configs.experiment"},
		{nil, "configs: Decode needs a non-nil pointer, not <nil>"},
		{&struct {
			a int `yaml:"a"`
		}{}, "a has a yaml tag but is not exported"},
		{&struct {
			A int `yaml:"a"`
			B int `yaml:"a"`
		}{}, `has two fields for the key "a"`},
		{&struct {
			A int `yaml:",omitempty"`
		}{}, "A has a yaml tag without a name"},
		{&struct {
			A int `yaml:",inline"`
		}{}, "A is inline but no struct"},
		{&struct {
			A any            `yaml:"a"`
			B map[int]string `yaml:"b"`
		}{}, "configs: interface {} cannot be read from YAML\nconfigs: map[int]string cannot be read from YAML: its keys are no strings"},
	} {
		err := b.Decode(c.into)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%T: %v, want …%s", c.into, err, c.want)
		}
	}
}

// A preset stands for the other options, below those that are given.
type presettable struct {
	Preset string  `yaml:"preset"`
	Scale  float64 `yaml:"scale"`
}

func (p *presettable) UnmarshalYAML(decode func(any) error) error {
	type plain presettable
	if err := decode((*plain)(p)); err != nil || p.Preset == "" {
		return err
	}
	p.Scale = 3
	return decode((*plain)(p))
}

// Types that this package does not know decode themselves, or by a hook that the
// parts of a block inherit.
func TestDecodeForeignTypes(t *testing.T) {
	type path struct{ name, at string }
	var got struct {
		Sag   presettable `yaml:"sag"`
		Files []path      `yaml:"files"`
		None  path        `yaml:"none"`
	}
	b, err := Parse("t.yaml", []byte("sag: {preset: strong}\nfiles:\n- a\n- b\nnone: null\n"))
	if err != nil {
		t.Fatal(err)
	}
	b = b.With(Hooks{reflect.TypeFor[path](): func(b Block, v reflect.Value) error {
		name, ok := b.Text()
		v.Set(reflect.ValueOf(path{name, b.Position()}))
		if !ok {
			return errors.New("expected a path")
		}
		return nil
	}})
	if err := b.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if want := []path{{"a", "t.yaml:3"}, {"b", "t.yaml:4"}}; !reflect.DeepEqual(got.Files, want) || got.Sag.Scale != 3 || got.None != (path{}) {
		t.Errorf("%+v", got)
	}
	b, err = Parse("t.yaml", []byte("sag: {scael: 2}\nnone: {x: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = b.With(Hooks{reflect.TypeFor[path](): func(Block, reflect.Value) error { return errors.New("expected a path") }}).Decode(&got)
	if want := "t.yaml:1: unknown key \"scael\" in sag; did you mean \"scale\"? known: preset, scale\nt.yaml:2: none: expected a path"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
