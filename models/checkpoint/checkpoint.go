// Package checkpoint locates the tensors of an official checkpoint file
// without loading them: a .pt (zip or legacy pickle) or .safetensors file goes
// in, names, dtypes, shapes and byte ranges come out. The file is mapped
// read-only; nothing in it is ever executed or constructed but tensors and
// plain containers.
package checkpoint

// DType names an element type as safetensors spells it.
type DType string

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

// A StateDict locates every tensor of a checkpoint by its full key.
type StateDict map[string]Tensor

// A Tensor is a C-contiguous little-endian array that lies in File at
// [Offset, Offset+Size), or, where the file holds it in another layout
// (strided views), in Raw.
type Tensor struct {
	DType  DType
	Shape  []int
	File   string
	Offset int64
	Size   int64  // bytes
	Raw    []byte // nil when File holds the bytes as they are
}
