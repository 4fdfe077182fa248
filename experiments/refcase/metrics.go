package refcase

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sagbench/eval"
	"sagbench/eval/linalg"
	"sagbench/eval/neighbours"
	"sagbench/models/ort"
)

// metricOutputs computes the arrays out.* of a reference case of kind evaluate,
// those of want that are known here, from its arrays in.*: what a check compares
// with the case's own. Other implementations' numbers (pytorch_fid, torchmetrics,
// torch_fidelity, prdc) are computed by their definitions. Nil products are Gonum.
func metricOutputs(ctx context.Context, in map[string]ort.Array, want []string, products linalg.Products) (map[string][]float64, error) {
	c := &metricCase{ctx: ctx, in: in, products: products}
	var err error
	if c.ref, err = c.features("in.reference"); err != nil {
		return nil, err
	}
	if c.gen, err = c.features("in.generated"); err != nil {
		return nil, err
	}
	if logits, ok := in["in.logits"]; ok {
		if c.gen.Logits, ok = logits.Data.([]float32); !ok || len(logits.Shape) != 2 || logits.Shape[0] < 1 || c.gen.N > 0 && c.gen.N != logits.Shape[0] {
			return nil, fmt.Errorf("eval: in.logits: expected floating point logits [N,K] of the images of in.generated, found shape %v", logits.Shape)
		}
		c.gen.N = logits.Shape[0]
	}
	if err := errors.Join(c.ref.Validate(), c.gen.Validate()); err != nil {
		return nil, err
	}
	c.kid, c.infinity = sync.OnceValues(c.kidOfSubsets), sync.OnceValues(c.fitInfinity)
	out := map[string][]float64{}
	var faults []error
	for _, name := range want {
		values, err := c.output(strings.TrimPrefix(name, "out."))
		if err != nil {
			faults = append(faults, fmt.Errorf("eval: %s: %w", name, err))
		} else if values != nil {
			out[name] = values
		}
	}
	return out, errors.Join(faults...)
}

// A metricCase is a case under computation.
type metricCase struct {
	ctx      context.Context
	in       map[string]ort.Array
	products linalg.Products
	ref, gen *eval.Features

	kid      func() ([2]float64, error) // mean and standard deviation over the case's subsets
	infinity func() (eval.InfinityFit, error)
}

// features are those of a set; a case of logits alone, or of one set, lacks the
// others, and the metrics that need them tell.
func (c *metricCase) features(name string) (*eval.Features, error) {
	a, ok := c.in[name]
	if !ok {
		return &eval.Features{Source: name, Products: c.products}, nil
	}
	pool, _ := a.Data.([]float32)
	if len(a.Shape) != 2 || len(pool) != a.Shape[0]*a.Shape[1] || len(pool) == 0 {
		return nil, fmt.Errorf("eval: %s: expected floating point features [N,D], found shape %v", name, a.Shape)
	}
	return &eval.Features{Source: name, N: a.Shape[0], D: a.Shape[1], Pool: pool, Products: c.products}, nil
}

// output is one array; nil where the name is not known. A number at the end of
// names like density.k5 and is.adm.split200 is a parameter. adm.* are
// evaluator.py's own intermediate results: the radii, and the first 16 × 16
// distances from reference to generated images.
func (c *metricCase) output(name string) ([]float64, error) {
	if values, known, err := c.embeddingOutput(name); known {
		return values, err
	}
	number := 0
	if base := strings.TrimRight(name, "0123456789"); strings.HasSuffix(base, ".k") || strings.HasSuffix(base, ".split") {
		n, err := strconv.Atoi(name[len(base):])
		if err != nil {
			return nil, err
		}
		name, number = base, n
	}
	if err := c.require(name); err != nil {
		return nil, err
	}
	_, program, _ := strings.Cut(name, ".")
	distance := neighbours.Distance(program)
	if program == "torch_fidelity" {
		distance = neighbours.DistanceF32
	}
	switch name {
	case "fid.adm", "fid.torch_fidelity":
		f, err := c.frechet(eval.MeanFloat32)
		return []float64{f.Distance}, err
	case "fid.exact", "fid.pytorch_fid", "fid.torchmetrics":
		f, err := c.frechet(eval.MeanFloat64)
		return []float64{f.Distance}, err
	case "fid.trace":
		f, err := c.frechet(eval.MeanFloat64)
		return []float64{f.Traces}, err
	case "precision.adm", "precision.fp16", "precision.f32", "precision.torch_fidelity":
		return c.value(&eval.Precision{K: 3, Distance: distance})
	case "recall.adm", "recall.fp16", "recall.f32", "recall.torch_fidelity":
		return c.value(&eval.Recall{K: 3, Distance: distance})
	case "precision.prdc.k":
		return c.value(&eval.PRDCPrecision{K: number})
	case "recall.prdc.k":
		return c.value(&eval.PRDCRecall{K: number})
	case "density.k":
		return c.value(&eval.Density{K: number})
	case "coverage.k":
		return c.value(&eval.Coverage{K: number})
	case "adm.radii_reference":
		return c.radii(c.ref)
	case "adm.radii_generated":
		return c.radii(c.gen)
	case "adm.distance":
		return c.scan().Distances(c.ref.Pool, c.gen.Pool, 16)
	case "kid.exact":
		return c.value(&eval.KID{})
	case "kid.subsets", "kid.torch_fidelity":
		v, err := c.kid()
		return v[:1], err
	case "kid.subsets.std", "kid.torch_fidelity.std":
		v, err := c.kid()
		return v[1:], err
	case "is.adm", "is.f64":
		return c.value(&eval.InceptionScore{SplitSize: 5000})
	case "is.adm.split", "is.f64.split":
		if number < 1 {
			return nil, errors.New("splits of 0 images")
		}
		return c.value(&eval.InceptionScore{SplitSize: number})
	case "is.torch_fidelity":
		s, err := c.permutedIS()
		return []float64{s.Value}, err
	case "is.torch_fidelity.std":
		s, err := c.permutedIS()
		return []float64{s.Std}, err
	case "fid_infinity":
		fit, err := c.infinity()
		return []float64{fit.Intercept}, err
	case "fid_infinity.slope":
		fit, err := c.infinity()
		return []float64{fit.Slope}, err
	case "fid_infinity.fids":
		fit, err := c.infinity()
		return fit.FIDs, err
	}
	return nil, nil
}

// require reports the inputs that an output needs and the case lacks.
func (c *metricCase) require(name string) error {
	if strings.HasPrefix(name, "is.") {
		if c.gen.N == 0 {
			return errors.New("in.logits is missing")
		}
		return nil
	}
	for _, set := range []*eval.Features{c.ref, c.gen} {
		if set.Pool == nil {
			return fmt.Errorf("%s is missing", set.Source)
		}
	}
	return nil
}

func (c *metricCase) frechet(mean eval.MeanType) (eval.Frechet, error) {
	for _, set := range []*eval.Features{c.ref, c.gen} {
		if set.Stats != nil {
			continue
		}
		var err error
		if set.Stats, err = eval.StatsOf(set.Pool, set.D, c.products); err != nil {
			return eval.Frechet{}, err
		}
		set.Stats.Source = set.Source
	}
	return eval.FrechetDistance(c.ref.Stats, c.gen.Stats, mean, c.products)
}

// value is the score of a metric.
func (c *metricCase) value(m eval.Metric) ([]float64, error) {
	s, err := m.Score(c.ctx, c.ref, c.gen)
	if err != nil {
		return nil, err
	}
	return []float64{s[0].Value}, nil
}

func (c *metricCase) scan() *neighbours.Scan {
	return neighbours.NewScan(c.ctx, neighbours.DistanceADM, c.products, c.ref.Pool, c.ref.D)
}

func (c *metricCase) radii(f *eval.Features) ([]float64, error) {
	out, err := c.scan().Radii(f.Pool, 3)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Source, err)
	}
	return out, nil
}

// kidOfSubsets is the mean and the standard deviation of KID over the case's subsets.
func (c *metricCase) kidOfSubsets() (v [2]float64, err error) {
	g, err := c.lists("in.kid.generated", c.gen.N)
	if err != nil {
		return v, err
	}
	r, err := c.lists("in.kid.reference", c.ref.N)
	if err != nil {
		return v, err
	}
	if len(g) != len(r) || len(g) == 0 {
		return v, fmt.Errorf("%d subsets of in.generated, %d of in.reference", len(g), len(r))
	}
	v[0], v[1], err = eval.KIDOfSubsets(c.ctx, c.ref, c.gen, r, g)
	return v, err
}

// lists reads an array [subsets,size] of indices of n images.
func (c *metricCase) lists(name string, n int) ([][]int, error) {
	a := c.in[name]
	if len(a.Shape) != 2 || a.Shape[1] < 1 || len(values(a)) != a.Shape[0]*a.Shape[1] {
		return nil, fmt.Errorf("%s: expected indices [subsets,size], found shape %v", name, a.Shape)
	}
	all, err := c.indices(name, n)
	if err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(all, a.Shape[1])), nil
}

// indices reads an array of indices of n images; one that is not there is empty.
func (c *metricCase) indices(name string, n int) ([]int, error) {
	v := values(c.in[name])
	out := make([]int, len(v))
	for i, x := range v {
		if x < 0 || x >= float64(n) || x != math.Trunc(x) {
			return nil, fmt.Errorf("%s: index %g of %d images", name, x, n)
		}
		out[i] = int(x)
	}
	return out, nil
}

// permutedIS is torch-fidelity's IS, which takes the images in the case's order.
func (c *metricCase) permutedIS() (eval.Score, error) {
	order, err := c.indices("in.permutation", c.gen.N)
	if err != nil {
		return eval.Score{}, err
	}
	if len(order) != c.gen.N {
		return eval.Score{}, fmt.Errorf("in.permutation: %d indices of %d images", len(order), c.gen.N)
	}
	permuted, classes := &eval.Features{Source: c.gen.Source, N: c.gen.N}, len(c.gen.Logits)/c.gen.N
	for _, i := range order {
		permuted.Logits = append(permuted.Logits, c.gen.Logits[i*classes:(i+1)*classes]...)
	}
	s, err := (&eval.InceptionScore{Splits: 10}).Score(c.ctx, c.ref, permuted)
	if err != nil {
		return eval.Score{}, err
	}
	return s[0], nil
}

// fitInfinity extrapolates the FIDs of the case's subsets.
func (c *metricCase) fitInfinity() (eval.InfinityFit, error) {
	rest, err := c.indices("in.subsets.indices", c.gen.N)
	if err != nil {
		return eval.InfinityFit{}, err
	}
	var subsets [][]int
	for _, size := range values(c.in["in.subsets.sizes"]) {
		if size < 0 || size > float64(len(rest)) {
			return eval.InfinityFit{}, fmt.Errorf("in.subsets.sizes: a subset of %g, %d indices are left", size, len(rest))
		}
		subsets = append(subsets, rest[:int(size)])
		rest = rest[int(size):]
	}
	return eval.FIDOfSubsets(c.ctx, c.ref, c.gen, subsets)
}
