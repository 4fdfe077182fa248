package configs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
)

var seeds = []string{
	base, base + "sweep: {guidance.sag.scale: [0, 0.5], seed: [1, 2]}\n",
	base + "rows: [{label: a, sweep: {sampler.ddim.steps: [1]}}, {model: {checkpoint: x}}]\n",
	"a: &x {b: [1, *y]}\nc: {<<: *x}\n", "a: &y [1]\nc: [*y, *y]\n<<: {d: 1}", "a: &a [*a]",
	"include: [t.yaml, other.yaml]\n", "include: other.yaml\na: !replace {b: 1}",
	"t: [\"\", '250', yes, !!str 1, 1e3, 010, 0x1F, .inf, ~, 2024-01-01, |\n  x\n  y\n]", "\"a b\": >\n  folded\n  text\n\n? x\n: y\n",
	"a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d]\nf: [*e,*e,*e,*e]\n",
	"a: [1, 2\nb: 3", "a:\n\tb: 1", "a: 1\n---\nb: 2", "\xef\xbb\xbfa: 1", "a: \xff", "# c\n", "{}", "a.b: {c.d: 1}\n'': 2\n",
}

// memoryFactor bounds the bytes that parsing allocates for each of the input,
// and for each of the 2048 values that aliases may add.
const memoryFactor = 2048

// Whatever the bytes: no panic, errors name the file, and what parses is read
// back from its own YAML as the same document.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b Block
		var err error
		fuzzing.Bounded(t, len(data)+2048, memoryFactor, func() { b, err = Parse("fuzz.yaml", data) })
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "fuzz.yaml") {
					t.Fatalf("a message without the file: %q", line)
				}
			}
			return
		}
		e := defaults()
		if err := b.Decode(&e); err == nil {
			_, _ = Canonical(e)
		}
		text, err := b.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		one, _ := Canonical(b)
		two, _ := Canonical(again)
		if !bytes.Equal(one, two) {
			t.Fatalf("%s\nread back as\n%s\nfrom\n%s", one, two, text)
		}
		if second, err := again.YAML(); err != nil || !bytes.Equal(text, second) {
			t.Fatalf("%s\nwritten again as\n%s", text, second)
		}
	})
}

// A file with any include, sweep, rows and override: no panic, and every row
// decodes or says why not.
func FuzzLoad(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), "guidance.sag.scale=1", "sweep.a=[1, 2]")
	}
	f.Add([]byte(base), "rows=[{a: 1}]", "rows.0.a={b: 2}")
	f.Add([]byte("sampler: ddim"), "sampler.ddim.steps=3", "label=x")
	f.Fuzz(func(t *testing.T, data []byte, first, second string) {
		dir := t.TempDir()
		path := filepath.Join(dir, "t.yaml")
		for name, text := range map[string][]byte{"t.yaml": data, "other.yaml": []byte(base)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		doc, err := Load(path, first, second)
		if err != nil {
			return
		}
		rows, err := doc.Rows()
		if (err == nil) == (len(rows) == 0) {
			t.Fatalf("%d rows with error %v", len(rows), err)
		}
		for _, r := range rows {
			e := defaults()
			if err := r.Block.Decode(&e); err == nil {
				_, _ = guidances.Many(e.Guidance)
			}
			for _, s := range r.Settings {
				if !r.Block.Has(s.Path) {
					t.Fatalf("%q is not set in %s", s.Path, r.Block)
				}
			}
		}
	})
}
