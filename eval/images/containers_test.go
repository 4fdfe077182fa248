package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	pq "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/klauspost/compress/zstd"

	"sagbench/eval/npz"
	"sagbench/internal/fuzzing"
)

// tarOf is a tar of files in the order of the names.
func tarOf(t testing.TB, files map[string][]byte, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		_, err := 0, w.WriteHeader(h)
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

// written is the path of a new file.
func written(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(data)
	w.Close()
	return out.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// A column is one of a parquet file: int64, texts or bytes; nil is null.
type column struct {
	path   string // a struct's leaf is NAME.LEAF
	text   bool
	values [][]byte
	ints   []int64
}

// parquetOf is a parquet file of row groups of that many rows.
func parquetOf(t testing.TB, rows, group int, columns ...column) []byte {
	t.Helper()
	var fields schema.FieldList
	var leaf schema.FieldList // of the struct that is open
	opt := parquet.Repetitions.Optional
	for i, c := range columns {
		name, sub, isStruct := strings.Cut(c.path, ".")
		var node schema.Node
		switch {
		case c.ints != nil:
			node = schema.NewInt64Node(name, opt, -1)
		case c.text && isStruct:
			node, _ = schema.NewPrimitiveNodeLogical(sub, opt, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1)
		case c.text:
			node, _ = schema.NewPrimitiveNodeLogical(name, opt, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1)
		case isStruct:
			node = schema.NewByteArrayNode(sub, opt, -1)
		default:
			node = schema.NewByteArrayNode(name, opt, -1)
		}
		if !isStruct {
			fields = append(fields, node)
			continue
		}
		leaf = append(leaf, node)
		if i+1 == len(columns) || !strings.HasPrefix(columns[i+1].path, name+".") {
			g, err := schema.NewGroupNode(name, opt, leaf, -1)
			if err != nil {
				t.Fatal(err)
			}
			fields, leaf = append(fields, g), nil
		}
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := pq.NewParquetWriter(&out, root)
	for from := 0; from < rows; from += group {
		to := min(rows, from+group)
		g, err := w.AppendRowGroupChecked()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range columns {
			writer, err := g.NextColumn()
			if err != nil {
				t.Fatal(err)
			}
			most := writer.Descr().MaxDefinitionLevel()
			defs := make([]int16, to-from)
			for i := range defs {
				defs[i] = most
			}
			if c.ints != nil {
				_, err = writer.(*pq.Int64ColumnChunkWriter).WriteBatch(c.ints[from:to], defs, nil)
			} else {
				var values []parquet.ByteArray
				for i, v := range c.values[from:to] {
					if v == nil {
						defs[i] = most - 1
						continue
					}
					values = append(values, v)
				}
				_, err = writer.(*pq.ByteArrayColumnChunkWriter).WriteBatch(values, defs, nil)
			}
			if err := errors.Join(err, writer.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// containers are the same images, of levels 0 to n-1, in every container of files.
func containers(t testing.TB, n int) map[string]string {
	t.Helper()
	files := map[string][]byte{}
	var names []string
	var list strings.Builder
	var data, paths [][]byte
	for i := range n {
		name := fmt.Sprintf("%05d.png", i)
		files[name] = greyLevel(byte(i))
		names = append(names, name)
		data, paths = append(data, files[name]), append(paths, []byte(name))
	}
	folder := folderOf(t, files)
	for _, name := range names {
		fmt.Fprintf(&list, "%s\n", filepath.Join(folder, name))
	}
	backwards := slices.Clone(names)
	slices.Reverse(backwards)
	whole := tarOf(t, files, backwards...)
	half := len(names) / 2
	shards := folderOf(t, map[string][]byte{"a-0.tar": tarOf(t, files, names[:half]...), "a-1.tar": tarOf(t, files, names[half:]...), ".hidden.tar": nil})
	table := func(from, to int) []byte {
		return parquetOf(t, to-from, 3, column{path: "image.bytes", values: data[from:to]}, column{path: "image.path", text: true, values: paths[from:to]})
	}
	return map[string]string{
		"folder":         folder,
		"zip":            zipOf(t, files, backwards...),
		"tar":            written(t, "a.tar", whole),
		"tar.gz":         written(t, "a.tar.gz", gzipped(whole)),
		"tar.zst":        written(t, "a.tar.zst", zstded(t, whole)),
		"tar by content": written(t, "a.tape", whole),
		"shards":         shards,
		"pattern":        filepath.Join(shards, "a-{0..1}.tar"),
		"glob":           filepath.Join(shards, "a-?.tar"),
		"parquet":        written(t, "a.parquet", table(0, n)),
		"parquets":       folderOf(t, map[string][]byte{"train-0.parquet": table(0, half), "train-1.parquet": table(half, n), "README.md": nil}),
		"list":           "@" + written(t, "list.txt", []byte(list.String())),
	}
}

// contentOf are the first bytes of a set's images and the hash of its content.
func contentOf(t testing.TB, path string, opt Options) ([]uint8, string) {
	t.Helper()
	got, _, err := levels(path, opt)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	s, err := Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sum, err := s.Content(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.N != len(got) {
		t.Errorf("%s: %d images, %d were announced", path, len(got), s.N)
	}
	return got, sum
}

type everyThird struct{}

func (everyThird) Choose(n int) (chosen []int, err error) {
	for i := 1; i < n; i += 3 {
		chosen = append(chosen, i)
	}
	return chosen, nil
}

func (everyThird) String() string { return "every third" }

// The same images have the same order, names and content in every container, and so have
// those that are chosen of them.
func TestContainers(t *testing.T) {
	all := containers(t, 10)
	for _, opt := range []Options{{}, {Subset: everyThird{}}, {SkipBroken: true, Flat: true}} {
		want, content := contentOf(t, all["folder"], opt)
		if opt.Subset != nil && !slices.Equal(want, []uint8{1, 4, 7}) {
			t.Errorf("chosen: %v", want)
		}
		for name, path := range all {
			got, sum := contentOf(t, path, opt)
			if !slices.Equal(got, want) || sum != content {
				t.Errorf("%s: %v %s, want %v %s", name, got, sum, want, content)
			}
			s, err := Open(t.Context(), path, opt)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for a, err := range s.Abouts() {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, filepath.Base(a.Name))
			}
			if len(names) != len(want) || names[0] != fmt.Sprintf("%05d.png", want[0]) {
				t.Errorf("%s: %v", name, names)
			}
			if opt.Subset != nil && !strings.Contains(strings.Join(s.Warnings, "\n"), "3 of its 10 images are read: every third") {
				t.Errorf("%s: %q", name, s.Warnings)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for name, path := range all {
		a, err := Hash(path)
		b, errB := Hash(path)
		if err = errors.Join(err, errB); err != nil || a != b || len(a) != 64 {
			t.Errorf("%s: %s %s %v", name, a, b, err)
		}
	}
}

// Content follows the bytes of files and their order, pixels and sizes of arrays, and
// nothing else.
func TestContent(t *testing.T) {
	of := func(path string) string {
		_, sum := contentOf(t, path, Options{})
		return sum
	}
	a, b := greyLevel(1), greyLevel(2)
	base := of(folderOf(t, map[string][]byte{"a.png": a, "b.png": b}))
	if of(folderOf(t, map[string][]byte{"x/c.png": a, "z.jpg": b, "n.txt": nil})) != base {
		t.Error("names count")
	}
	for name, files := range map[string]map[string][]byte{"order": {"a.png": b, "b.png": a}, "fewer": {"a.png": a}, "twice": {"a.png": a, "b.png": b, "c.png": b}} {
		if of(folderOf(t, files)) == base {
			t.Errorf("%s: has the content of another set", name)
		}
	}
	array := written(t, "a.npy", slices.Concat([]byte("\x93NUMPY\x01\x00\x46\x00{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 1, 3), }    \n"), []byte{1, 1, 1, 2, 2, 2}))
	other := npzOf(t, npz.Uint8, []uint8{1, 1, 1, 2, 2, 2}, 2, 1, 1, 3)
	folder := folderOf(t, map[string][]byte{"x.npz": readFile(t, other)})
	if of(array) == base || of(array) != of(folder) {
		t.Error("arrays of the same images differ, or are files")
	}
}

// A tar that ends too early is an error with the last whole entry, or is read up to there.
func TestTruncatedTar(t *testing.T) {
	files := map[string][]byte{"a.png": greyLevel(1), "b.png": greyLevel(2), "c.png": greyLevel(3)}
	whole := tarOf(t, files, "a.png", "b.png", "c.png")
	for name, c := range map[string]struct {
		data []byte
		want string
		n    int
	}{
		"in an image":  {whole[:2*1024+540], "c.png", 2},
		"in a header":  {whole[:2*1024+100], `truncated after its entry 2, "b.png"`, 2},
		"gzip":         {gzipped(whole)[:150], "truncated", -1},
		"zstd":         {zstded(t, whole)[:150], "", -1},
		"damaged":      {slices.Concat(whole[:1024], []byte("garbage"), whole[1031:]), `a damaged one, after its entry 1, "a.png"`, 1},
		"no tar in it": {gzipped([]byte("hello")), "is no tar", -2},
	} {
		path := written(t, "x.tar", c.data)
		_, _, err := levels(path, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		got, report, err := levels(path, Options{SkipBroken: true})
		if c.n >= 0 && (err != nil || len(got) != c.n) || c.n == -2 && err == nil {
			t.Errorf("%s: %v %v %v, want %d images", name, got, report, err, c.n)
		}
	}
	path := written(t, "x.tar", whole[:3*1024])
	s, err := Open(t.Context(), path, Options{})
	if err != nil || s.N != 3 || !strings.Contains(strings.Join(s.Warnings, "\n"), "without the end mark") {
		t.Errorf("%+v %v", s, err)
	}
	path = written(t, "x.tar", slices.Concat(whole, whole))
	if s, err := Open(t.Context(), path, Options{}); err != nil || s.N != 3 || !strings.Contains(strings.Join(s.Warnings, "\n"), "goes on behind its end mark") {
		t.Errorf("%+v %v", s, err)
	}
}

// What a tar can hold that is no image is hidden, counted, listed as broken or refused.
func TestTarEntries(t *testing.T) {
	files := map[string][]byte{"./a/1.png": greyLevel(1), "a/2.png": greyLevel(2), "b/": nil, "b/3.png": greyLevel(3), ".x/4.png": nil, "__MACOSX/5.png": nil, "c.mp3": nil, "7.tif": nil,
		"a/1.cls": []byte("9"), "a/1.caption.txt": []byte("no suffix of ours"), "a/2.json": []byte(`{"caption":"two","label":"x"}`)}
	path := written(t, "x.tar", tarOf(t, files, "./a/1.png", "a/2.png", "b/", "b/3.png", ".x/4.png", "__MACOSX/5.png", "c.mp3", "a/1.cls", "a/1.caption.txt", "a/2.json"))
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a/1.png 9|no suffix of ours", "a/2.png x|two", "b/3.png b"}
	if got, err := told(s); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v, want %q", got, err, want)
	}
	if got, _, err := levels(written(t, "x.tar", tarOf(t, files, "a/2.png", "a/1.cls")), Options{Flat: true}); err == nil || !strings.Contains(err.Error(), "but those of its subfolders") {
		t.Error(got, err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []tar.Header{{Name: "a.png", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, {Name: "b.png", Typeflag: tar.TypeLink, Linkname: "a.png"}, {Name: "c.png", Typeflag: tar.TypeFifo}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	_, _, err = levels(written(t, "x.tar", out.Bytes()), Options{})
	for _, want := range []string{"3 of 3 images broken", `a.png: is a link to "/etc/passwd"`, `b.png: is a link to "a.png"`, "c.png: is a device or a pipe"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, names := range map[string][]string{
		`two images are named "a.png"`:       {"a.png", "a.png"},
		`two images have the key "a"`:        {"a.png", "a.left.png"},
		`two files are named "a.txt"`:        {"a.png", "a.txt", "a.txt"},
		"is empty, expected images (":        {},
		`key "d/a": "d/a.jpg" and "d/a.png"`: {"d/a.png", "d/a.jpg", "d/b.png"},
	} {
		all := map[string][]byte{}
		for _, n := range names {
			all[n] = greyLevel(1)
		}
		if _, _, err := levels(written(t, "x.tar", tarOf(t, all, names...)), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", names, err, want)
		}
	}
	one := tarOf(t, map[string][]byte{"a.png": greyLevel(1)}, "a.png")
	if _, _, err := levels(folderOf(t, map[string][]byte{"1.tar": one, "2.tar": one}), Options{}); err == nil || !strings.Contains(err.Error(), `two images are named "a.png"`) {
		t.Error(err)
	}
	if _, _, err := levels(folderOf(t, map[string][]byte{"1.tar": one, "2.npz": nil}), Options{}); err == nil || !strings.Contains(err.Error(), "expected files of one kind") {
		t.Error(err)
	}
}

// A list's errors name its lines.
func TestLists(t *testing.T) {
	folder := folderOf(t, map[string][]byte{"b.png": greyLevel(2), "a.png": greyLevel(1), "sub/c.png": greyLevel(3), "a.txt": []byte("a coat"), "x.tar": nil})
	list := func(text string) string {
		path := filepath.Join(folder, "list.lst")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "@" + path
	}
	s, err := Open(t.Context(), list("\ufeffb.png\r\n\nsub/c.png\na.png"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"b.png ", "sub/c.png ", "a.png |a coat"}) {
		t.Errorf("%q %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                "is empty",
		"a.png\nnone.png\n":               `list.lst:2: there is no file "`,
		"a.png\nsub\n":                    "list.lst:2: \"sub\" is a folder",
		"a.png\n\na.png\n":                `list.lst:3: names "a.png" again, as line 1`,
		"x.tar\n":                         "list.lst:1: \"x.tar\" is an archive",
		strings.Repeat("x", 5000):         "list.lst:1: is longer than",
		"a\x00.png":                       "list.lst:1: holds a zero byte",
		strings.Repeat("no\n", 20) + "\n": "as line 1",
	} {
		if _, err := Open(t.Context(), list(text), Options{}); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 2000 {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	before, err := Hash(list("a.png\nb.png\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "b.png"), greyLevel(9), 0o644); err != nil {
		t.Fatal(err)
	}
	if after, err := Hash("@" + filepath.Join(folder, "list.lst")); err != nil || after == before {
		t.Errorf("a file that changed: %v", err)
	}
	if SetPath("x/list.TXT") != "@x/list.TXT" || SetPath("@list.txt") != "@list.txt" || SetPath("a.png") != "a.png" {
		t.Error("which arguments are lists")
	}
}

func TestPatterns(t *testing.T) {
	folder := folderOf(t, map[string][]byte{"s-08.tar": nil, "s-09.tar": nil, "s-10.tar": nil})
	for pattern, want := range map[string]string{
		"s-{08..10}.tar":       "s-08.tar s-09.tar s-10.tar",
		"s-{10,08}.tar":        "s-10.tar s-08.tar",
		"s-{0,1}{8,0}.tar":     "error its file",
		"s-*.tar":              "s-08.tar s-09.tar s-10.tar",
		"s-0[89].tar":          "s-08.tar s-09.tar",
		"s-{08..11}.tar":       "error its file",
		"s-{08..}.tar":         "error expected {FIRST..LAST}",
		"s-{0..999999999}.tar": "error stands for more than",
		"s-{08.tar":            "error has { without }",
		"t-*.tar":              "error no file has such a name",
		"{0..9999}{0..9999}":   "error stands for more than",
	} {
		found, err := expand(filepath.Join(folder, pattern))
		for i := range found {
			found[i] = filepath.Base(found[i])
		}
		got := strings.Join(found, " ")
		if text, isError := strings.CutPrefix(want, "error "); isError && (err == nil || !strings.Contains(err.Error(), text)) || !isError && (got != want || err != nil) {
			t.Errorf("%s: %q %v, want %q", pattern, got, err, want)
		}
	}
}

// Which column of a parquet file is the image, what its rows are called, and what is told
// of them.
func TestParquet(t *testing.T) {
	texts := func(all ...string) (out [][]byte) {
		for _, s := range all {
			if s == "null" {
				out = append(out, nil)
			} else {
				out = append(out, []byte(s))
			}
		}
		return out
	}
	data := [][]byte{greyLevel(1), greyLevel(2), greyLevel(3)}
	plain := func(name string) column { return column{path: name, values: data} }
	of := func(group int, columns ...column) string {
		return written(t, "x.parquet", parquetOf(t, 3, group, columns...))
	}
	for name, c := range map[string]struct {
		columns []column
		want    string
	}{
		"plain":     {[]column{plain("photo")}, "row 0 ;row 1 ;row 2 "},
		"told":      {[]column{plain("image"), {path: "label", ints: []int64{7, 8, 7}}, {path: "text", text: true, values: texts("one", "null", "three")}, plain("mask")}, "row 0 7|one;row 1 8;row 2 7|three"},
		"named":     {[]column{{path: "img.bytes", values: data}, {path: "img.path", text: true, values: texts("b", "a", "c")}, {path: "cls", text: true, values: texts("x", "y", "null")}}, "b x;a y;c "},
		"twice":     {[]column{{path: "img.bytes", values: data}, {path: "img.path", text: true, values: texts("b", "a", "b")}}, "row 0 ;row 1 ;row 2 "},
		"unnamed":   {[]column{{path: "img.bytes", values: data}, {path: "img.path", text: true, values: texts("b", "null", "c")}}, "row 0 ;row 1 ;row 2 "},
		"no image":  {[]column{{path: "text", text: true, values: texts("a", "b", "c")}}, `error has no column of images, structs {bytes, path} or bytes; its columns are "text"`},
		"ambiguous": {[]column{plain("before"), plain("after")}, "error has several columns that may be the images: before, after"},
		"latin":     {[]column{plain("image"), {path: "text", text: true, values: texts("one", "\xff", "three")}}, "error row 1: byte 0 of a text is not UTF-8"},
	} {
		for _, group := range []int{1, 2, 5} {
			s, err := Open(t.Context(), of(group, c.columns...), Options{})
			var got []string
			if err == nil {
				got, err = told(s)
			}
			text, isError := strings.CutPrefix(c.want, "error ")
			if isError && (err == nil || !strings.Contains(err.Error(), text)) || !isError && (err != nil || strings.Join(got, ";") != c.want) {
				t.Errorf("%s, groups of %d: %q %v, want %q", name, group, got, err, c.want)
			}
		}
	}
	s, err := Open(t.Context(), "testdata/hub.parquet", Options{}) // that pyarrow 26 wrote
	if err != nil {
		t.Fatal(err)
	}
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"train/0.png 3|a coat|a jacket", "train/1.png 1", "train/2.png ", "train/3.png 2|boots", "train/4.png 3|x"}) {
		t.Errorf("%q %v", got, err)
	}
	if got, _, err := levels("testdata/hub.parquet", Options{}); err != nil || !slices.Equal(got, []uint8{1, 2, 3, 4, 5}) {
		t.Errorf("%v %v", got, err)
	}
	broken := of(2, column{path: "image", values: [][]byte{greyLevel(1), []byte("no image"), nil}})
	if _, _, err := levels(broken, Options{}); err == nil || !strings.Contains(err.Error(), "2 of 3 images broken") || !strings.Contains(err.Error(), "row 1: is no") || !strings.Contains(err.Error(), "row 2: has no bytes") {
		t.Error(err)
	}
	if got, report, err := levels(broken, Options{SkipBroken: true}); err != nil || !slices.Equal(got, []uint8{1}) || len(report.Broken) != 2 || report.Broken[1].At != 2 {
		t.Error(got, report, err)
	}
	whole := readFile(t, of(2, plain("image")))
	for want, data := range map[string][]byte{
		"it is truncated, or none": whole[:len(whole)-20],
		"expected a parquet file":  []byte("PAR1"),
		"claims a directory of":    slices.Concat(whole[:len(whole)-8], []byte{0, 0, 0, 2}, []byte("PAR1")),
	} {
		if _, err := Open(t.Context(), written(t, "x.parquet", data), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Shards of arrays are one set, with their labels.
func TestArrayShards(t *testing.T) {
	folder := t.TempDir()
	for i, size := range []int{1, 2} {
		w, err := npz.Create(filepath.Join(folder, fmt.Sprintf("s%d.npz", i)))
		if err != nil {
			t.Fatal(err)
		}
		pixels := make([]uint8, 2*size*size*3)
		for j := range pixels {
			pixels[j] = uint8(10*i + j/(3*size*size))
		}
		if err := errors.Join(npz.WriteArray(w, "arr_0", pixels, 2, size, size, 3), npz.WriteArray(w, "arr_1", []int64{int64(i), 5}, 2), w.Commit()); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := contentOf(t, folder, Options{})
	if !slices.Equal(got, []uint8{0, 1, 10, 11}) {
		t.Error(got)
	}
	s, err := Open(t.Context(), folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := told(s); err != nil || !slices.Equal(got, []string{"s0.npz image 0 0", "s0.npz image 1 5", "s1.npz image 0 1", "s1.npz image 1 5"}) {
		t.Errorf("%q %v", got, err)
	}
	mixed, err := s.Mixed(t.Context(), func(n int) []int { return []int{0, 3} })
	if err != nil || mixed != "s0.npz image 0 has 1×1 pixels, s1.npz image 1 has 2×2" {
		t.Errorf("%q %v", mixed, err)
	}
}

// What is unpacked is kept while it is used, and a little longer.
func TestScratches(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	data := gzipped(tarOf(t, map[string][]byte{"a.png": greyLevel(1)}, "a.png"))
	path := written(t, "x.tar.gz", data)
	a, err := Open(t.Context(), path, Options{})
	b, errB := Open(t.Context(), path, Options{})
	if err = errors.Join(err, errB); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	for range 2 * maxIdle {
		if got, _, err := levels(written(t, "x.tar.gz", data), Options{}); err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
	}
	if n := len(scratches.all); n > maxIdle {
		t.Errorf("%d unpacked files are kept", n)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	bomb := gzipped(slices.Concat(tarOf(t, map[string][]byte{"a.png": make([]byte, 2<<20)}, "a.png"), make([]byte, 1<<20)))
	if _, _, err := levels(written(t, "x.tar.gz", bomb), Options{}); err == nil {
		t.Error("zeros are an image")
	}
}

func FuzzTar(f *testing.F) {
	files := map[string][]byte{"a.png": greyLevel(1), "b/c.bmp": readFile(f, "testdata/pillow/bmp1.bmp"), "a.txt": []byte("a"), "b/c.json": []byte(`{"caption": "b"}`)}
	f.Add(tarOf(f, files, "a.png", "b/c.bmp", "a.txt", "b/c.json"))
	f.Add(tarOf(f, files, "a.png", "a.png"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data)+1<<16, 64, func() {
			l, _, err := listTar(t.Context(), bytes.NewReader(data), Options{SkipBroken: len(data)%2 == 0})
			if err != nil || l.checkKeys() != nil {
				return
			}
			for _, one := range l.files {
				one.header(1 << 10)
				l.tell(&About{Name: one.name})
			}
		})
	})
}

func FuzzParquet(f *testing.F) {
	for _, group := range []int{1, 5} {
		data := [][]byte{greyLevel(1), nil, greyLevel(3)}
		f.Add(parquetOf(f, 3, group, column{path: "image.bytes", values: data}, column{path: "image.path", text: true, values: data}, column{path: "label", ints: []int64{1, 2, 3}}))
		f.Add(parquetOf(f, 3, group, column{path: "image", values: data}, column{path: "text", text: true, values: data}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := written(t, "a.parquet", data)
		fuzzing.Bounded(t, len(data)+1<<17, 256, func() {
			s, err := openParquet(t.Context(), path, []string{path}, Options{SkipBroken: true, MaxPixels: 1 << 10})
			if err != nil {
				return
			}
			for p, err := range s.Images() {
				if err != nil {
					break
				}
				p.Decode()
			}
			told(s)
		})
	})
}
