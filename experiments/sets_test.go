package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/klauspost/compress/zstd"

	"sagbench/eval/npz"
	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// tarred is a tar of files in the order of the names.
func tarred(t *testing.T, files map[string][]byte, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))})
		if err == nil {
			_, err = w.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// gzipped is data as gzip packs it.
func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// inParquet is a parquet file with a column of images, in row groups of 64.
func inParquet(t *testing.T, images [][]byte) []byte {
	t.Helper()
	required := parquet.Repetitions.Required
	group, err := schema.NewGroupNode("image", required, schema.FieldList{schema.NewByteArrayNode("bytes", required, -1)}, -1)
	if err != nil {
		t.Fatal(err)
	}
	root, err := schema.NewGroupNode("schema", required, schema.FieldList{group}, -1)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := file.NewParquetWriter(&out, root)
	for part := range slices.Chunk(images, 64) {
		g, err := w.AppendRowGroupChecked()
		if err != nil {
			t.Fatal(err)
		}
		c, err := g.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		values := make([]parquet.ByteArray, len(part))
		for i, v := range part {
			values[i] = v
		}
		_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, nil, nil)
		if err := errors.Join(err, c.Close(), g.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A folder is the files of a folder of images, in their order.
type folder struct {
	path   string
	names  []string
	files  map[string][]byte
	images [][]byte
}

// folderOfImages are so many embedded images as PNG files.
func folderOfImages(t *testing.T, n int) folder {
	t.Helper()
	array := filepath.Join(t.TempDir(), "samples.npz")
	if err := tiny.WriteReference(array, n); err != nil {
		t.Fatal(err)
	}
	f := folder{path: pngFolder(t, array), files: map[string][]byte{}}
	for i := range n {
		name := fmt.Sprintf("%04d.png", i)
		data, err := os.ReadFile(filepath.Join(f.path, name))
		if err != nil {
			t.Fatal(err)
		}
		f.names, f.images, f.files[name] = append(f.names, name), append(f.images, data), data
	}
	return f
}

// evaluationIn is what eval --json says of samples, which standard input may hold, with the
// user's cache folder at a place.
func evaluationIn(t *testing.T, cache, samples string, in []byte, more ...string) store.Evaluation {
	t.Helper()
	p := program(slices.Concat([]string{"eval", tiny.Reference(), samples, "--metrics", "fid,sfid,is,precision,recall", "--json", "-"}, embeddedInception, more)...)
	if in != nil {
		p.Stdin = bytes.NewReader(in)
	}
	p.Env = append(p.Env, "XDG_CACHE_HOME="+cache)
	p.start(t)
	if status := p.status(t); status != 0 {
		t.Fatalf("%s: exit status %d\n%s", samples, status, &p.stderr)
	}
	var e store.Evaluation
	if err := json.Unmarshal(p.stdout.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// newCache is a user's cache folder that holds the runtime alone, and the number of
// features in it.
func newCache(t *testing.T) (cache string, kept func() int) {
	t.Helper()
	cache = t.TempDir()
	own := filepath.Join(cache, "sagbench")
	runtimes, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "sagbench", "onnxruntime-*"))
	if err == nil {
		err = os.Mkdir(own, 0o755)
	}
	for _, r := range runtimes {
		err = errors.Join(err, os.Symlink(r, filepath.Join(own, filepath.Base(r))))
	}
	if err != nil {
		t.Fatal(err)
	}
	return cache, func() int {
		found, err := filepath.Glob(filepath.Join(own, "features", "*.npz"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
}

// The same 300 images have the same scores, to the last digit, and the same content in
// every container, computed in each and shared among them.
func TestContainersScore(t *testing.T) {
	f := folderOfImages(t, 300)
	whole := tarred(t, f.files, f.names...)
	backwards := slices.Clone(f.names)
	slices.Reverse(backwards)
	packed, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	shards := t.TempDir()
	tiny.Write(t, filepath.Join(shards, "s-0.tar"), string(tarred(t, f.files, f.names[:100]...)))
	tiny.Write(t, filepath.Join(shards, "s-1.tar"), string(tarred(t, f.files, f.names[100:]...)))
	var list strings.Builder
	for _, n := range f.names {
		fmt.Fprintln(&list, filepath.Join(f.path, n))
	}
	sets := []struct {
		path  string
		in    []byte
		alone bool // with a cache of its own as well
	}{
		{f.path, nil, true},
		{writeHostile(t, "a.zip", zipped(t, f.files)), nil, false},
		{writeHostile(t, "a.tar", tarred(t, f.files, backwards...)), nil, false},
		{writeHostile(t, "a.tar.gz", gzipped(t, whole)), nil, false},
		{writeHostile(t, "a.tar.zst", packed.EncodeAll(whole, nil)), nil, false},
		{"-", whole, false},
		{"-", gzipped(t, whole), true},
		{shards, nil, false},
		{filepath.Join(shards, "s-{0..1}.tar"), nil, false},
		{writeHostile(t, "a.parquet", inParquet(t, f.images)), nil, true},
		{writeHostile(t, "list.txt", []byte(list.String())), nil, true},
	}
	shared, kept := newCache(t)
	var want store.Evaluation
	entries := 0
	for i, s := range sets {
		own, _ := newCache(t)
		for _, cache := range []string{own, shared} {
			if cache == own && !s.alone {
				continue
			}
			got := evaluationIn(t, cache, s.path, s.in)
			if i == 0 {
				want = got
			}
			for k, score := range got.Scores {
				if score.Value != want.Scores[k].Value {
					t.Errorf("%s: %s is %v, want %v", s.path, score.Name, score.Value, want.Scores[k].Value)
				}
			}
			a, b := got.Inputs["samples"].Images, want.Inputs["samples"].Images
			if a.Content != b.Content || len(a.Content) != 64 || a.Count != 300 || a.Converted["alpha"] != 300 {
				t.Errorf("%s: %+v, want %+v", s.path, a, b)
			}
		}
		if i == 0 {
			entries = kept()
		}
	}
	if n := kept(); n != entries || n == 0 {
		t.Errorf("%d features are kept, %d of one container", n, entries)
	}
	if got := evaluationIn(t, shared, f.path, nil, "--first", "100"); got.Settings.First != 100 || got.Samples != 100 || got.Inputs["samples"].Images.Content == want.Inputs["samples"].Images.Content {
		t.Errorf("%+v", got.Settings)
	}
	first := evaluationIn(t, shared, sets[9].path, nil, "--random", "100", "--subset-seed", "5")
	again := evaluationIn(t, shared, sets[3].path, nil, "--random", "100", "--subset-seed", "5")
	other := evaluationIn(t, shared, sets[3].path, nil, "--random", "100")
	if first.Scores[0].Value != again.Scores[0].Value || first.Scores[0].Value == other.Scores[0].Value || first.Settings.SubsetSeed != 5 || first.Inputs["reference"].Statistics != want.Inputs["reference"].Statistics {
		t.Errorf("random images: %v %v %v", first.Scores[0], again.Scores[0], other.Scores[0])
	}
	if notes := strings.Join(first.Notes, "\n"); !strings.Contains(notes, "100 of its 300 images are read: 100 at random, seed 5") {
		t.Error(notes)
	}
}

// Broken sets are refused with what and where, or used as far as they go.
func TestBrokenContainers(t *testing.T) {
	f := folderOfImages(t, 20)
	whole := tarred(t, f.files, f.names...)
	broken := slices.Clone(f.images)
	broken[3], broken[7] = []byte("no image"), nil
	twice := tarred(t, f.files, append(slices.Clone(f.names), f.names[5])...)
	f.files["0005.jpg"] = f.files["0005.png"]
	keys := tarred(t, f.files, append(slices.Clone(f.names), "0005.jpg")...)
	for name, c := range map[string]struct {
		path string
		want []string
		skip string // in a note of --skip-broken; "" where it does not help
	}{
		"truncated":    {writeHostile(t, "cut.tar", whole[:len(whole)/2/512*512+100]), []string{"cut.tar: is a tar that is truncated after its entry ", "--skip-broken"}, "are used"},
		"truncated gz": {writeHostile(t, "cut.tar.gz", gzipped(t, whole)[:10_000]), []string{"cut.tar.gz: is truncated or damaged after 10000 bytes", "--skip-broken"}, "the images before are used"},
		"parquet":      {writeHostile(t, "broken.parquet", inParquet(t, broken)), []string{"broken.parquet: 2 of 20 images broken", "row 3: is no PNG", "row 7: is empty"}, "2 images left out as broken: row 3"},
		"two names":    {writeHostile(t, "twice.tar", twice), []string{`twice.tar: two images are named "0005.png"`}, ""},
		"two keys":     {writeHostile(t, "keys.tar", keys), []string{`keys.tar: two images have the key "0005"`, "0005.jpg", ".zip"}, ""},
		"no tar":       {writeHostile(t, "text.tar.gz", gzipped(t, []byte("hello"))), []string{"text.tar.gz: is no tar"}, ""},
		"list":         {writeHostile(t, "list.txt", []byte("a.png\n")), []string{"list.txt:1: there is no file"}, ""},
		"pattern":      {filepath.Join(t.TempDir(), "s-{000..002}.tar"), []string{"s-{000..002}.tar: its file", "s-000.tar"}, ""},
		"cut parquet":  {writeHostile(t, "cut.parquet", inParquet(t, f.images)[:3000]), []string{"cut.parquet: does not end as a parquet file"}, ""},
		"too few":      {f.path, []string{"has 20 images, 21 of them are asked for"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{"eval", tiny.Reference(), c.path, "--metrics", "fid"}, embeddedInception)
			if name == "too few" {
				args = append(args, "--random", "21")
			}
			refused(t, c.want, args...)
			if c.skip == "" {
				refused(t, c.want, append(args, "--skip-broken")...)
				return
			}
			if said := succeed(t, append(args, "--skip-broken")...).stderr.String(); !strings.Contains(said, c.skip) {
				t.Errorf("no %q in %s", c.skip, said)
			}
		})
	}
	if text := fail(t, slices.Concat([]string{"eval", tiny.Reference(), "-"}, embeddedInception)...); !strings.Contains(text, "standard input: is a terminal or a device") {
		t.Error(text)
	}
	for want, args := range map[string][]string{
		"can be read once":                   {"-", "-"},
		"--first and --random":               {tiny.Reference(), f.path, "--first", "3", "--random", "2"},
		"--subset-seed is for --random":      {tiny.Reference(), f.path, "--subset-seed", "3"},
		"for --first flag: expected a whole": {tiny.Reference(), f.path, "--first", "-1"},
		"cannot be read by the processes of": {tiny.Reference(), "-", "--devices", "cpu,cpu"},
	} {
		if message, status := failed(t, slices.Concat([]string{"eval"}, args, embeddedInception)...); status != statusMisuse || !strings.Contains(strings.ReplaceAll(message, `"`, ""), want) {
			t.Errorf("%v: %d %s, want %q", args, status, message, want)
		}
	}
}

// arrayBytes are the numbers of an array of an .npz as text.
func arrayBytes(t *testing.T, path, name string) []byte {
	t.Helper()
	f, err := npz.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := f.Array(name)
	if err != nil {
		t.Fatal(err)
	}
	values, err := npz.ReadAll[float64](a, 1<<24)
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Append(nil, values)
}

// reference makes the same file of every container, notes what it leaves out, and a flat
// protocol leaves out what lies in folders of a tar.
func TestReferenceOfContainers(t *testing.T) {
	f := folderOfImages(t, 12)
	f.files["below/x.png"], f.files[".hidden.png"], f.files["notes.md"] = f.files["0001.png"], []byte("hidden"), nil
	names := append(slices.Clone(f.names), "below/x.png", ".hidden.png", "notes.md")
	path := writeHostile(t, "a.tar", tarred(t, f.files, names...))
	out := filepath.Join(t.TempDir(), "ref.npz")
	statistics := func(data string, in []byte) []byte {
		t.Helper()
		p := program(slices.Concat([]string{"reference", data, "-o", out, "--force", "--protocol", "pytorch-fid", "--images", "5"}, embeddedInception)...)
		if in != nil {
			p.Stdin = bytes.NewReader(in)
		}
		p.start(t)
		if status := p.status(t); status != 0 {
			t.Fatal(p.stderr.String())
		}
		if data == path {
			for _, want := range []string{"1 image in subfolders left out", "files that are not read: 1 .md"} {
				if !strings.Contains(p.stderr.String(), want) {
					t.Errorf("no %q in %s", want, &p.stderr)
				}
			}
		}
		return append(arrayBytes(t, out, "mu"), arrayBytes(t, out, "arr_0")...)
	}
	want := statistics(f.path, nil)
	if got := statistics(path, nil); !bytes.Equal(got, want) {
		t.Error("a tar makes other statistics than its folder")
	}
	if got := statistics("-", tarred(t, f.files, f.names...)); !bytes.Equal(got, want) {
		t.Error("standard input makes other statistics than its folder")
	}
	if got := statistics(writeHostile(t, "a.parquet", inParquet(t, f.images)), nil); !bytes.Equal(got, want) {
		t.Error("a parquet file makes other statistics than its folder")
	}
}

// Whatever a container claims, it is refused within 1 GB of memory.
func TestHostileContainers(t *testing.T) {
	f := folderOfImages(t, 2)
	header := func(change func(h []byte)) []byte { // of a tar whose first entry is changed
		data := tarred(t, f.files, f.names...)
		change(data[:512])
		sum := 0
		copy(data[148:156], "        ")
		for _, c := range data[:512] {
			sum += int(c)
		}
		copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return data
	}
	zeros := func(n int) []byte { return make([]byte, n) }
	table := inParquet(t, f.images)
	footer := func(n uint32) []byte {
		end := binary.LittleEndian.AppendUint32(bytes.Clone(table[:len(table)-8]), n)
		return append(end, "PAR1"...)
	}
	bomb := slices.Concat(header(func([]byte) {})[:1024], zeros(3<<30/2))
	for name, c := range map[string]struct {
		path string
		want []string
	}{
		"tar size":      {writeHostile(t, "size.tar", header(func(h []byte) { copy(h[124:136], "77777777777\x00") })), []string{"size.tar: is a tar that is truncated"}},
		"binary size":   {writeHostile(t, "binary.tar", header(func(h []byte) { copy(h[124:136], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") })), []string{"binary.tar: is "}},
		"negative size": {writeHostile(t, "negative.tar", header(func(h []byte) { copy(h[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") })), []string{"negative.tar: is no tar, or a damaged one, at its beginning"}},
		"bomb":          {writeHostile(t, "bomb.tar.gz", gzipped(t, bomb)), []string{"bomb.tar.gz: unpacks to more than", "which no images need"}},
		"long names":    {writeHostile(t, "names.tar", tarred(t, map[string][]byte{strings.Repeat("x", 5000) + ".png": nil}, strings.Repeat("x", 5000)+".png")), []string{"names.tar: entry 1", "names of 4096 bytes"}},
		"directory":     {writeHostile(t, "directory.parquet", footer(1<<31)), []string{"directory.parquet: claims a directory of 2147483648 bytes"}},
		"no directory":  {writeHostile(t, "none.parquet", footer(0)), []string{"none.parquet"}},
		"zeros":         {writeHostile(t, "zeros.parquet", slices.Concat(zeros(32<<20), binary.LittleEndian.AppendUint32(nil, 16<<20), []byte("PAR1"))), []string{"zeros.parquet"}},
		"large footer":  {writeHostile(t, "large.parquet", slices.Concat(zeros(32<<20), binary.LittleEndian.AppendUint32(nil, 17<<20), []byte("PAR1"))), []string{"large.parquet: has a directory of 17825792 bytes"}},
		"structs":       {writeHostile(t, "structs.parquet", slices.Concat(bytes.Repeat([]byte{0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0x07}, 1<<20), binary.LittleEndian.AppendUint32(nil, 8<<20), []byte("PAR1"))), []string{"structs.parquet"}},
		"lines":         {writeHostile(t, "lines.txt", bytes.Repeat([]byte("none.png\n"), 500_000)), []string{"lines.txt:1: there is no file", "… and "}},
		"pattern":       {filepath.Join(t.TempDir(), strings.Repeat("{0..99999}", 20)), []string{"stands for more than 100000 files"}},
		"gif":           {writeHostile(t, "gif.tar", tarred(t, map[string][]byte{"a.gif": slices.Concat([]byte("GIF89a\x40\x1f\x40\x1f\x00\x00\x00,\x00\x00\x00\x00\x40\x1f\x40\x1f\x00\x08\x02\x44\x01\x00;"), zeros(9000))}, "a.gif")), []string{"a.gif: GIF that is truncated"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.want, slices.Concat([]string{"eval", tiny.Reference(), c.path, "--metrics", "fid"}, embeddedInception)...)
		})
	}
}
