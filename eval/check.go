package eval

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A CaseArray is an array in.* of a reference case, in C order: Float where it
// holds floating point values, Int where it holds integers.
type CaseArray struct {
	Shape []int
	Float []float32
	Int   []int64
}

// CaseOutputs computes the arrays out.* of a reference case of kind evaluate,
// those of want that this package knows, from its arrays in.*: what a check
// compares with the case's own. Other implementations' numbers (pytorch_fid,
// torchmetrics, torch_fidelity, prdc) are computed by their definitions.
func CaseOutputs(ctx context.Context, in map[string]CaseArray, want []string, p Products) (map[string][]float64, error) {
	c := &checker{ctx: ctx, in: in, products: p}
	var err error
	if c.ref, err = c.features("in.reference"); err != nil {
		return nil, err
	}
	if c.gen, err = c.features("in.generated"); err != nil {
		return nil, err
	}
	if logits, ok := in["in.logits"]; ok {
		c.gen.Logits = logits.Float
	}
	if err := errors.Join(c.ref.Validate(), c.gen.Validate()); err != nil {
		return nil, err
	}
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

type checker struct {
	ctx      context.Context
	in       map[string]CaseArray
	products Products
	ref, gen *Features
}

func (c *checker) features(name string) (*Features, error) {
	a, ok := c.in[name]
	if !ok || len(a.Shape) != 2 || len(a.Float) != a.Shape[0]*a.Shape[1] || len(a.Float) == 0 {
		return nil, fmt.Errorf("eval: %s: expected floating point features [N,D], found shape %v", name, a.Shape)
	}
	return &Features{Source: name, N: a.Shape[0], D: a.Shape[1], Pool: a.Float, Products: c.products}, nil
}

// parameter is the number at the end of names like density.k5 and is.adm.split200.
var parameter = regexp.MustCompile(`^(.*)\.(k|split)(\d+)$`)

// output is one array; nil where the name is not known.
func (c *checker) output(name string) ([]float64, error) {
	number := 0
	if m := parameter.FindStringSubmatch(name); m != nil {
		n, err := strconv.Atoi(m[3])
		if err != nil {
			return nil, err
		}
		name, number = m[1]+"."+m[2], n
	}
	group, _, _ := strings.Cut(name, ".")
	switch group {
	case "fid":
		return c.fid(name)
	case "precision", "recall", "density", "coverage":
		return c.manifold(name, number)
	case "adm":
		return c.adm(name)
	case "kid":
		return c.kid(name)
	case "is":
		return c.inception(name, number)
	case "fid_infinity":
		return c.infinity(name)
	}
	return nil, nil
}

func (c *checker) fid(name string) ([]float64, error) {
	mean := MeanFloat64
	switch name {
	case "fid.adm", "fid.torch_fidelity":
		mean = MeanFloat32
	case "fid.exact", "fid.pytorch_fid", "fid.torchmetrics", "fid.trace":
	default:
		return nil, nil
	}
	r, err := c.ref.poolStats()
	if err != nil {
		return nil, err
	}
	g, err := c.gen.poolStats()
	if err != nil {
		return nil, err
	}
	f, err := FrechetDistance(r, g, mean, c.products)
	if name == "fid.trace" {
		return []float64{f.Traces}, err
	}
	return []float64{f.Distance}, err
}

func (c *checker) manifold(name string, k int) ([]float64, error) {
	var m Metric
	switch name {
	case "precision.adm", "precision.fp16", "precision.f32":
		m = &Precision{K: 3, Distance: Distance(name[len("precision."):])}
	case "recall.adm", "recall.fp16", "recall.f32":
		m = &Recall{K: 3, Distance: Distance(name[len("recall."):])}
	case "precision.torch_fidelity":
		m = &Precision{K: 3, Distance: DistanceF32}
	case "recall.torch_fidelity":
		m = &Recall{K: 3, Distance: DistanceF32}
	case "precision.prdc.k":
		m = &PRDCPrecision{K: k}
	case "recall.prdc.k":
		m = &PRDCRecall{K: k}
	case "density.k":
		m = &Density{K: k}
	case "coverage.k":
		m = &Coverage{K: k}
	default:
		return nil, nil
	}
	return c.score(m)
}

func (c *checker) score(m Metric) ([]float64, error) {
	s, err := m.Score(c.ctx, c.ref, c.gen)
	if err != nil {
		return nil, err
	}
	return []float64{s[0].Value}, nil
}

// adm are evaluator.py's own intermediate results: the first 16 × 16 distances
// from reference to generated images, and the radii.
func (c *checker) adm(name string) ([]float64, error) {
	const k = 3
	s := newScan(c.ctx, DistanceADM, c.products, c.ref.Pool, c.ref.D)
	switch name {
	case "adm.radii_reference":
		return c.ref.radii(s, k)
	case "adm.radii_generated":
		return c.gen.radii(s, k)
	case "adm.distance":
		p, err := s.pair(s.block(c.ref.Pool, 0), s.block(c.gen.Pool, 0))
		if err != nil {
			return nil, err
		}
		var out []float64
		for i := range min(16, c.ref.N) {
			for j := range min(16, c.gen.N) {
				out = append(out, p.exact(i, j))
			}
		}
		return out, nil
	}
	return nil, nil
}

func (c *checker) kid(name string) ([]float64, error) {
	switch name {
	case "kid.exact":
		return c.score(&KID{})
	case "kid.subsets", "kid.subsets.std", "kid.torch_fidelity", "kid.torch_fidelity.std":
		g, err := c.lists("in.kid.generated", c.gen.N)
		if err != nil {
			return nil, err
		}
		r, err := c.lists("in.kid.reference", c.ref.N)
		if err != nil {
			return nil, err
		}
		if len(g) != len(r) || len(g) == 0 {
			return nil, fmt.Errorf("%d subsets of in.generated, %d of in.reference", len(g), len(r))
		}
		type subsets struct{ mean, std float64 }
		v, err := remember(c.gen, "case kid", func() (subsets, error) {
			mean, std, err := kernelSubsets(c.ctx, products(c.gen), c.gen, c.ref, g, r)
			return subsets{mean, std}, err
		})
		if strings.HasSuffix(name, ".std") {
			return []float64{v.std}, err
		}
		return []float64{v.mean}, err
	}
	return nil, nil
}

// lists reads an array [subsets,size] of indices of n images.
func (c *checker) lists(name string, n int) ([][]int, error) {
	a, ok := c.in[name]
	if !ok || len(a.Shape) != 2 || a.Shape[1] < 1 || len(a.Int) != a.Shape[0]*a.Shape[1] {
		return nil, fmt.Errorf("%s: expected indices [subsets,size], found shape %v", name, a.Shape)
	}
	all, err := indices(name, a.Int, n)
	if err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(all, a.Shape[1])), nil
}

func indices(name string, values []int64, n int) ([]int, error) {
	out := make([]int, len(values))
	for i, v := range values {
		if v < 0 || v >= int64(n) {
			return nil, fmt.Errorf("%s: index %d of %d images", name, v, n)
		}
		out[i] = int(v)
	}
	return out, nil
}

func (c *checker) inception(name string, size int) ([]float64, error) {
	switch name {
	case "is.adm", "is.f64":
		size = 5000
		fallthrough
	case "is.adm.split", "is.f64.split":
		if size < 1 {
			return nil, errors.New("splits of 0 images")
		}
		mean, _, _, err := inceptionScore(c.ctx, c.gen, splits(c.gen.N, size, 0), nil)
		return []float64{mean}, err
	case "is.torch_fidelity", "is.torch_fidelity.std":
		order, err := indices("in.permutation", c.in["in.permutation"].Int, c.gen.N)
		if err != nil {
			return nil, err
		}
		if len(order) != c.gen.N {
			return nil, fmt.Errorf("in.permutation: %d indices of %d images", len(order), c.gen.N)
		}
		mean, std, _, err := inceptionScore(c.ctx, c.gen, splits(c.gen.N, 0, 10), order)
		if strings.HasSuffix(name, ".std") {
			return []float64{std}, err
		}
		return []float64{mean}, err
	}
	return nil, nil
}

func (c *checker) infinity(name string) ([]float64, error) {
	fit, err := remember(c.gen, "case fid_infinity", func() (infinityFit, error) {
		rest, err := indices("in.subsets.indices", c.in["in.subsets.indices"].Int, c.gen.N)
		if err != nil {
			return infinityFit{}, err
		}
		var subsets [][]int
		for _, size := range c.in["in.subsets.sizes"].Int {
			if size < 0 || size > int64(len(rest)) {
				return infinityFit{}, fmt.Errorf("in.subsets.sizes: a subset of %d, %d indices are left", size, len(rest))
			}
			subsets = append(subsets, rest[:size])
			rest = rest[size:]
		}
		return fidInfinity(c.ctx, c.ref, c.gen, subsets)
	})
	switch name {
	case "fid_infinity":
		return []float64{fit.intercept}, err
	case "fid_infinity.slope":
		return []float64{fit.slope}, err
	case "fid_infinity.fids":
		return fit.fids, err
	}
	return nil, nil
}
