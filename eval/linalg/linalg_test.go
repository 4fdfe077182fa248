package linalg

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %v, want %v ± %g", what, got, want, tolerance)
	}
}

// Eigenvalues and the nuclear norm against gonum's, at sizes around the blocks.
func TestEigenvalues(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, n := range []int{1, 2, 31, 32, 33, 65, 130} {
		x := mat.NewDense(n, n, nil)
		for i := range n {
			for j := range n {
				x.Set(i, j, r.NormFloat64())
			}
		}
		var m mat.Dense
		m.Add(x, x.T())
		sym := mat.NewSymDense(n, nil)
		for i := range n {
			for j := i; j < n; j++ {
				sym.SetSym(i, j, m.At(i, j))
			}
		}
		got, err := symmetricEigenvalues(mat.DenseCopyOf(sym).RawMatrix().Data, n, Gonum{})
		if err != nil {
			t.Fatal(err)
		}
		var e mat.EigenSym
		e.Factorize(sym, false)
		for i, want := range e.Values(nil) {
			near(t, "eigenvalue", got[i], want, 1e-13*float64(n))
		}
	}
	if _, err := symmetricEigenvalues([]float64{1, math.NaN(), math.NaN(), 1}, 2, Gonum{}); err == nil {
		t.Error("eigenvalues of NaN")
	}
}

func TestCholesky(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, n := range []int{1, 2, 127, 128, 129, 300} {
		x, a := make([]float64, n*(n+3)), make([]float64, n*n)
		for i := range x {
			x[i] = r.NormFloat64()
		}
		if err := (Gonum{}).Mul64(a, x, x, n, n, n+3); err != nil {
			t.Fatal(err)
		}
		l, ok, err := cholesky(a, n, Gonum{})
		if err != nil || !ok {
			t.Fatalf("n = %d: %v, %v", n, ok, err)
		}
		back := make([]float64, n*n)
		if err := (Gonum{}).Mul64(back, l, l, n, n, n); err != nil {
			t.Fatal(err)
		}
		for i := range a {
			near(t, "L·Lᵀ", back[i], a[i], 1e-12*float64(n))
		}
		a[0] = 0
		if _, ok, _ := cholesky(a, n, Gonum{}); ok {
			t.Errorf("n = %d: a zero pivot was accepted", n)
		}
	}
}

func TestNuclearNorm(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for _, size := range [][2]int{{1, 1}, {1, 5}, {5, 1}, {31, 40}, {33, 32}, {64, 64}, {100, 65}, {20, 130}} {
		m, n := size[0], size[1]
		for _, rank := range []int{min(m, n), (min(m, n) + 1) / 2} {
			a := mat.NewDense(m, n, nil)
			for range rank {
				x, y := mat.NewVecDense(m, nil), mat.NewVecDense(n, nil)
				for i := range m {
					x.SetVec(i, r.NormFloat64())
				}
				for i := range n {
					y.SetVec(i, r.NormFloat64())
				}
				a.RankOne(a, 1e-5, x, y)
			}
			var svd mat.SVD
			svd.Factorize(a, mat.SVDNone)
			want := 0.0
			for _, v := range svd.Values(nil) {
				want += v
			}
			got, err := nuclearNorm(mat.DenseCopyOf(a).RawMatrix().Data, m, n, Gonum{})
			if err != nil {
				t.Error(err)
			}
			near(t, "nuclear norm", got, want, 1e-13*want)
		}
	}
	if _, err := nuclearNorm([]float64{1, math.NaN(), 0, 1}, 2, 2, Gonum{}); err == nil {
		t.Error("the nuclear norm of NaN")
	}
	if got, err := nuclearNorm(make([]float64, 6), 2, 3, Gonum{}); got != 0 || err != nil {
		t.Errorf("of zeros: %v, %v", got, err)
	}
}
