package run

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/experiments/work"
	"sagbench/internal/lying"
	"sagbench/internal/tiny"
	"sagbench/models/ort"
)

// options are those of a run that tells nobody, with short times.
func options(t *testing.T, results string) Options {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	o := Options{Results: results, Runtime: ort.Options{Threads: 1}, Progress: human.NewProgress(null), Work: work.Defaults()}
	o.Work.Heartbeat, o.Work.Stale, o.Work.Listing = 50*time.Millisecond, time.Second, 100*time.Millisecond
	return o
}

func load(t *testing.T, file string, overrides ...string) *plan.Experiment {
	t.Helper()
	e, err := plan.Load(file, overrides)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Workers whose file systems lie, as network file systems may, leave what one worker
// leaves whose file system does not.
func TestLyingFileSystem(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir())
	undisturbed, shared := t.TempDir(), t.TempDir()
	if err := Experiment(t.Context(), load(t, file, "samples=13"), options(t, undisturbed)); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	machines := make([]*lying.FS, 3)
	for i := range machines {
		machines[i] = lying.New(uint64(i))
		o := options(t, shared)
		o.FS, o.Work.Part = machines[i], work.Part{I: i, N: len(machines)}
		all.Go(func() {
			if err := Experiment(t.Context(), load(t, file, "samples=13"), o); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	tiny.Same(t, tiny.Tree(t, shared), tiny.Tree(t, undisturbed))
	for i, m := range machines {
		if len(m.Lies) < 5 {
			t.Errorf("machine %d told few lies: %v", i, m.Lies)
		}
	}
}

// Where images of a batch may depend on each other, the last batch is drawn whole and
// cut, and so is one of which some images are there; on the CPU that changes no byte.
func TestWholeBatches(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	cut, whole := t.TempDir(), t.TempDir()
	for _, samples := range []string{"samples=5", "samples=7"} { // the second goes on with image 5, in a batch with image 4
		e := load(t, file, "batch=4", "metrics=[]", samples)
		if err := Experiment(t.Context(), e, options(t, cut)); err != nil {
			t.Fatal(err)
		}
		s := newSession(e, options(t, whole))
		s.whole = true
		err := s.run(t.Context())
		s.close()
		if err != nil {
			t.Fatal(err)
		}
		tiny.Same(t, tiny.Tree(t, whole), tiny.Tree(t, cut))
	}
}

// Images that kinds of device have drawn together are counted in metrics.json; a kind
// alone is refused where another one began.
func TestMixedKinds(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "sweep:", "#")
	results := t.TempDir()
	e := load(t, file)
	s := newSession(e, options(t, results))
	runs, err := s.Identify(s.folder, s.hashes)
	if err != nil {
		t.Fatal(err)
	}
	begun := runs[0].Images
	begun.Height, begun.Width, begun.Classes, begun.Drawer = 32, 32, 10, store.Drawer{Kind: "GPU of another kind"}
	if err := begun.Put(store.Span{From: 2, To: 5}, make([]uint8, 3*32*32*3)); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(s.folder, work.Folder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, filepath.Join(folder, runs[0].ID+".kind"), "GPU of another kind")

	before := tiny.Tree(t, results)
	err = Experiment(t.Context(), e, options(t, results))
	if err == nil || !strings.Contains(err.Error(), "there: GPU of another kind") || !strings.Contains(err.Error(), "--mixed") {
		t.Errorf("another kind of device was not refused: %v", err)
	}
	for path, sum := range before {
		if tiny.Tree(t, results)[path] != sum {
			t.Errorf("%s was changed", path)
		}
	}
	o := options(t, results)
	o.Work.Mixed = true
	var counted map[string]int
	o.Done = func(_ string, scored []*store.Metrics) error {
		counted = scored[0].Devices
		return nil
	}
	if err := Experiment(t.Context(), e, o); err != nil {
		t.Fatal(err)
	}
	own, err := o.Runtime.Kind()
	if err != nil || len(counted) != 2 || counted["GPU of another kind"] != 3 || counted[own] != 5 {
		t.Errorf("%v, %v", counted, err)
	}
	m, err := store.ReadMetrics(filepath.Join(runs[0].Folder, store.MetricsFile))
	if err != nil || m.Devices[own] != 5 {
		t.Errorf("metrics.json: %v, %v", m, err)
	}
}

// What differs between two plans is told key by key; what is common to all rows once.
func TestDiffers(t *testing.T) {
	one := agreement{
		Format: planFormat, Experiment: "e", Versions: map[string]string{"sagbench": "0.1.0", "sampling": "2"},
		Rows: []agreedRow{
			{Run: "a", Title: "s=0", Samples: 8, Batch: 2, Config: json.RawMessage(`{"batch":2,"guidance":{"sag":{"scale":0}},"metrics":[{"fid":{}}]}`)},
			{Run: "b", Title: "s=1", Samples: 8, Batch: 2, Config: json.RawMessage(`{"batch":2,"guidance":{"sag":{"scale":1}},"metrics":[{"fid":{}}]}`)},
		},
	}
	for name, c := range map[string]struct {
		edit func(a *agreement)
		want string
	}{
		"nothing":       {func(*agreement) {}, ""},
		"hashes":        {func(a *agreement) { a.Files = map[string]store.Known{"x": {}} }, ""},
		"version":       {func(a *agreement) { a.Versions = map[string]string{"sagbench": "0.2.0", "sampling": "2"} }, "  sagbench: 0.2.0 there, 0.1.0 here"},
		"new version":   {func(a *agreement) { a.Format++ }, "  its plan.json is of another version of the program, or damaged"},
		"another table": {func(a *agreement) { a.Rows = a.Rows[:1] }, "  rows: 1 there, 2 here"},
		"all rows": {func(a *agreement) {
			a.Rows[0].Config = json.RawMessage(`{"batch":4,"guidance":{"sag":{"scale":0}},"metrics":[{"fid":{}}]}`)
			a.Rows[1].Config = json.RawMessage(`{"batch":4,"guidance":{"sag":{"scale":1}},"metrics":[{"fid":{}}]}`)
		}, "  batch: 4 there, 2 here"},
		"one row": {func(a *agreement) {
			a.Rows[1].Config = json.RawMessage(`{"batch":2,"guidance":{"sag":{"scale":0.5}},"metrics":[{"fid":{}}],"prompts":["x"]}`)
		}, "  row 2/2 s=1: guidance.sag.scale: 0.5 there, 1 here\n  row 2/2 s=1: prompts.0: x there, none here"},
		"checkpoint": {func(a *agreement) { a.Rows[0].Run = "c" }, "  row 1/2 s=0: content of its networks' files: run id c there, a here"},
	} {
		there := one
		there.Rows = append([]agreedRow(nil), one.Rows...)
		c.edit(&there)
		data, err := there.encode()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := one.differs(data); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
	one.Files = map[string]store.Known{"/data/ref.npz": {SHA256: strings.Repeat("a", 64), Size: 7}}
	whole, err := one.encode()
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := decodeAgreement(whole); !ok || a.Files["/data/ref.npz"].Size != 7 {
		t.Errorf("read back: %v, %+v", ok, a)
	}
	random := rand.New(rand.NewPCG(13, 6))
	for range 200 {
		data := bytes.Clone(whole)
		at := random.IntN(len(data))
		data[at] ^= byte(1 + random.IntN(255))
		if _, ok := decodeAgreement(data); ok || one.differs(data) == nil {
			t.Fatalf("byte %d of a plan.json was changed, and it is taken", at)
		}
	}
}

// A hash that another process has told is compared with the file before a score stands
// under it.
func TestToldHashes(t *testing.T) {
	file, o := tiny.Experiment(t, t.TempDir(), "steps: 2", "steps: 1", "sweep:", "#"), options(t, t.TempDir())
	e := load(t, file, "metrics=[fid]")
	s := newSession(e, o)
	defer s.close()
	if err := s.identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.worker.Leave()
	path := filepath.Join(s.folder, work.Folder, "plan.json")
	data, err := os.ReadFile(path)
	a, ok := decodeAgreement(data)
	if err != nil || !ok || len(a.Files) < 3 {
		t.Fatal(err, ok, a.Files)
	}
	known := a.Files[tiny.Reference()]
	known.SHA256 = strings.Repeat("a", 64)
	a.Files[tiny.Reference()] = known
	if data, err = a.encode(); err != nil {
		t.Fatal(err)
	}
	tiny.Write(t, path, string(data))
	err = Experiment(t.Context(), load(t, file, "metrics=[fid]"), o)
	if err == nil || !strings.Contains(err.Error(), tiny.Reference()+": its sha256 is ") || !strings.Contains(err.Error(), "has read aaaaaaaaaaaa") {
		t.Errorf("a hash that is not the file's: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(s.folder, "*", store.MetricsFile)); len(found) > 0 {
		t.Errorf("a score stands under it: %v", found)
	}
}

// flippedBytes is how often a byte of a file of .work is changed; with the build tag slow
// 200 times.
var flippedBytes = 20

// A flipped byte in what workers tell each other, of a run that has stopped, never
// changes what the run leaves: a file that makes no sense is done without, or is an
// error that says what to do, which leaves everything as it was.
func TestFlippedWork(t *testing.T) {
	file := tiny.Experiment(t, t.TempDir(), "steps: 2", "steps: 1", "sweep:", "#")
	e := load(t, file, "samples=4", "metrics=[]")
	undisturbed, stopped := t.TempDir(), t.TempDir()
	if err := Experiment(t.Context(), e, options(t, undisturbed)); err != nil {
		t.Fatal(err)
	}
	want := tiny.Tree(t, undisturbed)

	// One unit is drawn, one is claimed, by a worker that is silent.
	s := newSession(e, options(t, stopped))
	err := s.identify(t.Context())
	if err == nil {
		err = s.join(t.Context())
	}
	if err == nil {
		s.todo, err = s.Forecast(t.Context(), stopped, nil)
	}
	if err == nil {
		err = s.Draw(t.Context(), work.Unit{Row: 0, K: 0})
	}
	if err != nil {
		t.Fatal(err)
	}
	id := s.runs[0].ID
	kind, err := s.Runtime.Kind()
	if err == nil {
		err = s.worker.Kind(id, "", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.worker.Leave()
	s.close()
	of := func(name string) string { return filepath.Join(s.folder, work.Folder, name) }
	silent, claim, hours := of("workers/host-x-1-2-3"), of("claims/"+id+"-1"), time.Now().Add(-3*time.Hour)
	tiny.Write(t, claim, "host-x-1-2-3\n")
	tiny.Write(t, silent, `{"host":"host","pid":1,"device":"cpu","plan":"0123","row":"`+id+`","drawn":2,"rate":0.5}`+"\n")
	begun := contents(t, stopped)

	random := rand.New(rand.NewPCG(13, 7))
	for _, path := range []string{claim, silent, of(id + ".kind")} {
		refused := 0
		for k := range flippedBytes {
			folder := t.TempDir()
			for name, data := range begun {
				at := filepath.Join(folder, name)
				if filepath.Join(stopped, name) == path {
					data = bytes.Clone(data)
					data[random.IntN(len(data))] ^= byte(1 + random.IntN(255))
					if k == 0 {
						data[1] = 0 // which no name of a file holds
					}
				}
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				tiny.Write(t, at, string(data))
				if err := os.Chtimes(at, hours, hours); err != nil {
					t.Fatal(err)
				}
			}
			before := tiny.Tree(t, folder)
			delete(before, filepath.Join("tiny", work.Folder, "claims", id+"-1")) // of a silent worker: it may go
			err := Experiment(t.Context(), e, options(t, folder))
			switch {
			case err == nil:
				tiny.Same(t, tiny.Tree(t, folder), want)
			case strings.HasSuffix(path, ".kind") && strings.Contains(err.Error(), "--mixed"):
				refused++
				left := tiny.Tree(t, folder)
				delete(left, filepath.Join("tiny", work.Folder, "claims", id+"-1"))
				tiny.Same(t, left, before)
			default:
				t.Errorf("%s: %v", filepath.Base(path), err)
			}
			os.RemoveAll(folder)
		}
		if strings.HasSuffix(path, ".kind") != (refused == flippedBytes) {
			t.Errorf("%s: %d of %d flipped bytes were refused", filepath.Base(path), refused, flippedBytes)
		}
	}
}

// contents are the files below a folder.
func contents(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for name := range tiny.Tree(t, folder) {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

// The status is made of names in folders, before, while and after an experiment is run;
// it hashes nothing, so that the checkpoint need not be there.
func TestStatus(t *testing.T) {
	file, results := tiny.Experiment(t, t.TempDir()), t.TempDir()
	e := load(t, file)
	look := func() *Status {
		t.Helper()
		s, err := StatusOf(e, results, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := look(); s.Images != 0 || s.Samples != 16 || s.Rows[0].Run != "" || s.Advice != "nobody is at work, and not all is there: sagbench run "+file {
		t.Errorf("before: %+v", s)
	}
	s := newSession(e, options(t, results))
	defer s.close()
	err := s.identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.finished(); err != nil {
		t.Fatal(err)
	}
	if err := s.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.todo, err = s.Forecast(t.Context(), results, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Draw(t.Context(), work.Unit{Row: 1, K: 2}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * s.Work.Heartbeat)
	found := look()
	if found.Images != 2 || found.Rows[1].Images != 2 || found.Rows[1].Run != s.runs[1].ID || found.Rows[1].Rate <= 0 || found.Rows[1].Left <= 0 || found.Advice != "" {
		t.Errorf("while: %+v", found)
	}
	if len(found.Workers) != 1 || !found.Workers[0].Alive || found.Workers[0].Doing != "images 4 to 5" || found.Workers[0].Steps != 2 {
		t.Errorf("workers: %+v", found.Workers)
	}
	// Of another experiment under the name nothing is there; more samples are the same one.
	other := func(overrides ...string) *Status {
		t.Helper()
		e, err := plan.Load(file, overrides)
		if err != nil {
			t.Fatal(err)
		}
		s, err := StatusOf(e, results, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := other("seed=9"); s.Images != 0 || s.Rows[1].Run != "" {
		t.Errorf("another seed, while: %+v", s)
	}
	if s := other("samples=20", "metrics=[fid]"); s.Images != 2 || s.Samples != 40 || s.Rows[1].Run != found.Rows[1].Run {
		t.Errorf("more samples, while: %+v", s)
	}
	var table strings.Builder
	if err := found.Print(&table); err != nil || !strings.Contains(table.String(), "2  s=0.5     2/8") || !strings.Contains(table.String(), "workers: 1 alive") {
		t.Errorf("%v\n%s", err, &table)
	}
	s.worker.Leave()
	tiny.Write(t, filepath.Join(s.folder, work.Folder, "job.sbatch"), "#!/bin/sh\n")
	if s := look(); len(s.Workers) != 0 || !strings.HasSuffix(s.Advice, "sbatch "+filepath.Join(results, "tiny", work.Folder, "job.sbatch")) {
		t.Errorf("after it left: %+v", s)
	}
	if err := Experiment(t.Context(), e, options(t, results)); err != nil {
		t.Fatal(err)
	}
	found = look()
	if found.Images != 16 || found.Evaluated != 2 || found.Rows[0].Score == nil || found.Rows[0].Score.Name != "fid" || !strings.HasPrefix(found.Advice, "all is there") {
		t.Errorf("in the end: %+v", found)
	}
	if s := other("seed=9"); s.Images != 0 || !strings.HasPrefix(s.Advice, "nobody is at work, and not all is there") {
		t.Errorf("another seed: %+v", s)
	}
	if s := other("batch=4", "metrics=[fid]"); s.Images != 16 || s.Evaluated != 0 {
		t.Errorf("another batch: %+v", s)
	}
}

// docs/results.md describes every field of plan.json and of status's JSON.
func TestSharedFilesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(tiny.Root(), "docs/results.md"))
	if err != nil {
		t.Fatal(err)
	}
	for section, types := range map[string][]reflect.Type{
		".work":         {reflect.TypeFor[agreement](), reflect.TypeFor[agreedRow](), reflect.TypeFor[store.Known]()},
		"status's JSON": {reflect.TypeFor[Status](), reflect.TypeFor[RowStatus](), reflect.TypeFor[WorkerStatus](), reflect.TypeFor[work.About]()},
	} {
		_, text, found := strings.Cut(string(page), "\n## "+section+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		for _, typ := range types {
			for i := range typ.NumField() {
				name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
				if name != "" && !strings.Contains(text, "`"+name+"`") || !found {
					t.Errorf("docs/results.md, section %q: %q is not described", section, name)
				}
			}
		}
	}
}
