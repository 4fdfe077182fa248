package sampling

import (
	"context"

	"sagbench/configs"
	"sagbench/models/tensor"
)

// A Networked is a guidance that asks a network of its own, beside the denoiser
// that it guides: a noisy classifier, say, or a worse model.
type Networked interface {
	Guidance

	// Network is the guidance's option `model`: the model block, family,
	// checkpoint and flags, of its network. Null: as it is set, the guidance
	// needs none.
	Network() configs.Block

	// Attach hands over the network of that block, which stays open as long as
	// the guidance is asked. It is a Denoiser, a Classifier or whatever else its
	// family makes; an error tells that it lacks what the guidance needs.
	Attach(network any) error
}

// A Classifier is a network that knows the classes of noisy images.
type Classifier interface {
	// Classes is the number of labels.
	Classes() int

	// Gradient is ∇ₓ log p(y | x_t, t), [N,C,H,W], for labels y [N]. It neither
	// changes x nor keeps it; what it returns is the caller's.
	Gradient(ctx context.Context, x tensor.Tensor, t Timestep, y []int64) (tensor.Tensor, error)
}
