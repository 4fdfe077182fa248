// Package checkpoint locates the tensors of an official checkpoint file
// without loading them: a .pt (zip or legacy pickle), .safetensors or .pkl
// (torch_utils.persistence) file goes in, names, dtypes, shapes and byte ranges come out. The file is mapped
// read-only; nothing in it is ever executed or constructed but tensors and
// plain containers.
//
// The format is told by content, never by the file's name. What the weights
// are wrapped in ({"ema": …}, {"state_dict": …}, DataParallel's "module.") is
// taken off and reported in the fields of File. Memory is bounded by a small
// multiple of the file's size plus a constant (see budget), whatever the file
// claims about itself.
package checkpoint

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// DType names an element type as safetensors spells it.
type DType string

// The element types that tensors have.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// Size is the number of bytes of one element, 0 for a type that is none of
// the constants above.
func (d DType) Size() int {
	switch d {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// A StateDict locates every tensor of a checkpoint by its full key.
type StateDict map[string]Tensor

// Names lists the keys in ascending order.
func (sd StateDict) Names() []string { return slices.Sorted(maps.Keys(sd)) }

// Has reports whether there is a tensor under the key, which is formatted as by
// fmt.Sprintf.
func (sd StateDict) Has(format string, args ...any) bool {
	_, ok := sd[fmt.Sprintf(format, args...)]
	return ok
}

// Dim is the length of an axis of the tensor under key, 0 where there is no such
// tensor or axis.
func (sd StateDict) Dim(key string, axis int) int {
	if t := sd[key]; axis < len(t.Shape) {
		return t.Shape[axis]
	}
	return 0
}

// Count is how many of the keys that format makes of 0, 1, 2, … there are before
// the first that is missing.
func (sd StateDict) Count(format string) int {
	n := 0
	for sd.Has(format, n) {
		n++
	}
	return n
}

// The formats that Open tells apart; the values of File.Format.
const (
	TorchZip    = "torch zip"    // torch.save since 1.6
	TorchLegacy = "torch legacy" // torch.save before, or _use_new_zipfile_serialization=False
	Safetensors = "safetensors"
	Persistent  = "pickle of torch_utils.persistence" // of EDM, EDM2 and StyleGAN
)

// A File is an open checkpoint. Its tensors point into the mapped file, so it
// must stay open while their bytes are used, and nobody may shorten the file
// meanwhile.
type File struct {
	Path   string
	Format string
	// Wrapper is the key under which the weights lay, dotted where it was
	// nested: "" (the file is the state dict), "state_dict", "model", "ema", …
	// An average of the weights ("ema") is preferred to "model", as the
	// official sampling scripts do.
	Wrapper string
	// Others are the entries beside Wrapper that hold tensors too, dotted
	// likewise, such as "model" where "ema" was taken; "." are the tensors that
	// lie beside all entries. OpenSet takes any of them.
	Others []string
	// Unnamed are averages that cannot be used, since their tensors have no names:
	// "ema.shadow_params", a list.
	Unnamed []string
	// Chosen tells that Wrapper is another set than the one that lies nearest:
	// asked for, or an average that lies deeper than other weights.
	Chosen bool
	// Prefix is what every key began with and what was removed: "",
	// DataParallel's "module.", torch.compile's "_orig_mod.", or several; behind
	// "…" what was removed within keys.
	Prefix string
	// Ignored are the keys of the state dict whose value is no tensor, each
	// with what it is: "_extra_state (None)".
	Ignored []string
	// Opaque are the classes and functions that the pickle names and that
	// were neither constructed nor called: "argparse.Namespace".
	Opaque []string
	// Metadata is the __metadata__ of a safetensors file, nil otherwise.
	Metadata map[string]string
	// Objects are the entries of a pickle of torch_utils.persistence that are
	// objects, by name, such as "ema" and "encoder", or under "" the pickle's only
	// one; nil otherwise. Objects[Wrapper] is that of the weights.
	Objects map[string]Object
	// Tensors are all tensors of the file, without Wrapper and Prefix.
	Tensors StateDict

	m *mapping
}

// Open maps the checkpoint at path and locates its tensors. Only the headers
// are read, and what does not lie in the file in C order: compressed entries
// and strided views are copied into Tensor.Raw. All other weights are read when
// their values are asked for.
//
// The error names the file, and the tensor where one is at fault. A file that
// is something else (an HTML page, a Git LFS pointer, a gzip archive, …) is
// called what it is.
func Open(path string) (*File, error) { return OpenSet(path, "") }

// OpenSet is Open for one of several sets of weights in a file, by its place as
// File.Wrapper and File.Others name it; "" = the usual one.
func OpenSet(path, set string) (*File, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	f, err := parse(m, set, newBudget(int64(len(m.data))))
	if err != nil {
		m.close()
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	return f, nil
}

// parse tells the format of a mapping and reads its headers within the budget.
func parse(m *mapping, set string, b *budget) (f *File, err error) {
	defer guard(&err)()
	switch format, ferr := detect(m.data); {
	case ferr != nil:
		return nil, ferr
	case format == TorchZip:
		f, err = parseTorchZip(m, set, b)
	case format == TorchLegacy:
		f, err = parseTorchLegacy(m, set, b)
	case format == Persistent:
		f, err = parsePersistent(m, set, b)
	case set != "":
		return nil, fmt.Errorf("holds no weights %q: all tensors of a safetensors file are one set; leave weights out", set)
	default:
		f, err = parseSafetensors(m)
	}
	if err != nil {
		return nil, err
	}
	f.Path, f.m = m.path, m
	if f.Format != Persistent { // whose keys are those of modules
		f.stripPrefixes()
	}
	for name, t := range f.Tensors {
		t.File, t.name, t.m = m.path, name, m
		f.Tensors[name] = t
	}
	return f, nil
}

// Close unmaps the file. Slices that Tensor.Bytes returned must not be used
// any more. Closing twice is harmless.
func (f *File) Close() error {
	if err := f.m.close(); err != nil {
		return fmt.Errorf("checkpoint: %s: %w", f.Path, err)
	}
	return nil
}

// Notes tell which of several sets of weights of the file this is, and averages
// that cannot be used.
func (f *File) Notes() []string {
	var notes []string
	name := cmp.Or(f.Wrapper, atTop)
	if len(f.Others) > 0 {
		notes = append(notes, fmt.Sprintf("%s: its weights %q are used; it also holds %s, which weights: %s takes",
			filepath.Base(f.Path), name, shorten(strings.Join(f.Others, ", ")), shorten(f.Others[0])))
	}
	if len(f.Unnamed) > 0 {
		notes = append(notes, fmt.Sprintf("%s: its weights %q are used, not the average %s: a list, whose tensors have no names",
			filepath.Base(f.Path), name, shorten(strings.Join(f.Unnamed, ", "))))
	}
	return notes
}

// SHA256 is the hash of the whole file's content in hexadecimal. It is
// computed once, by streaming; a later call answers at once, also after Close.
func (f *File) SHA256() (string, error) {
	sum, err := f.m.sha256()
	if err != nil {
		return "", fmt.Errorf("checkpoint: %s: sha256: %w", f.Path, err)
	}
	return sum, nil
}

// hashedName is a file name that ends in the beginning of a sha256, as PyTorch's
// publishers write it: pt_inception-2015-12-05-6726825d.pth.
var hashedName = regexp.MustCompile(`-([0-9a-f]{8,64})\.[A-Za-z]+$`)

// CheckName compares the beginning of a sha256 at the end of a file's name with
// the sha256 of its content (64 hexadecimal digits), as torch.hub's check_hash
// does. A name without one is right, and so is one with digits alone, which may
// be a date.
func CheckName(path, sha256 string) error {
	m := hashedName.FindStringSubmatch(filepath.Base(path))
	if m == nil || !strings.ContainsAny(m[1], "abcdef") || strings.HasPrefix(sha256, m[1]) {
		return nil
	}
	return fmt.Errorf("checkpoint: %s: the name says that its sha256 begins with %s, it is %s: the file is damaged or another one; download it again, or give it another name", path, m[1], sha256)
}

// A budget bounds the memory that reading one checkpoint may take, in bytes:
//   - for the objects of its pickle 64 times the file's size, but at most
//     256 MiB; a real file needs a fraction of that,
//   - for compressed entries and strided views 4 times its size and 16 MiB.
//
// They share the sum, and reserve memory in it before they allocate.
type budget struct{ size, most, left int64 } // the file's size, the sum, what is left of it

func newBudget(fileSize int64) *budget {
	most := min(64*fileSize, 256<<20) + 4*fileSize + 16<<20
	return &budget{size: fileSize, most: most, left: most}
}

// take reserves n bytes for what.
func (b *budget) take(n int64, what string) error {
	if n < 0 || n > b.left {
		return fmt.Errorf("%s needs %d bytes of memory; %d is the limit for a file of %d bytes, %d are left: "+
			"the file is broken or malicious, or must be saved again uncompressed", what, n, b.most, b.size, b.left)
	}
	b.left -= n
	return nil
}
