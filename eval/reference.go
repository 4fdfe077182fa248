package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"sagbench/eval/images"
	"sagbench/eval/linalg"
	"sagbench/eval/npz"
	"sagbench/sampling/tensor"
)

// A Reference is what a file or a folder says about a set of images.
type Reference struct {
	Path     string
	Pool     *Stats        // mu, sigma; nil where the file has none
	Spatial  *Stats        // mu_s, sigma_s; nil where the file has none
	Features tensor.Tensor // feats [N,D]: pool features of single images; zero where the file has none
	Images   *images.Set   // nil where there are none
	Warnings []string      // what the file cannot supply, or what is suspicious about it

	Provenance *Provenance // how the statistics were made; nil where the file does not say

	subset images.Chooser // of the images; nil = all
}

// ReadReference reads a set of images in any form that package images opens, or an
// .npz file in the layout of the ADM evaluator: images arr_0 [N,H,W,3] and,
// where they are known, statistics mu [D], sigma [D,D] of pool features and
// mu_s, sigma_s of spatial features, float32 or float64. A file of mu and sigma
// alone (pytorch-fid, clean-fid, EDM), feats [N,D] alone (clean-fid's KID) and
// one of arr_0 alone (samples) are read as well. Statistics are checked: finite,
// symmetric, no negative variance or eigenvalue, shapes that fit. Images are opened, not decoded; Close closes them.
func ReadReference(ctx context.Context, path string, opt images.Options) (*Reference, error) {
	kind, err := images.KindOf(path)
	if err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	if kind != images.NPZ {
		set, err := images.Open(ctx, path, opt)
		if err != nil {
			return nil, fmt.Errorf("eval: %w", err)
		}
		return &Reference{Path: path, Images: set, Warnings: set.Warnings}, nil
	}
	f, err := npz.Open(path)
	if err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	r := &Reference{Path: path, subset: opt.Subset}
	if err := r.read(f); err != nil {
		return nil, errors.Join(fmt.Errorf("eval: %w", err), f.Close())
	}
	if r.Images == nil {
		err = f.Close()
	}
	return r, err
}

func (r *Reference) read(f *npz.File) error {
	var faults []error
	has := func(names ...string) bool {
		for _, n := range names {
			if f.Has(n) {
				return true
			}
		}
		return false
	}
	if !has("arr_0", "mu", "sigma", "feats") {
		return fmt.Errorf("%s: missing arr_0 and mu; the file holds %v, expected images arr_0 or statistics mu and sigma", r.Path, f.Names())
	}
	var err error
	if has("feats") && !has("arr_0", "mu", "sigma") {
		r.Features, err = readFeatures(f)
		return err
	}
	if r.subset != nil {
		if !has("arr_0") {
			return fmt.Errorf("%s: holds no images to choose some of: %v", r.Path, f.Names())
		}
		if has("mu", "sigma", "mu_s", "sigma_s") {
			r.Warnings = append(r.Warnings, r.Path+": its statistics are of all its images and are not used")
		}
		return r.readImages(f)
	}
	if has("mu", "sigma") {
		r.Pool, err = r.readStats(f, "mu", "sigma")
		faults = append(faults, err)
		if !has("mu_s", "sigma_s") {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: mu and sigma without mu_s and sigma_s: sFID needs them or its images", r.Path))
		}
	}
	if has("mu_s", "sigma_s") {
		r.Spatial, err = r.readStats(f, "mu_s", "sigma_s")
		faults = append(faults, err)
	}
	if r.Provenance, err = readProvenance(f); err != nil {
		faults = append(faults, err)
	} else if p := r.Provenance; p != nil {
		for _, s := range []*Stats{r.Pool, r.Spatial} {
			if s != nil {
				s.N = p.Images
			}
		}
	}
	if has("arr_0") && errors.Join(faults...) == nil {
		faults = append(faults, r.readImages(f))
	}
	return errors.Join(faults...)
}

// readImages opens arr_0 and its labels arr_1.
func (r *Reference) readImages(f *npz.File) (err error) {
	r.Images, err = images.OfArray(r.Path, func() (*npz.Array, error) { return f.Array("arr_0") }, f, r.subset)
	if err != nil {
		return err
	}
	r.Warnings = append(r.Warnings, r.Images.Warnings...)
	if f.Has("arr_1") {
		r.Images.LabelledBy(func() (*npz.Array, error) { return f.Array("arr_1") })
	}
	return nil
}

// Close closes the images.
func (r *Reference) Close() error {
	if r.Images == nil {
		return nil
	}
	return r.Images.Close()
}

// maxDims bounds statistics: the widest features in use have 4096 dimensions.
const maxDims = 8192

// A sum of negative eigenvalues counts as rounding up to roundedShare of the trace,
// and is not worth a word up to silentShare; FID is wrong by as much as it.
const roundedShare, silentShare = 1e-3, 1e-6

// readStats reads a mean [D] and a covariance [D,D].
func (r *Reference) readStats(f *npz.File, mean, cov string) (*Stats, error) {
	mu, shape, single, err := readFloats(f, mean, maxDims)
	if err != nil {
		return nil, err
	}
	if len(shape) != 1 || shape[0] < 1 {
		return nil, fmt.Errorf("%s: %s has shape %v, expected [D]", f.Path(), mean, shape)
	}
	d := shape[0]
	sigma, shape, _, err := readFloats(f, cov, maxDims*maxDims)
	if err != nil {
		return nil, err
	}
	if len(shape) != 2 || shape[0] != d || shape[1] != d {
		return nil, fmt.Errorf("%s: %s has shape %v, expected [%d,%d] since %s has %d values", f.Path(), cov, shape, d, d, mean, d)
	}
	if err := checkCovariance(sigma, d); err != nil {
		return nil, fmt.Errorf("%s: %s %w", f.Path(), cov, err)
	}
	s := &Stats{Mean: mu, Cov: sigma, Source: f.Path()}
	smallest, negative, err := linalg.NegativePart(sigma, d, nil)
	switch share := -negative / s.trace(); {
	case err != nil:
		return nil, fmt.Errorf("%s: %s: %w", f.Path(), cov, err)
	case share > roundedShare:
		return nil, fmt.Errorf("%s: %s has the eigenvalue %.3g (trace %.3g): a covariance has none below 0; make the statistics anew, `sagbench reference` does it from the images", f.Path(), cov, smallest, s.trace())
	case share > silentShare:
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %s has eigenvalues down to %.2g, as rounding leaves them; they count as 0 under the root, and scores are up to %.2g too low", f.Path(), cov, smallest, -negative))
	}
	if single {
		s.Mean32 = make([]float32, d)
		for i, v := range mu {
			s.Mean32[i] = float32(v)
		}
	}
	return s, nil
}

// readFloats reads a whole array of floating point numbers that are finite;
// single says whether the file has them as float32 or less.
func readFloats(f *npz.File, name string, limit int) (values []float64, shape []int, single bool, err error) {
	a, err := f.Array(name)
	if err != nil {
		return nil, nil, false, err
	}
	values, err = npz.ReadAll[float64](a, limit)
	if err := errors.Join(err, a.Close()); err != nil {
		return nil, nil, false, err
	}
	if a.Dtype.Kind != 'f' {
		return nil, nil, false, fmt.Errorf("%s: %s holds %s, expected floating point numbers", f.Path(), name, a.Dtype)
	}
	return values, a.Shape, a.Dtype.Size < 8, checkNumbers(f, a, values)
}

// checkNumbers reports the first of an array's values that is not finite.
func checkNumbers[T float32 | float64](f *npz.File, a *npz.Array, values []T) error {
	i := slices.IndexFunc(values, func(v T) bool { return v-v != 0 })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("%s: %s%v is %v, expected a finite number", f.Path(), a.Name, position(i, a.Shape), values[i])
}

// position is the index of element i of an array of that shape.
func position(i int, shape []int) []int {
	at := make([]int, len(shape))
	for axis := len(shape) - 1; axis >= 0; axis-- {
		at[axis] = i % shape[axis]
		i /= shape[axis]
	}
	return at
}

// checkCovariance reports what a covariance cannot have, and makes a exactly
// symmetric.
func checkCovariance(a []float64, d int) error {
	for i := range d {
		if v := a[i*d+i]; v < 0 {
			return fmt.Errorf("has the negative variance %v at [%d %d]: it is no covariance", v, i, i)
		}
	}
	for i := range d {
		for j := range i {
			x, y := a[i*d+j], a[j*d+i]
			if math.Abs(x-y) > 1e-5*math.Sqrt(a[i*d+i]*a[j*d+j]) {
				return fmt.Errorf("is not symmetric: %v at [%d %d], %v at [%d %d]", y, j, i, x, i, j)
			}
			a[i*d+j] = (x + y) / 2
			a[j*d+i] = a[i*d+j]
		}
	}
	return nil
}

// maxFeatures bounds the values of an array of features: 2 GB of float32.
const maxFeatures = 1 << 29

// readFeatures reads feats [N,D], the pool features of single images that
// clean-fid keeps as the reference of its KID (cleanfid/fid.py make_custom_stats).
func readFeatures(f *npz.File) (tensor.Tensor, error) {
	a, err := f.Array("feats")
	if err != nil {
		return tensor.Tensor{}, err
	}
	if len(a.Shape) != 2 || a.Shape[0] < 1 || a.Shape[1] < 1 || a.Dtype.Kind != 'f' {
		return tensor.Tensor{}, errors.Join(fmt.Errorf("%s: feats is %s %v, expected features [N,D] as floating point numbers", f.Path(), a.Dtype, a.Shape), a.Close())
	}
	values, err := npz.ReadAll[float32](a, maxFeatures)
	if err := errors.Join(err, a.Close()); err != nil {
		return tensor.Tensor{}, err
	}
	return tensor.Of(values, a.Shape...), checkNumbers(f, a, values)
}

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
// uint8 [bytes]: numpy.load(path)["sagbench"].tobytes(). Other
// evaluators do not look at it.
const provenanceArray = "sagbench"

// Write adds the provenance to a file.
func (p *Provenance) Write(w *npz.Writer) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return npz.WriteArray(w, provenanceArray, data, len(data))
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

// knownReferences tells of files that do not say how they were made, by the sha256
// of their content: models/pretrained/reference.npz.
var knownReferences = map[string]Provenance{
	"89f5f4077a22eca3b4de6ba64c6f2a0653e8067d2df3adc3354ba106e23cf805": {
		Network: "inception", SHA256: "5415497672e6ff59c68e1542be92fb3b4bd4f7d0eef449f4255a0ad02011018b", Resize: "tf", InputSize: 107,
	},
}

// Agree compares the statistics of a reference, whose file has the sha256 content,
// with what images are compared by: network, its file, resize and input size. The
// error tells what disagrees; the notes tell what had to be assumed.
//
// A file without provenance, unless it is known, is judged by its layout: with mu_s
// it is taken for one of ADM's, whose images were resized as TensorFlow 1 does; with
// mu alone (pytorch-fid, clean-fid, EDM, TTUR) nothing about it is known.
func (r *Reference) Agree(content string, ours Provenance) (notes []string, err error) {
	how := fmt.Sprintf("images resized to %d×%[1]d pixels as %q does", ours.InputSize, ours.Resize)
	if !r.Features.IsZero() {
		if ours.Resize != "clean" {
			return nil, fmt.Errorf("%s: its features feats are clean-fid's, of images resized as \"clean\" does; these are resized as %q does. Take the protocol clean-fid", r.Path, ours.Resize)
		}
		return []string{fmt.Sprintf("%s: its features feats do not say how they were made; taken for clean-fid's, of this network and of %s", r.Path, how)}, nil
	}
	if r.Pool == nil && r.Spatial == nil {
		return nil, nil
	}
	theirs, known := knownReferences[content]
	switch {
	case r.Provenance != nil:
		theirs = *r.Provenance
	case known:
	case r.Spatial == nil:
		return []string{fmt.Sprintf("%s: its statistics do not say how they were made; taken to be of this network and of %s", r.Path, how)}, nil
	case ours.Resize != "tf":
		return nil, fmt.Errorf("%s: its statistics have the layout of ADM's, which are of images resized as \"tf\" does; these are resized as %q does. Take the protocol adm, or make statistics of the images with `sagbench reference`", r.Path, ours.Resize)
	default:
		return []string{fmt.Sprintf("%s: its statistics do not say how they were made; from their layout they are taken for ADM's, of this network and of %s", r.Path, how)}, nil
	}
	var faults []error
	differs := func(what string, theirs, ours any) {
		if theirs != ours {
			faults = append(faults, fmt.Errorf("%s: its statistics were made with %s %v, these features with %v", r.Path, what, theirs, ours))
		}
	}
	differs("network", theirs.Network, ours.Network)
	differs("a network file of sha256", theirs.SHA256, ours.SHA256)
	differs("resize", theirs.Resize, ours.Resize)
	differs("input size", theirs.InputSize, ours.InputSize)
	if faults != nil {
		faults = append(faults, errors.New("numbers across the two mean nothing: choose the same, or make the statistics anew with `sagbench reference`"))
	}
	return nil, errors.Join(faults...)
}
