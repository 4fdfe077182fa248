package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"sagbench/eval/npz"
)

// Provenance is what statistics in a file were made from and with. The command
// reference writes it; official files have none.
type Provenance struct {
	Program   string            `json:"program"` // and its version
	Protocol  string            `json:"protocol"`
	Network   string            `json:"network"` // inception, dinov2, …
	SHA256    string            `json:"network_sha256"`
	Resize    string            `json:"resize"`     // how images came to the network's size
	InputSize int               `json:"input_size"` // that size
	Images    int               `json:"images"`     // that the statistics are of
	Source    string            `json:"source"`     // name of the file or folder of images
	Content   string            `json:"source_sha256"`
	Versions  map[string]string `json:"versions"`
}

// provenanceArray is the array of a file that holds its provenance as JSON,
// uint8 [bytes]: numpy.load(path)["sagbench"].tobytes(). ADM's evaluator and
// others look at the arrays that they know alone.
const provenanceArray = "sagbench"

// Write adds the provenance to a file.
func (p *Provenance) Write(w *npz.Writer) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	a, err := w.Array(provenanceArray, npz.Uint8, len(data))
	if err != nil {
		return err
	}
	return npz.WriteRows(a, data)
}

// maxProvenance bounds the JSON against a damaged file.
const maxProvenance = 1 << 16

// readProvenance reads what Write wrote; nil where the file has none.
func readProvenance(f *npz.File) (*Provenance, error) {
	if !f.Has(provenanceArray) {
		return nil, nil
	}
	a, err := f.Array(provenanceArray)
	if err != nil {
		return nil, err
	}
	data, err := npz.ReadAll[uint8](a, maxProvenance)
	if err := errors.Join(err, a.Close()); err != nil {
		return nil, err
	}
	p := &Provenance{}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %s is not the provenance that the command reference writes: %w", f.Path(), provenanceArray, err)
	}
	if p.Images < 2 {
		return nil, fmt.Errorf("%s: %s tells of statistics of %d images: the file is damaged", f.Path(), provenanceArray, p.Images)
	}
	return p, nil
}

// Agree compares the statistics of a reference with the network and the resize
// that images are compared by. The error tells what disagrees; the notes tell
// what had to be assumed.
//
// A file without provenance is judged by its layout: with mu_s it is taken for
// one of ADM's, whose images were resized as TensorFlow 1 does; with mu alone
// (pytorch-fid, clean-fid, EDM, TTUR) nothing about it is known.
func (r *Reference) Agree(network, sha256, resize string, inputSize int) (notes []string, err error) {
	if !r.Features.IsZero() && resize != "clean" {
		return nil, fmt.Errorf("%s: its features feats are clean-fid's, of images resized as \"clean\" does; these are resized as %q does. Take the protocol clean-fid", r.Path, resize)
	}
	if r.Pool == nil && r.Spatial == nil {
		return nil, nil
	}
	if r.Provenance == nil {
		if r.Spatial == nil {
			return []string{fmt.Sprintf("%s: its statistics do not say how they were made; taken to be of this network and of images resized as %q does", r.Path, resize)}, nil
		}
		if resize != "tf" {
			return nil, fmt.Errorf("%s: its statistics have the layout of ADM's, which are of images resized as \"tf\" does; these are resized as %q does. Take the protocol adm, or make statistics of the images with `sagbench reference`", r.Path, resize)
		}
		return []string{fmt.Sprintf("%s: its statistics do not say how they were made; from their layout they are taken for ADM's, of this network and of images resized as \"tf\" does", r.Path)}, nil
	}
	var faults []error
	differs := func(what string, theirs, ours any) {
		if theirs != ours {
			faults = append(faults, fmt.Errorf("%s: its statistics were made with %s %v, these features with %v", r.Path, what, theirs, ours))
		}
	}
	p := r.Provenance
	differs("network", p.Network, network)
	differs("a network file of sha256", p.SHA256, sha256)
	differs("resize", p.Resize, resize)
	differs("input size", p.InputSize, inputSize)
	if faults != nil {
		faults = append(faults, errors.New("numbers across the two mean nothing: choose the same, or make the statistics anew with `sagbench reference`"))
	}
	return nil, errors.Join(faults...)
}
