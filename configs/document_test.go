package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestInclude(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"t.yaml": "include: base.yaml\nguidance: {cfg: {}}\nname: y", "base.yaml": base},
			`[] {name: y, sampler: {ddim: {steps: 25}}, guidance: {sag: {scale: 0.5, blur_sigma: 3}, cfg: {}}}`},
		{map[string]string{"t.yaml": "a: 3\ninclude: [one.yaml, sub/two.yaml]\n", "one.yaml": "a: 1\nl: [1, 2]\nm: {x: 1}", "sub/two.yaml": "a: 2\ninclude: three.yaml\nl: [3]", "sub/three.yaml": "l: []\nm: {y: 2}"},
			`[] {a: 3, l: [3], m: {x: 1, y: 2}}`},
		{map[string]string{"t.yaml": "include: [b.yaml, c.yaml]", "b.yaml": "include: d.yaml\nb: 1", "c.yaml": "include: d.yaml\nc: 1", "d.yaml": "d: 1"},
			`[] {d: 1, b: 1, c: 1}`},
		{map[string]string{"t.yaml": "include: b.yaml\nsampler: !replace {ddpm: {}}\nguidance: ~\nsweep: {a: [3]}", "b.yaml": base + "a: 1\nsweep: {a: [1, 2], name: [q]}"},
			`[{a 3} {name q}] {name: q, sampler: {ddpm: {}}, guidance: null, a: 3}`},
		{map[string]string{"t.yaml": "include: []\na: 1"}, `[] {a: 1}`},
	} {
		folder(t, c.files)
		doc, err := Load("t.yaml")
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := show(doc); err != nil || got != c.want {
			t.Errorf("%v: %v\n%s\nwant\n%s", c.files, err, got, c.want)
		}
	}
}

// Every value remembers the file and line that set it.
func TestPositionsAfterMerging(t *testing.T) {
	folder(t, map[string]string{
		"t.yaml":        "include: sub/base.yaml\n\nguidance: {sag: {scale: 1}}\nsweep:\n  sampler.ddim.steps:\n    [1, 2]\n",
		"sub/base.yaml": base,
	})
	doc, err := Load("t.yaml", "seed=3")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := doc.Rows()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"name": "sub/base.yaml:1", "sampler": "sub/base.yaml:2", "sampler.ddim.steps": "t.yaml:5", "guidance.sag": "t.yaml:3",
		"guidance.sag.scale": "t.yaml:3", "guidance.sag.blur_sigma": "sub/base.yaml:4", "seed": `override "seed=3"`,
	} {
		b, _ := rows[1].Block.At(path)
		if b.Position() != want {
			t.Errorf("%s is at %s, want %s", path, b.Position(), want)
		}
	}
	both := merge(rows[0].Block.node, mustParse(t, "sampler: {ddpm: {}}").node)
	b, _ := Block{node: both}.At("sampler")
	_, _, err = Registry[guidance]{"ddim": nil, "ddpm": nil}.One(b)
	wantError(t, err, `case.yaml:1: sampler: takes one of: ddim, ddpm; found 2: ddim (sub/base.yaml:2), ddpm (case.yaml:1); to replace what an included file sets, write "!replace" before the mapping`)
}

func TestLoadMessages(t *testing.T) {
	long := "include: [" + strings.Repeat("d.yaml, ", maxFiles) + "]"
	for _, c := range []struct {
		files     map[string]string
		overrides []string
		want      string
	}{
		{map[string]string{"t1.yml": "a: 1", "t1.txt": ""}, nil, `t.yaml: cannot be read: no such file or directory; did you mean "t1.yml"? YAML files there: t1.yml`},
		{map[string]string{"t.yaml": "a: 1\ninclude: bse.yaml", "base.yaml": "a: 1"}, nil, `t.yaml:2: include: bse.yaml: cannot be read: no such file or directory; did you mean "base.yaml"? YAML files there: base.yaml, t.yaml`},
		{map[string]string{"t.yaml": "include: sub/base.yaml"}, nil, `t.yaml:1: include: sub/base.yaml: cannot be read: no such file or directory`},
		{map[string]string{"t.yaml": "include: ."}, nil, `t.yaml:1: include: .: cannot be read: is a directory`},
		{map[string]string{"t.yaml": "include: t.yaml"}, nil, `t.yaml:1: include cycle: t.yaml → t.yaml`},
		{map[string]string{"t.yaml": "include: a.yaml", "a.yaml": "x: 1\ninclude: [sub/../b.yaml]", "b.yaml": "include: a.yaml"}, nil, `b.yaml:1: include cycle: a.yaml → b.yaml → a.yaml`},
		{map[string]string{"t.yaml": "include: [3, null, '', a.yaml, b.yaml]", "a.yaml": "b: [", "b.yaml": ""}, nil, `t.yaml:1: include: expected a file name, found 3
t.yaml:1: include: expected a file name, found nothing
t.yaml:1: include: expected a file name, found ""
a.yaml:1: not valid YAML: did not find expected node content, in "b: ["
b.yaml: is empty; expected keys and values (key: value)`},
		{map[string]string{"t.yaml": long, "d.yaml": "d: 1"}, nil, `t.yaml:1: more than 256 files are included`},
		{map[string]string{"t.yaml": "a: 1\nm: [1]"}, []string{"x", "=3", "a..b=3", ".a=1", "a=[1", "include=x", "a=1\n---\nb", "a={b: 1, b: 2}", "a= "}, `override "x": expected dotted.path=value, for example guidance.sag.scale=0.5
override "=3": expected dotted.path=value, for example guidance.sag.scale=0.5
override "a..b=3": expected dotted.path=value, for example guidance.sag.scale=0.5
override ".a=1": expected dotted.path=value, for example guidance.sag.scale=0.5
override "a=[1": not valid YAML: did not find expected ',' or ']', in "[1"
override "include=x": include stands in files only
override "a=1\n---\nb": a second document starts here; a file holds one experiment: remove the "---" or split the file
override "a={b: 1, b: 2}": duplicate key "b" at the top level; first at override "a={b: 1, b: 2}"
override "a= ": there is no value; a=null takes the default`},
		{map[string]string{"t.yaml": "a: 1\nm: [1]"}, []string{"a.b=3", "m.1=2", "m.x.y=2"}, `override "a.b=3": "a" is 1 (t.yaml:1) and has no keys
override "m.1=2": "m" is a list of 1 (t.yaml:2); "1" is no index of it
override "m.x.y=2": "m" is a list of 1 (t.yaml:2); "x" is no index of it`},
	} {
		folder(t, c.files)
		doc, err := Load("t.yaml", c.overrides...)
		if doc != nil {
			t.Errorf("%v: a document with an error", c.files)
		}
		wantError(t, err, c.want)
	}
}

func TestLoadKeepsTheCause(t *testing.T) {
	folder(t, nil)
	_, err := Load("none.yaml")
	if !strings.Contains(fmt.Sprint(err), "none.yaml") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
