package eval

import (
	"path/filepath"
	"strings"
	"testing"

	"sagbench/eval/images"
	"sagbench/eval/npz"
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

// writeStatistics writes a file of two-dimensional statistics.
func writeStatistics(t *testing.T, spatial bool, p *Provenance) string {
	return writeCovariance(t, spatial, p, 1, 0, 0, 1)
}

// writeCovariance writes statistics with a covariance [2,2].
func writeCovariance(t *testing.T, spatial bool, p *Provenance, sigma ...float64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ref.npz")
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, values []float64, shape ...int) {
		a, err := w.Array(name, npz.Float64, shape...)
		if err == nil {
			err = npz.WriteRows(a, values)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "_s"} {
		if suffix == "" || spatial {
			put("mu"+suffix, []float64{1, 2}, 2)
			put("sigma"+suffix, sigma, 2, 2)
		}
	}
	if p != nil {
		if err := p.Write(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Statistics of one resize, network or size are not compared with features of
// another; where the file says nothing, its layout speaks, and a note tells.
func TestAgree(t *testing.T) {
	said := &Provenance{Network: "inception", SHA256: "ab", Resize: "clean", InputSize: 299, Images: 5000}
	for _, c := range []struct {
		what            string
		spatial         bool
		p               *Provenance
		network, sha256 string
		resize          string
		size            int
		note, fault     string
	}{
		{"the same", true, said, "inception", "ab", "clean", 299, "", ""},
		{"other resize", true, said, "inception", "ab", "tf", 299, "", "resize clean"},
		{"other weights", true, said, "inception", "cd", "clean", 299, "", "sha256 ab"},
		{"other network", false, said, "dinov2", "ab", "clean", 299, "", "network inception"},
		{"other size", true, said, "inception", "ab", "clean", 107, "", "input size 299"},
		{"ADM's layout", true, nil, "inception", "ab", "tf", 299, "taken for ADM's, of this network and of images resized to 299×299 pixels as \"tf\"", ""},
		{"ADM's layout, torch", true, nil, "inception", "ab", "torch", 299, "", "layout of ADM's"},
		{"mu alone", false, nil, "inception", "ab", "clean", 200, "taken to be of this network and of images resized to 200×200 pixels", ""},
	} {
		r, err := ReadReference(t.Context(), writeStatistics(t, c.spatial, c.p), images.Options{})
		if err != nil {
			t.Fatal(err)
		}
		notes, err := r.Agree("", Provenance{Network: c.network, SHA256: c.sha256, Resize: c.resize, InputSize: c.size})
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: error %v, expected %q", c.what, err, c.fault)
		}
		if found := strings.Join(notes, ""); !strings.Contains(found, c.note) || c.note == "" && found != "" {
			t.Errorf("%s: notes %q, expected %q", c.what, notes, c.note)
		}
		if c.p != nil && r.Pool.N != 5000 {
			t.Errorf("%s: statistics of %d images", c.what, r.Pool.N)
		}
	}
	if _, err := ReadReference(t.Context(), writeStatistics(t, true, &Provenance{}), images.Options{}); err == nil {
		t.Error("provenance of no images")
	}
}

// A covariance with a negative eigenvalue is refused; where rounding explains it, a
// note says by how much scores are wrong. A singular one is a covariance.
func TestIndefiniteReference(t *testing.T) {
	for _, c := range []struct {
		covariance  float64 // of two features of variance 1: the eigenvalues are 1 ± it
		note, fault string
	}{
		{0.5, "", ""}, {1, "", ""}, {1.0001, "eigenvalues down to -0.0001", ""}, {1.41, "", "sigma has the eigenvalue -0.41"},
	} {
		r, err := ReadReference(t.Context(), writeCovariance(t, true, nil, 1, c.covariance, c.covariance, 1), images.Options{})
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), "sigma_s has")) {
			t.Errorf("%v: error %v, expected %q", c.covariance, err, c.fault)
		}
		if err == nil && (!strings.Contains(strings.Join(r.Warnings, ""), c.note) || c.note == "" && len(r.Warnings) > 0) {
			t.Errorf("%v: notes %q, expected %q", c.covariance, r.Warnings, c.note)
		}
	}
}
