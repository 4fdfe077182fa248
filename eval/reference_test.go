package eval

import (
	"strings"
	"testing"

	"sagbench/eval/images"
)

const statsCase = "testdata/stats-npz/"

func TestReadReference(t *testing.T) {
	for _, c := range []struct {
		file                 string
		pool, spatial, image int
		single               bool
	}{
		{"adm_stored", 64, 63, 64, false},
		{"adm_compressed", 64, 63, 64, false},
		{"adm_fortran", 64, 63, 64, false},
		{"adm_mu_f32", 64, 63, 64, true},
		{"adm_f32_big_endian", 64, 63, 64, true},
		{"pytorch_fid", 64, 0, 0, false},
		{"sample_labels", 0, 0, 16, false},
	} {
		r, err := ReadReference(t.Context(), statsCase+c.file+".npz", images.Options{})
		if err != nil {
			t.Error(err)
			continue
		}
		if got := dims(r.Pool); got != c.pool {
			t.Errorf("%s: pool statistics of %d dimensions, want %d", c.file, got, c.pool)
		}
		if got := dims(r.Spatial); got != c.spatial {
			t.Errorf("%s: spatial statistics of %d dimensions, want %d", c.file, got, c.spatial)
		}
		if r.Pool != nil && (r.Pool.Mean32 != nil) != c.single {
			t.Errorf("%s: float32 mean %v, want %v", c.file, r.Pool.Mean32 != nil, c.single)
		}
		if (r.Images != nil) != (c.image > 0) {
			t.Errorf("%s: images %v", c.file, r.Images)
		}
		if r.Images != nil {
			if n := readImages(t, r.Images); n != r.Images.N {
				t.Errorf("%s: %d images, want %d", c.file, n, r.Images.N)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func dims(s *Stats) int {
	if s == nil {
		return 0
	}
	return s.D()
}

func readImages(t *testing.T, s *images.Set) (n int) {
	t.Helper()
	for p, err := range s.Images() {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Decode(); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// Each file of broken/ gives one error that names the file and its fault, or,
// where it can be used for some metrics, a warning.
func TestBrokenReferences(t *testing.T) {
	for name, want := range map[string]string{
		"bad_crc":                 "checksum",
		"bad_header":              "does not parse",
		"bad_magic":               "not an npy array",
		"duplicate_entry":         "two entries",
		"empty":                   "arr_0 has no images",
		"float_unit_range":        "multiply by 255 and save as uint8",
		"header_length":           "claims 4294967280 bytes",
		"huge_shape":              "larger than any file",
		"long_data":               "longer than its header says",
		"missing_arr_0":           "missing arr_0 and mu; the file holds [images]",
		"nan_mu":                  "mu[5] is NaN",
		"negative_shape":          "negative axis",
		"not_a_zip":               "is not an .npz archive",
		"object_dtype":            "pickle",
		"short_data":              "shorter than its header says",
		"sigma_inf":               "sigma[7 7] is +Inf",
		"sigma_missing":           "missing sigma",
		"sigma_negative_variance": "negative variance -1 at [2 2]",
		"sigma_not_symmetric":     "not symmetric",
		"sigma_shape":             "sigma has shape [63 63], expected [64,64]",
		"spatial_missing":         "warning: ",
		"truncated":               "truncated",
		"wrong_channels":          "4 channels",
		"wrong_rank":              "shape [16 8 8], expected images [N,H,W,3]",
	} {
		path := statsCase + "broken/" + name + ".npz"
		text := useReference(t, path)
		if !strings.Contains(text, want) || !strings.Contains(text, path) {
			t.Errorf("%s: got %q, want a message that names the file and says %q", name, text, want)
		}
		if strings.HasPrefix(want, "warning") != strings.HasPrefix(text, "warning") || strings.Count(text, "\n") > 0 {
			t.Errorf("%s: got %q", name, text)
		}
	}
}

// useReference reads a file to its end and returns what it has to complain of.
func useReference(t *testing.T, path string) string {
	t.Helper()
	r, err := ReadReference(t.Context(), path, images.Options{})
	if err != nil {
		return err.Error()
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, err := range r.Images.Images() {
		if err != nil {
			return err.Error()
		}
	}
	if len(r.Warnings) > 0 {
		return "warning: " + strings.Join(r.Warnings, "\n")
	}
	return ""
}

// Statistics of features of one set in a file equal those in memory.
func TestReferenceStatistics(t *testing.T) {
	r, err := ReadReference(t.Context(), statsCase+"adm_stored.npz", images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := FrechetDistance(r.Pool, r.Pool, MeanFloat32, nil)
	if err != nil || f.Distance > 1e-12 || !strings.Contains(f.Route, "Cholesky") && !strings.Contains(f.Route, "nuclear") {
		t.Errorf("FID of a file to itself: %+v, %v", f, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
