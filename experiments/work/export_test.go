package work

// What tests of the package see beside its interface.
var (
	Ended  = ended
	IDForm = idForm
)

// Claim takes a claim.
func (w *Worker) Claim(name string) (bool, error) { return w.claim(name) }

// FallSilent ends the signs of life.
func (w *Worker) FallSilent() { w.stop() }

// File is the worker's own file.
func (w *Worker) File() string { return w.own() }

// ClaimFile is the file of a claim.
func (w *Worker) ClaimFile(name string) string { return w.claimPath(name) }

// Mix allows several kinds of device.
func (w *Worker) Mix() { w.o.Mixed = true }
