package configs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

const base = `name: x
sampler: {ddim: {steps: 25}}
guidance:
  sag: {scale: 0.5, blur_sigma: 3}
`

// show writes a document's rows, a line each.
func show(doc *Document) (string, error) {
	rows, err := doc.Rows()
	var out strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&out, "%s%v %s\n", r.Label, r.Settings, r.Block)
	}
	return strings.TrimSpace(out.String()), err
}

func TestRows(t *testing.T) {
	for _, c := range []struct {
		text      string
		overrides []string
		want      string
	}{
		{base, nil, `[] {name: x, sampler: {ddim: {steps: 25}}, guidance: {sag: {scale: 0.5, blur_sigma: 3}}}`},
		{"a: {b: 1}\nsweep: {a.b: [0, .5, hi], c: [[1, 2], {d: 3}, ~]}\n", nil, `
[{a.b 0} {c [1, 2]}] {a: {b: 0}, c: [1, 2]}
[{a.b 0} {c {d: 3}}] {a: {b: 0}, c: {d: 3}}
[{a.b 0} {c null}] {a: {b: 0}, c: null}
[{a.b .5} {c [1, 2]}] {a: {b: .5}, c: [1, 2]}
[{a.b .5} {c {d: 3}}] {a: {b: .5}, c: {d: 3}}
[{a.b .5} {c null}] {a: {b: .5}, c: null}
[{a.b hi} {c [1, 2]}] {a: {b: hi}, c: [1, 2]}
[{a.b hi} {c {d: 3}}] {a: {b: hi}, c: {d: 3}}
[{a.b hi} {c null}] {a: {b: hi}, c: null}`},
		// Table 1: an unconditional and a conditional model, each with its scales.
		{`model: {class_cond: false, size: 256}
guidance: {sag: {scale: 0}}
sweep: {seed: [1]}
rows:
- {label: uncond, sweep: {guidance.sag.scale: [0, 0.5]}}
- {label: cond, model: {class_cond: true}, sweep: {guidance.sag.scale: [0.2]}}
`, nil, `
uncond[{seed 1} {guidance.sag.scale 0}] {model: {class_cond: false, size: 256}, guidance: {sag: {scale: 0}}, seed: 1}
uncond[{seed 1} {guidance.sag.scale 0.5}] {model: {class_cond: false, size: 256}, guidance: {sag: {scale: 0.5}}, seed: 1}
cond[{seed 1} {guidance.sag.scale 0.2}] {model: {class_cond: true, size: 256}, guidance: {sag: {scale: 0.2}}, seed: 1}`},
		// A bare name opens for a sweep below it, and so does a null.
		{"sampler: ddim\nguidance: {sag: }\nsweep: {sampler.ddim.steps: [5], guidance.sag.scale: [1]}", nil,
			`[{sampler.ddim.steps 5} {guidance.sag.scale 1}] {sampler: {ddim: {steps: 5}}, guidance: {sag: {scale: 1}}}`},
		{"parts: [{a: 1}, {a: 2}]\nsweep: {parts.1.a: [3]}", nil, `[{parts.1.a 3}] {parts: [{a: 1}, {a: 3}]}`},
		{"guidance: {}\nsweep: {guidance: [{cfg: {}}], guidance.cfg.scale: [1]}", nil,
			`[{guidance {cfg: {}}} {guidance.cfg.scale 1}] {guidance: {cfg: {scale: 1}}}`},
		{"label: alone\na: 1\nsweep:\n", nil, `alone[] {a: 1}`},
		{"label: all\na: 1\nrows: [{a: 2}, {label: 5, a: 3}]", nil, "all[] {a: 2}\n5[] {a: 3}"},
		{"a: {b: 1}\nrows: [{a: !replace {c: 1}}]", nil, "[] {a: {c: 1}}"},
		// Overrides win over everything.
		{base, []string{"name=y", "guidance.sag.scale=7", "sampler=ddpm", "metrics=[fid]", "metrics.0=is", "new.a.b=null", " seed ={x: 1}"},
			`[] {name: y, sampler: ddpm, guidance: {sag: {scale: 7, blur_sigma: 3}}, metrics: [is], new: {a: {b: null}}, seed: {x: 1}}`},
		{"sampler: ddim", []string{"sampler.ddim.steps=5"}, `[] {sampler: {ddim: {steps: 5}}}`},
		{"a: 1\nb: 2\nsweep: {a: [1, 2], b: [3, 4]}", []string{"a=7"}, "[{b 3}] {a: 7, b: 3}\n[{b 4}] {a: 7, b: 4}"},
		{"a: {b: 1}\nsweep: {a.b: [1, 2]}", []string{"a={b: 5, c: 6}"}, "[{a.b 1}] {a: {b: 1, c: 6}}\n[{a.b 2}] {a: {b: 2, c: 6}}"},
		{"a: {b: 1}\nsweep: {a.b: [1, 2]}", []string{"sweep.a.b=[7]", "label=mine"}, "mine[{a.b 7}] {a: {b: 7}}"},
		{"a: 1\nrows: [{a: 2}, {b: 3, sweep: {a: [8, 9]}}]", []string{"a=7", "rows.0.c=4"}, "[] {a: 7, c: 4}\n[] {a: 7, b: 3}"},
		{"a: 1\nrows: [{a: 2}]\nsweep: {a: [3]}", []string{"rows=null", "sweep=null"}, ""},
	} {
		folder(t, map[string]string{"t.yaml": c.text})
		doc, err := Load("t.yaml", c.overrides...)
		if err != nil {
			t.Errorf("%s%v: %v", c.text, c.overrides, err)
			continue
		}
		got, err := show(doc)
		if c.want == "" { // rows: null is no list of rows
			wantError(t, err, `override "rows=null": rows: expected a list of rows, found nothing`)
		} else if err != nil || got != strings.TrimSpace(c.want) {
			t.Errorf("%s%v: %v\n%s\nwant\n%s", c.text, c.overrides, err, got, c.want)
		}
	}
}

func TestRowsMessages(t *testing.T) {
	for _, c := range []struct{ text, override, want string }{
		{base + "sweep: {guidance.sga.scale: [0], guidence.sag.scale: [0]}", "", `t.yaml:5: sweep path "guidance.sga.scale": there is no "sga" in "guidance"; did you mean "sag"? known: sag
t.yaml:5: sweep path "guidence.sag.scale": there is no "guidence" in the document; did you mean "guidance"? known: name, sampler, guidance`},
		{base + "sweep:\n  guidance.sag.scale.x: [0]", "", `t.yaml:6: sweep path "guidance.sag.scale.x": "guidance.sag.scale" is 0.5 (t.yaml:4) and has no keys`},
		{base + "sweep: {guidance.sag.scale: []}", "", `t.yaml:5: sweep path "guidance.sag.scale": the list is empty; give it values or remove it`},
		{base + "sweep: {guidance.sag.scale: 0.5}", "", `t.yaml:5: sweep path "guidance.sag.scale": expected a list of values, found 0.5`},
		{base + "sweep: {guidance.sag.scale: }", "", `t.yaml:5: sweep path "guidance.sag.scale": expected a list of values, found nothing`},
		{base + "sweep: {guidance: {sag: {scale: [0]}}}", "", `t.yaml:5: sweep path "guidance": expected a list of values, found a mapping ({sag: {scale: [0]}}); write the whole path with dots: guidance.…: [values], or a range: {range: [0, 1.5], points: 7}`},
		{base + "sweep: {guidance.sag.scale: [0.5, 1, .50]}", "", `t.yaml:5: sweep path "guidance.sag.scale": .50 stands twice in the list`},
		{base + "sweep: [1]", "", `t.yaml:5: sweep: expected dotted paths and lists (guidance.sag.scale: [0, 0.5]), found a list ([1])`},
		{base + "sweep: {guidance..scale: [1], \"\": [1], label: [a]}", "", `t.yaml:5: sweep path "guidance..scale": a key is empty
t.yaml:5: sweep path "": a key is empty
t.yaml:5: sweep path "label": label cannot be swept`},
		{base + "sweep: {guidance.sag.scale: [1, 2],\n  guidance: [{}]}", "", `t.yaml:6: sweep path "guidance": it replaces what "guidance.sag.scale" chooses (t.yaml:5); write it before that one`},
		{base + "sweep: {guidance: [{}], guidance.sag.scale: [1]}", "", `t.yaml:5: sweep path "guidance.sag.scale": there is no "sag" in "guidance"; there are none here`},
		{base + "sweep: {guidance: [{}]}", "guidance.sag.scale=7", `override "guidance.sag.scale=7": the sweep at t.yaml:5 replaces the whole of "guidance"; override that, or sweep.guidance`},
		{"sampler: ddpm\nsweep: {sampler.ddim.steps: [5]}", "", `t.yaml:2: sweep path "sampler.ddim.steps": there is no "ddim" in "sampler"; did you mean "ddpm"? known: ddpm`},
		{"l: [1]\nsweep: {l.1.x: [5]}", "", `t.yaml:2: sweep path "l.1.x": there is no "1" in "l"; known: 0`},
		{"a: 1\nsweep: {a: [1], b: [1]}", "sweep.c=5", `override "sweep.c=5": sweep path "c": expected a list of values, found 5`},
		{"a: 1\nrows: []", "", `t.yaml:2: rows: expected a list of rows, found an empty list`},
		{"a: 1\nrows: {a: 2}", "", `t.yaml:2: rows: expected a list of rows, found a mapping ({a: 2})`},
		{"a: 1\nrows:\n- {include: x, rows: []}\n- 5\n- label: [x]\n- ", "", `t.yaml:3: rows.0: rows cannot stand in a row
t.yaml:4: rows.1: expected keys and values (key: value), found 5
t.yaml:5: label: expected text, found a list ([x])
t.yaml:6: rows.3: expected keys and values (key: value), found nothing`},
		{"sweep: {" + wide(5, 7) + "}", "", `t.yaml:1: the sweep has more than 2000 rows`},
		{"rows: [" + strings.Repeat("{sweep: {"+wide(2, 44)+"}}, ", 2) + "]", "", `t.yaml:1: the table has more than 2000 rows`},
	} {
		folder(t, map[string]string{"t.yaml": c.text})
		var overrides []string
		if c.override != "" {
			overrides = []string{c.override}
		}
		doc, err := Load("t.yaml", overrides...)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		rows, err := doc.Rows()
		if rows != nil {
			t.Errorf("%s: rows with an error", c.text)
		}
		wantError(t, err, c.want)
	}
}

// wide is a sweep of n paths with m values each.
func wide(n, m int) string {
	var paths []string
	for i := range n {
		values := "0"
		for v := 1; v < m; v++ {
			values += fmt.Sprintf(", %d", v)
		}
		paths = append(paths, fmt.Sprintf("p%d: [%s]", i, values))
	}
	return strings.Join(paths, ", ")
}

// A misspelt last key of a sweep path is found by the row's strict decoding, at
// the sweep's line.
func TestSweptKeyIsDecodedStrictly(t *testing.T) {
	folder(t, map[string]string{"t.yaml": base + "sweep:\n  guidance.sag.scal: [1, 2]\n  sapmles: [fast]\nsweeep: 1\n"})
	doc, err := Load("t.yaml", "samples=2.5")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := doc.Rows()
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	var faults []error
	for _, r := range rows {
		e := defaults()
		faults = append(faults, r.Block.Decode(&e))
		_, err := guidances.Many(e.Guidance)
		faults = append(faults, err)
	}
	wantError(t, Join(faults...), `t.yaml:8: unknown key "sweeep" at the top level; did you mean "sweep"? `+topKeys+`, include, sweep, rows, label
override "samples=2.5": samples: expected a whole number, found 2.5; it has a fraction
t.yaml:7: unknown key "sapmles" at the top level; did you mean "samples"? `+topKeys+`, include, sweep, rows, label
t.yaml:6: unknown key "scal" in guidance.sag; did you mean "scale"? known: scale, blur_sigma, layer`)
}

// Rows may be listed and decoded by several goroutines at once.
func TestRowsConcurrently(t *testing.T) {
	folder(t, map[string]string{"t.yaml": base + "rows: [{label: a}, {label: b, seed: 1}]\nsweep: {guidance.sag.scale: [0, 1]}"})
	doc, err := Load("t.yaml", "samples=3")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			rows, err := doc.Rows()
			if err != nil || len(rows) != 4 {
				t.Errorf("%d rows, %v", len(rows), err)
			}
			for _, r := range rows {
				e := defaults()
				if err := r.Block.Decode(&e); err != nil || e.Samples != 3 {
					t.Errorf("%v %v", e, err)
				}
			}
		})
	}
	wg.Wait()
	if e := doc.Has("sweep") || doc.Has("rows") || doc.Has("label"); e || !doc.Has("guidance.sag") {
		t.Errorf("the document's own block is %s", doc)
	}
}
