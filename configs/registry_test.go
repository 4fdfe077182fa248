package configs

import (
	"reflect"
	"testing"
)

func TestOne(t *testing.T) {
	for _, c := range []struct {
		text string
		name string
		want guidance
	}{
		{"g: {cfg: {scale: 2}}", "cfg", &cfg{2}},
		{"g: {sag: }", "sag", &sag{0.5, 1.5, ""}},
		{"g: {sag: {layer: out}}", "sag", &sag{0.5, 1.5, "out"}},
		{"g: sag", "sag", &sag{0.5, 1.5, ""}},
		{"g: [sag]", "", nil},
	} {
		b, _ := mustParse(t, c.text).At("g")
		name, v, err := guidances.One(b)
		if (err == nil) != (c.want != nil) || name != c.name || !reflect.DeepEqual(v, c.want) {
			t.Errorf("%s: %s %v %v", c.text, name, v, err)
		}
	}
}

func TestOneMessages(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"g:", `case.yaml:1: g: is missing; choose one of: cfg, classifier, sag`},
		{"g: {}", `case.yaml:1: g: is empty; choose one of: cfg, classifier, sag`},
		{"g: [sag]", `case.yaml:1: g: takes one of: cfg, classifier, sag; found a list ([sag])`},
		{"g: 5", `case.yaml:1: g: expected a name, found 5; known: cfg, classifier, sag`},
		{"g: sga", `case.yaml:1: g: unknown name "sga"; did you mean "sag"? known: cfg, classifier, sag`},
		{"g: {clasifier: {}}", `case.yaml:1: g: unknown name "clasifier"; did you mean "classifier"? known: cfg, classifier, sag`},
		{"g:\n  sag: {blursigma: 3, blur_sigma: 0}", `case.yaml:2: unknown key "blursigma" in g.sag; did you mean "blur_sigma"? known: scale, blur_sigma, layer`},
		{"g:\n  sag:\n    blur_sigma: 0\n    scale: -1", `case.yaml:3: g.sag: blur_sigma must be positive, is 0
case.yaml:4: g.sag: scale must not be negative, is -1`},
		{"g: {sag: 5}", `case.yaml:1: g.sag: expected keys and values (key: value), found 5`},
	} {
		b, _ := mustParse(t, c.text).At("g")
		_, v, err := guidances.One(b)
		if v != nil {
			t.Errorf("%s: a value with an error", c.text)
		}
		wantError(t, err, c.want)
	}
	_, _, err := guidances.One(Block{})
	wantError(t, err, "is missing; choose one of: cfg, classifier, sag")
}

func TestMany(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"g: {sag: {scale: 1}, cfg: {}}", []string{"sag 1 g.sag", "cfg 4 g.cfg"}},
		{"g: [cfg, {sag: {scale: 2}}]", []string{"cfg 4 g.0", "sag 2 g.1.sag"}},
		{"g: sag", []string{"sag 0.5 g"}},
		{"g: {}", nil}, {"g: []", nil}, {"g:", nil},
	} {
		b, _ := mustParse(t, c.text).At("g")
		all, err := guidances.Many(b)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		var got []string
		for _, n := range all {
			text, _ := Canonical(n.Value.strength())
			got = append(got, n.Name+" "+string(text)+" "+n.Block.Path())
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.text, got, c.want)
		}
	}
	if all, err := guidances.Many(Block{}); all != nil || err != nil {
		t.Errorf("nothing: %v %v", all, err)
	}
}

func TestManyMessages(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"g: [sag, [cfg], null, 5, sag]", `case.yaml:1: g.1: expected a name, found a list ([cfg]); known: cfg, classifier, sag
case.yaml:1: g.2: expected a name, found nothing; known: cfg, classifier, sag
case.yaml:1: g.3: expected a name, found 5; known: cfg, classifier, sag
case.yaml:1: g.4: "sag" is named twice; first at case.yaml:1`},
		{"g:\n  sga: {}\n  cfg: {scal: 1}\n", `case.yaml:2: g: unknown name "sga"; did you mean "sag"? known: cfg, classifier, sag
case.yaml:3: unknown key "scal" in g.cfg; did you mean "scale"? known: scale`},
	} {
		b, _ := mustParse(t, c.text).At("g")
		_, err := guidances.Many(b)
		wantError(t, err, c.want)
	}
}
