package configs

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestCanonical(t *testing.T) {
	block := mustParse(t, "b: 0x10\na: [1e3, .50, -0.0, \"1\", yes, true, null, 1.5e300]\n")
	same := mustParse(t, "a: [1000, 0.5, 0, '1', 'yes', True, ~, 15e299]\nb: 16 # other words\n")
	e := defaults()
	e.runtime, e.Computed = 1, []byte("x") // do not count
	for _, c := range []struct {
		v    any
		want string
	}{
		{&e, `{"device":0,"grid":{"columns":8,"scale":0},"guidance":null,"limit":0,"metrics":["fid"],` +
			`"model":{"channel_mult":"","checkpoint":"model.pt","image_size":0,"learn_sigma":false},` +
			`"name":"","paper":{},"ready":false,"sampler":null,"samples":64,"seed":0}`},
		{nil, `null`},
		{(*experiment)(nil), `null`},
		{map[string]float64{"b": 1, "a": math.Copysign(0, -1), "c": math.Inf(-1), "d": math.NaN()}, `{"a":0,"b":1,"c":"-Inf","d":"NaN"}`},
		{[]any{float32(0.1), 0.1, 1e21, 1e-7, uint64(math.MaxUint64), int64(math.MinInt64), "<é\n>"}, `[0.1,0.1,1e+21,1e-07,18446744073709551615,-9223372036854775808,"<é\n>"]`},
		{Named[guidance]{"cfg", &cfg{2}, block}, `{"name":"cfg","value":{"scale":2}}`},
		{block, `{"a":[1000,0.5,0,"1","yes",true,null,1.5e+300],"b":16}`},
		{same, `{"a":[1000,0.5,0,"1","yes",true,null,1.5e+300],"b":16}`},
		{time.Unix(0, 0).UTC(), `"1970-01-01T00:00:00Z"`},
		{struct{}{}, `{}`},
		{[2]bool{true}, `[true,false]`},
	} {
		got, err := Canonical(c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("%T: %s, %v\nwant %s", c.v, got, err, c.want)
		}
	}
	for want, v := range map[string]any{
		"none of its fields has a yaml tag": struct{ A int }{1},
		"func() has no canonical form (struct": struct {
			F func() `yaml:"f"`
		}{},
		"its keys are no strings":                    map[int]int{},
		"chan int has no canonical form":             []chan int{nil},
		"complex128 has no canonical form":           complex(1, 1),
		"configs.published has no canonical form: n": map[string]published{"fid": {1}},
	} {
		if got, err := Canonical(v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%T: %s, %v; want …%s…", v, got, err, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	type sweepable struct {
		Grids  []gridBlock          `yaml:"grids"`
		ByName map[string]gridBlock `yaml:"by_name" doc:"A|B,\n two lines."`
		Self   *sweepable           `yaml:"self"`
		Ready  *bool                `yaml:"ready"`
		Chosen Block                `yaml:"chosen" type:"list of names" doc:"[a, b]"`
	}
	for _, c := range []struct {
		title string
		v     any
		want  string
	}{
		{"guidance.sag", guidances["sag"](), "## guidance.sag\n" + `
| key | type | default | range | meaning |
| --- | --- | --- | --- | --- |
| ` + "`scale` | number | `0.5`" + ` |  | s of equation 16. |
| ` + "`blur_sigma` | number | `1.5`" + ` |  |  |
| ` + "`layer` | text | `\"\"`" + ` |  |  |
`},
		{"# Experiment", defaults(), "# Experiment\n" + `
| key | type | default | range | meaning |
| --- | --- | --- | --- | --- |
| ` + "`name` | text | `\"\"`" + ` |  | Folder below results/. |
| ` + "`samples` | whole number | `64`" + ` |  | Images a row. |
| ` + "`seed` | whole number from 0 up | `0`" + ` |  |  |
| ` + "`model` | block |" + `  |  |  |
| ` + "`model.image_size` | whole number | `0`" + ` |  |  |
| ` + "`model.channel_mult` | text | `\"\"`" + ` |  |  |
| ` + "`model.learn_sigma` | true or false | `false`" + ` |  |  |
| ` + "`model.checkpoint` | text | `\"model.pt\"`" + ` |  |  |
| ` + "`sampler` | block |" + `  |  |  |
| ` + "`guidance` | block |" + `  |  |  |
| ` + "`metrics` | list of texts | `[\"fid\"]`" + ` |  | fid \| sfid \| is |
| ` + "`grid` | block |" + `  |  |  |
| ` + "`grid.columns` | whole number | `8`" + ` |  |  |
| ` + "`grid.scale` | number | `0`" + ` |  |  |
| ` + "`paper` | mapping of names to block |" + `  |  |  |
| ` + "`ready` | true or false | `false`" + ` |  |  |
| ` + "`device` | whole number | `0`" + ` |  |  |
| ` + "`limit` | number | `0`" + ` |  |  |
`},
		{"nested", &sweepable{}, "## nested\n" + `
| key | type | default | range | meaning |
| --- | --- | --- | --- | --- |
| ` + "`grids` | list of blocks |" + `  |  |  |
| ` + "`grids[].columns` | whole number | `0`" + ` |  |  |
| ` + "`grids[].scale` | number | `0`" + ` |  |  |
| ` + "`by_name` | mapping of names to block |" + `  |  | A\|B, two lines. |
| ` + "`by_name.NAME.columns` | whole number | `0`" + ` |  |  |
| ` + "`by_name.NAME.scale` | number | `0`" + ` |  |  |
| ` + "`self` | block |" + `  |  |  |
| ` + "`ready` | true or false |" + `  |  |  |
| ` + "`chosen` | list of names |" + `  |  | [a, b] |
`},
		{"none", &struct{ Runtime int }{}, "## none\n\nIt has no keys.\n"},
	} {
		var out strings.Builder
		if err := Describe(&out, c.title, c.v); err != nil || out.String() != c.want+"\n" {
			t.Errorf("%v\n%s\nwant\n%s", err, out.String(), c.want)
		}
	}
	wantError(t, Describe(new(strings.Builder), "x", 5), "configs: Describe needs a struct, not int")
}
