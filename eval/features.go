package eval

import (
	"errors"
	"fmt"
	"sync"
)

// Features is what is known about one set of images. Any part may be missing;
// a metric that needs it says so and names what would supply it.
type Features struct {
	Source      string    // file, folder or run, for messages
	Network     string    // that the features come from, by its name in a table of networks; "" = unknown
	N           int       // images with pool features
	D           int       // pool features of an image
	Pool        []float32 // [N,D] pool features in file order; nil where only statistics are known
	Stats       *Stats    // of pool features; nil: computed from Pool. A reference's may cover more images than Pool
	Spatial     *Stats    // of spatial features (sFID)
	SpatialRows []float32 // [N,S] the spatial features themselves; nil unless a bootstrap needs them
	Logits      []float32 // [N,K] class logits in file order; nil: Pool·ClassWeightᵀ
	ClassWeight []float32 // [K,D] last layer of the classifier, without bias
	Products    Products  // nil: Gonum
	Notes       []string  // what was assumed, converted or left out on the way here, for people

	mu   sync.Mutex
	memo map[any]any // radii, statistics: what a sweep computes once for its reference
}

// Validate reports parts that do not fit each other and values that are not
// finite (a *NotFiniteError that names the image).
func (f *Features) Validate() error {
	var faults []error
	fail := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("eval: %s: %w", f.name(), fmt.Errorf(format, args...)))
	}
	if f.Pool != nil {
		if f.N < 1 || f.D < 1 || len(f.Pool) != f.N*f.D {
			fail("%d pool features, expected %d images of %d", len(f.Pool), f.N, f.D)
		} else if err := checkFinite(f.Pool, f.D, 0); err != nil {
			fail("%w", err)
		}
	}
	for what, s := range map[string]*Stats{"pool": f.Stats, "spatial": f.Spatial} {
		if s != nil && len(s.Cov) != s.D()*s.D() {
			fail("%s statistics: mean of %d, covariance of %d values", what, s.D(), len(s.Cov))
		}
	}
	if f.Pool != nil && f.Stats != nil && f.Stats.D() != f.D {
		fail("pool features of %d dimensions, statistics of %d", f.D, f.Stats.D())
	}
	if f.SpatialRows != nil {
		if f.N < 1 || f.Spatial == nil || len(f.SpatialRows) != f.N*f.Spatial.D() {
			fail("%d spatial features of %d images that do not fit their statistics", len(f.SpatialRows), f.N)
		} else if err := checkFinite(f.SpatialRows, f.Spatial.D(), 0); err != nil {
			fail("spatial features: %w", err)
		}
	}
	if f.Logits != nil {
		if f.N < 1 || len(f.Logits)%f.N != 0 {
			fail("%d logits for %d images", len(f.Logits), f.N)
		} else if err := checkFinite(f.Logits, len(f.Logits)/f.N, 0); err != nil {
			fail("logits: %w", err)
		}
	}
	if f.ClassWeight != nil && (f.D < 1 || len(f.ClassWeight)%f.D != 0) {
		fail("class weight of %d values for %d features", len(f.ClassWeight), f.D)
	}
	return errors.Join(faults...)
}

func (f *Features) name() string {
	if f.Source == "" {
		return "features"
	}
	return f.Source
}

// products is the first implementation that one of the sets brings.
func products(sets ...*Features) Products {
	for _, f := range sets {
		if f.Products != nil {
			return f.Products
		}
	}
	return Gonum{}
}

// poolStats are the statistics of the pool features, given or computed once.
func (f *Features) poolStats() (*Stats, error) {
	if f.Stats != nil {
		return f.Stats, nil
	}
	if f.Pool == nil {
		return nil, fmt.Errorf("%s has no pool statistics: a reference .npz supplies them as mu and sigma, images as arr_0", f.name())
	}
	return remember(f, "pool stats", func() (*Stats, error) {
		s, err := StatsOf(f.Pool, f.D, f.Products)
		if err != nil {
			return nil, err
		}
		s.Source = f.Source
		return s, nil
	})
}

// pools checks that both sets have pool features of one dimension.
func pools(ref, gen *Features) error {
	var faults []error
	faults = append(faults, ref.single(), gen.single())
	if errors.Join(faults...) == nil && ref.D != gen.D {
		faults = append(faults, fmt.Errorf("%s has %d features an image, %s has %d: they come from different networks",
			ref.name(), ref.D, gen.name(), gen.D))
	}
	return errors.Join(faults...)
}

// single reports that there are no features of single images.
func (f *Features) single() error {
	if f.Pool == nil {
		return fmt.Errorf("%s has no features of single images: statistics are not enough, an .npz with arr_0 supplies them", f.name())
	}
	return nil
}

// remember computes a value once for a set of features.
func remember[T any](f *Features, key any, compute func() (T, error)) (T, error) {
	f.mu.Lock()
	v, ok := f.memo[key]
	f.mu.Unlock()
	if ok {
		return v.(T), nil
	}
	value, err := compute()
	if err != nil {
		return value, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memo == nil {
		f.memo = map[any]any{}
	}
	f.memo[key] = value
	return value, nil
}
