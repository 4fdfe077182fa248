package checkpoint

import (
	"slices"
	"strings"
	"testing"
)

func TestUnwrap(t *testing.T) {
	sd := pairs{{"w", ramp4("0")}}
	more := pairs{{"w", ramp4("0")}, {"v", ramp4("0")}}
	for name, c := range map[string]struct {
		object  any
		wrapper string
		tensors []string
		others  []string
		ignored []string
	}{
		"plain":                    {sd, "", []string{"w"}, nil, nil},
		"model":                    {pairs{{"model", sd}, {"epoch", 3}}, "model", []string{"w"}, nil, nil},
		"params_ema before params": {pairs{{"params", sd}, {"params_ema", more}}, "params_ema", []string{"v", "w"}, []string{"params"}, nil},
		"ema without tensors":      {pairs{{"ema", pairs{{"decay", .99}}}, {"model_state_dict", sd}}, "model_state_dict", []string{"w"}, nil, nil},
		"ema that is a number":     {pairs{{"ema", .99}, {"w", ramp4("0")}}, "", []string{"w"}, nil, []string{"ema (0.99)"}},
		"a name of its own":        {pairs{{"generator", sd}, {"step", 1}}, "generator", []string{"w"}, nil, nil},
		"nested":                   {pairs{{"model", pairs{{"ema", sd}, {"model", more}}}}, "model.ema", []string{"w"}, []string{"model.model"}, nil},
		"tensors beside":           {pairs{{"rng", ramp4("0")}, {"state_dict", sd}}, "state_dict", []string{"w"}, []string{"."}, nil},
		"a random generator":       {pairs{{"rng", ramp4("0")}, {"state_dict", pairs{{"w", ramp4("0")}, {"v", ramp4("0")}}}}, "state_dict", []string{"v", "w"}, nil, nil},
		"ema with a shadow":        {pairs{{"model", sd}, {"ema", pairs{{"decay", .99}, {"shadow", more}}}}, "ema.shadow", []string{"v", "w"}, []string{"model"}, nil},
		"shadow and backup":        {pairs{{"model", sd}, {"ema", pairs{{"backup", sd}, {"shadow", more}}}}, "ema.shadow", []string{"v", "w"}, []string{"model", "ema.backup"}, nil},
		"flat with another dict":   {pairs{{"w", ramp4("0")}, {"buffers", sd}}, "", []string{"w"}, []string{"buffers"}, []string{"buffers (dict of 1)"}},
		"keys that are no strings": {pairs{{0, ramp4("0")}, {"w", ramp4("0")}, {nil, 1}}, "", []string{"w"}, nil, []string{"0 (tensor)", "None (1)"}},
		"extra state":              {pairs{{"w", ramp4("0")}, {"_extra_state", nil}}, "", []string{"w"}, nil, []string{"_extra_state (None)"}},
		"one dict twice":           {pairs{{"model", code("}(X\x01\x00\x00\x00w" + string(body(ramp4("0"))) + "uq\x09")}, {"ema", code("h\x09")}}, "ema", []string{"w"}, []string{"model"}, nil},
	} {
		for _, file := range [][]byte{torchZipOf(c.object), legacyOf(c.object, "0")} {
			f, err := parseBytes(file)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if f.Wrapper != c.wrapper || !slices.Equal(f.Tensors.Names(), c.tensors) || !slices.Equal(f.Others, c.others) || !slices.Equal(f.Ignored, c.ignored) {
				t.Errorf("%s: wrapper %q, tensors %q, others %q, ignored %q; want %+v", name, f.Wrapper, f.Tensors.Names(), f.Others, f.Ignored, c)
			}
		}
	}
}

// body is the pickle of v without its first and last opcode.
func body(v any) []byte {
	b := pickled(v)
	return b[2 : len(b)-1]
}

func TestNoStateDict(t *testing.T) {
	sd := pairs{{"w", ramp4("0")}}
	for name, c := range map[string]struct {
		object any
		want   string
	}{
		"empty":              {pairs{}, "empty dict"},
		"a list":             {list{ramp4("0")}, "holds a list of 1"},
		"a number":           {3, "holds a 3"},
		"a tensor":           {ramp4("0"), "a single tensor"},
		"an object":          {reduce{global{"my", "Net"}, tuple{}}, "a whole Python object (my.Net)"},
		"no tensors":         {pairs{{"epoch", 3}, {"model", reduce{global{"my", "Net"}, tuple{}}}}, "epoch (3), model (my.Net)"},
		"two that might be":  {pairs{{"left", sd}, {"right", sd}}, "several entries hold tensors (left, right)"},
		"key twice":          {pairs{{"w", ramp4("0")}, {"w", ramp4("0")}}, `tensor "w": is there twice`},
		"wrapper twice":      {pairs{{"model", sd}, {"model", sd}}, `entry "model" is there twice`},
		"an optimizer":       {pairs{{"state", pairs{{0, pairs{{"step", ramp4("0")}, {"exp_avg", ramp4("0")}}}}}, {"param_groups", list{pairs{{"lr", .1}}}}}, "holds the state of an optimizer (state, param_groups), which training saves beside the weights, as opt….pt"},
		"many other entries": {pairs{{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1}, {"f", 1}, {"g", 1}, {"h", 1}, {"i", 1}}, "h (1), …"},
		"OrderedDict, twice": {filled{orderedDict, pairs{{"w", ramp4("0")}, {"w", ramp4("0")}}}, `tensor "w": is there twice`},
	} {
		refused(t, name, torchZipOf(c.object), c.want)
		refused(t, name+", legacy", legacyOf(c.object), c.want)
	}
}

func TestPrefix(t *testing.T) {
	for name, c := range map[string]struct {
		object pairs
		prefix string
		names  []string
	}{
		"every key":        {pairs{{"module.a", ramp4("0")}, {"module.b.module.c", ramp4("0")}}, "module.", []string{"a", "b.module.c"}},
		"compiled":         {pairs{{"_orig_mod.a", ramp4("0")}}, "_orig_mod.", []string{"a"}},
		"both":             {pairs{{"_orig_mod.module.a", ramp4("0")}}, "_orig_mod.module.", []string{"a"}},
		"the other way":    {pairs{{"module._orig_mod.a", ramp4("0")}}, "module._orig_mod.", []string{"a"}},
		"FSDP":             {pairs{{"_fsdp_wrapped_module.a", ramp4("0")}, {"_fsdp_wrapped_module.b._fsdp_wrapped_module.c", ramp4("0")}}, "_fsdp_wrapped_module.…_fsdp_wrapped_module.", []string{"a", "b.c"}},
		"Lightning":        {pairs{{"model.a", ramp4("0")}, {"model.b", ramp4("0")}}, "model.", []string{"a", "b"}},
		"three":            {pairs{{"model._orig_mod.module.model.a", ramp4("0")}}, "model._orig_mod.module.model.", []string{"a"}},
		"parts":            {pairs{{"a._orig_mod.w", ramp4("0")}, {"b", ramp4("0")}}, "…_orig_mod.", []string{"a.w", "b"}},
		"two become one":   {pairs{{"a._orig_mod.w", ramp4("0")}, {"a.w", ramp4("0")}}, "", []string{"a._orig_mod.w", "a.w"}},
		"CompVis' U-Net":   {pairs{{"model.diffusion_model.out.0.bias", ramp4("0")}}, "", []string{"model.diffusion_model.out.0.bias"}},
		"compiled CompVis": {pairs{{"_orig_mod.model.diffusion_model.a", ramp4("0")}}, "_orig_mod.", []string{"model.diffusion_model.a"}},
		"not every key":    {pairs{{"module.a", ramp4("0")}, {"b", ramp4("0")}}, "", []string{"b", "module.a"}},
		"nothing else":     {pairs{{"module.", ramp4("0")}}, "", []string{"module."}},
	} {
		f, err := parseBytes(torchZipOf(c.object))
		if err != nil || f.Prefix != c.prefix || !slices.Equal(f.Tensors.Names(), c.names) {
			t.Errorf("%s: %+v, %v; want %+v", name, f, err, c)
		}
	}
}

// Any of several sets of weights can be asked for; Chosen tells where it is not the
// one that lies nearest.
func TestSets(t *testing.T) {
	sd, more := pairs{{"w", ramp4("0")}}, pairs{{"w", ramp4("0")}, {"v", ramp4("0")}}
	nested := pairs{{"model", sd}, {"ema", pairs{{"shadow", more}}}}
	beside := pairs{{"model", sd}, {"ema", more}}
	for _, c := range []struct {
		object  any
		set     string
		wrapper string
		chosen  bool
		tensors int
	}{
		{nested, "", "ema.shadow", true, 2},
		{nested, "ema", "ema.shadow", true, 2},
		{nested, "ema.shadow", "ema.shadow", true, 2},
		{nested, "model", "model", false, 1},
		{beside, "", "ema", false, 2},
		{beside, "ema", "ema", false, 2},
		{beside, "model", "model", true, 1},
		{pairs{{"w", ramp4("0")}, {"ema", more}}, ".", "", true, 1},
		{pairs{{"left", sd}, {"right", more}}, "right", "right", true, 2},
		{pairs{{"a.b", sd}, {"ema", more}}, "a.b", "a.b", true, 1},
	} {
		f, err := parseSet(torchZipOf(c.object), c.set)
		if err != nil || f.Wrapper != c.wrapper || f.Chosen != c.chosen || len(f.Tensors) != c.tensors {
			t.Errorf("%v of %v: %+v, %v", c.set, c.object, f, err)
		}
	}
	f, err := parseSet(torchZipOf(pairs{{"model", sd}, {"ema", pairs{{"decay", .99}, {"shadow_params", list{ramp4("0"), ramp4("0")}}}}}), "")
	if err != nil || f.Wrapper != "model" || !slices.Equal(f.Unnamed, []string{"ema.shadow_params"}) {
		t.Errorf("an average without names: %+v, %v", f, err)
	}
	for set, want := range map[string]string{"raw": `holds no weights "raw"; it holds ema.shadow, model`, "model.w": `no weights "model.w"`} {
		if _, err := parseSet(torchZipOf(nested), set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", set, err)
		}
	}
}
