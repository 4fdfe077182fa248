package sampling

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"sagbench/sampling/tensor"
)

// A Networked is a guidance that asks a network of its own, beside the denoiser
// that it guides: a noisy classifier, say, or a worse model.
type Networked interface {
	Guidance

	// Network is the network that the guidance's option `model` names. Where it
	// is zero, the guidance needs none as it is set.
	Network() *Ref

	// Attach hands over the network of that setting, which stays open as long as
	// the guidance is asked. It is a Denoiser, a Classifier or whatever else its
	// family makes; an error tells that it lacks what the guidance needs.
	Attach(ctx context.Context, network any) error
}

// A Classifier is a network that knows the classes of noisy images.
type Classifier interface {
	// Classes is the number of labels.
	Classes() int

	// Gradient is ∇ₓ log p(y | x_t, t), [N,C,H,W], for labels y [N]. It neither
	// changes x nor keeps it; what it returns is the caller's.
	Gradient(ctx context.Context, x tensor.Tensor, t Timestep, y []int64) (tensor.Tensor, error)
}

// A Ref names a network: its family, its checkpoint with the set of weights in it,
// the precision that it computes in, and the family's flags. The zero Ref names none.
type Ref struct {
	Place
	Family     string // where Flags is nil: the family of a setting that is a path alone
	Checkpoint File
	Weights    string          // which of several sets of weights in the checkpoint, by its place there; "" = the usual one
	Precision  string          // float32, tf32, bfloat16 or float16; "" = float32
	Flags      any             // a models.Family
	Written    json.RawMessage // the setting as it was written
}

// IsZero reports that no network is named.
func (r *Ref) IsZero() bool { return r == nil || r.Flags == nil }

// MarshalJSON implements json.Marshaler: the setting as it was written.
func (r Ref) MarshalJSON() ([]byte, error) {
	if r.Written == nil {
		return []byte("null"), nil
	}
	return r.Written, nil
}

// String is the setting in one line.
func (r Ref) String() string {
	text, _ := r.MarshalJSON()
	return string(text)
}

// A File is a file or folder that a setting names. The zero File names none.
type File struct {
	Place
	Written string   // as the setting has it
	Path    string   // to open
	Unset   []string // environment variables in Written that are not set
}

// IsZero reports that no file is named.
func (f File) IsZero() bool { return f.Written == "" }

// Find is the path to open; an error names the variables that are not set.
func (f File) Find() (string, error) {
	if len(f.Unset) > 0 {
		return "", f.Errorf("%s is not set", strings.Join(f.Unset, ", "))
	}
	return f.Path, nil
}

// MarshalJSON implements json.Marshaler: the path as it was written.
func (f File) MarshalJSON() ([]byte, error) {
	if f.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(f.Written)
}

// A Place is where a setting stands, for messages about it.
type Place struct {
	At  string // "file:line"
	Key string // its dotted path
}

// Errorf is an error about the setting: "file:line: path: …".
func (p Place) Errorf(format string, args ...any) error {
	lead := ""
	for _, part := range []string{p.At, p.Key} {
		if part != "" {
			lead += part + ": "
		}
	}
	return fmt.Errorf("%s%w", lead, fmt.Errorf(format, args...))
}
