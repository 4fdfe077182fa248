package neighbours

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"sagbench/eval/linalg"
)

// Bytes implements linalg.ByteProducts.
func (w worst) Bytes() bool { return w.bytes }

// Mul8 implements linalg.ByteProducts.
func (w worst) Mul8(dst []int32, a []uint8, b []int8, m, n, k int) error {
	for i := range m {
		for j := range n {
			dst[i*n+j] = 0
			for x := range k {
				dst[i*n+j] += (int32(a[i*k+x]) - 128) * int32(b[x*n+j])
			}
		}
	}
	return nil
}

// A worst multiplies as badly as Products allows: every element is off by up
// to the bound, so that a count that trusted it would be wrong.
type worst struct {
	linalg.Gonum
	r     *rand.Rand
	bytes bool
}

func (w worst) Mul32(dst, a, b []float32, m, n, k int) error {
	const unit = 1.0 / (1 << 24)
	gamma := float64(k) * unit / (1 - float64(k)*unit)
	for i := range m {
		for j := range n {
			sum, size := 0.0, 0.0
			for x := range k {
				p := float64(a[i*k+x]) * float64(b[j*k+x])
				sum += p
				size += math.Abs(p)
			}
			dst[i*n+j] = float32(sum + (2*w.r.Float64()-1)*0.99*gamma*size)
		}
	}
	return nil
}

// naive distances by definition, with neither blocks nor bounds.
func naiveDistances(kind Distance, x, y []float32, d int) [][]float64 {
	half := func(rows []float32) ([]float32, []float64) {
		h, norms := make([]float32, len(rows)), make([]float64, len(rows)/d)
		for i, v := range rows {
			h[i] = float32(roundHalf(float64(v)))
		}
		for i := range norms {
			if kind == DistanceADM {
				norms[i] = normHalfEigen(h[i*d : (i+1)*d])
			} else {
				norms[i] = normHalf(h[i*d : (i+1)*d])
			}
		}
		return h, norms
	}
	hx, nx := half(x)
	hy, ny := half(y)
	out := make([][]float64, len(nx))
	redo := kind == DistanceF32
	for i := range out {
		out[i] = make([]float64, len(ny))
		for j := range ny {
			uv := 0.0
			for k := range d {
				uv += float64(hx[i*d+k]) * float64(hy[j*d+k])
			}
			twice := 2 * roundHalf(uv)
			if kind == DistanceADM {
				twice = roundHalf(twice)
			}
			out[i][j] = math.Max(roundHalf(roundHalf(nx[i]-twice)+ny[j]), 0)
			redo = redo || math.IsInf(out[i][j], 0) || math.IsNaN(out[i][j])
		}
	}
	if !redo {
		return out
	}
	for i := range out {
		for j := range out[i] {
			out[i][j] = squaredDistance(x[i*d:(i+1)*d], y[j*d:(j+1)*d])
			if kind != DistanceF32 {
				out[i][j] = float64(float32(out[i][j]))
			}
		}
	}
	return out
}

// naiveBlocks joins naive distances of blocks of rows.
func naiveBlocks(kind Distance, x, y []float32, d, rows int) [][]float64 {
	var out [][]float64
	for a := range slices.Chunk(x, rows*d) {
		part := make([][]float64, len(a)/d)
		for b := range slices.Chunk(y, rows*d) {
			for i, row := range naiveDistances(kind, a, b, d) {
				part[i] = append(part[i], row...)
			}
		}
		out = append(out, part...)
	}
	return out
}

func naiveRadii(distances [][]float64, k int) []float64 {
	var out []float64
	for _, row := range distances {
		row = slices.Clone(row)
		slices.Sort(row)
		out = append(out, row[k])
	}
	return out
}

func naiveMembers(distances [][]float64, ref, gen []float64, strict bool) *Members {
	within := func(d, r float64) bool { return d < r || !strict && d == r }
	one := func(rows []int32) int32 {
		switch len(rows) {
		case 0:
			return None
		case 1:
			return rows[0]
		}
		return Several
	}
	m := &Members{Balls: make([]int32, len(gen))}
	for i, row := range distances {
		var holds, heldBy []int32
		for j, d := range row {
			if within(d, ref[i]) {
				m.Balls[j]++
				holds = append(holds, int32(j))
			}
			if within(d, gen[j]) {
				heldBy = append(heldBy, int32(j))
			}
		}
		m.Holds, m.HeldBy = append(m.Holds, one(holds)), append(m.HeldBy, one(heldBy))
	}
	return m
}

// sets of features that are hard in some way.
func hardSets(r *rand.Rand) map[string][2][]float32 {
	const d = 24
	draw := func(n int, value func() float64) []float32 {
		x := make([]float32, n*d)
		for i := range x {
			x[i] = float32(value())
		}
		return x
	}
	sets := map[string][2][]float32{
		"normal":   {draw(90, r.NormFloat64), draw(70, r.NormFloat64)},
		"far":      {draw(60, func() float64 { return 1e4 + r.NormFloat64() }), draw(75, func() float64 { return 1e4 + r.NormFloat64() })},
		"integers": {draw(80, func() float64 { return float64(r.IntN(3)) }), draw(64, func() float64 { return float64(r.IntN(3)) })},
		"equal":    {draw(100, func() float64 { return 1.5 }), draw(100, func() float64 { return 1.5 })},
		"small":    {draw(50, func() float64 { return 1e-4 * r.Float64() }), draw(60, func() float64 { return 1e-4 * r.Float64() })},
		"large":    {draw(70, func() float64 { return 37 * r.Float64() }), draw(80, func() float64 { return 37 * r.Float64() })},
		"doubling": {draw(70, func() float64 { return 36 + 3*r.Float64() }), draw(80, func() float64 { return 36 + 3*r.Float64() })},
		"signs":    {draw(70, func() float64 { return 60 * r.NormFloat64() }), draw(80, func() float64 { return 30 * r.NormFloat64() })},
	}
	sets["heavy"] = [2][]float32{draw(80, func() float64 { return math.Exp(2 * r.NormFloat64()) }), draw(80, func() float64 { return math.Exp(2 * r.NormFloat64()) })}
	centres := draw(3, func() float64 { return 5 * r.NormFloat64() })
	cluster := func(n int, spread float64) []float32 { // 0: duplicates
		x := make([]float32, 0, n*d)
		for range n {
			c := r.IntN(4) // the last is zero
			for j := range d {
				v := spread * r.NormFloat64()
				if c < 3 {
					v += float64(centres[c*d+j])
				}
				x = append(x, float32(v))
			}
		}
		return x
	}
	sets["clusters"] = [2][]float32{cluster(80, 1e-3), cluster(90, 1e-3)}
	sets["duplicates"] = [2][]float32{cluster(80, 0), append(cluster(60, 0), cluster(30, 0.1)...)}
	outlier := draw(90, r.NormFloat64)
	for i := range d {
		outlier[40*d+i] = 100 // norm² 240000: its block overflows, others do not
	}
	sets["outlier"] = [2][]float32{draw(90, r.NormFloat64), outlier}
	edge := draw(60, r.NormFloat64)
	edge[3*d], edge[50*d] = oneWay(d)
	for i := 1; i < d; i++ {
		edge[3*d+i], edge[50*d+i] = 0, 0
	}
	sets["edge"] = [2][]float32{edge, draw(60, r.NormFloat64)}
	return sets
}

// oneWay finds a and b such that the float16 distance from (a,0,…) to (b,0,…)
// overflows, but not the one from (b,0,…) to (a,0,…): the roundings differ.
func oneWay(d int) (a, b float32) {
	for a := float32(100); a < 128; a += 1. / 16 {
		for b := -255.5 + a; b > -156.5; b -= 1. / 8 {
			x, y := make([]float32, d), make([]float32, d)
			x[0], y[0] = a, b
			forth, back := naiveHalf(x, y, d), naiveHalf(y, x, d)
			if math.IsInf(forth, 1) && !math.IsInf(back, 1) {
				return a, b
			}
		}
	}
	panic("no such pair")
}

func naiveHalf(x, y []float32, d int) float64 {
	u, v := newBlock(DistanceADM, x, d, 0, nil, nil), newBlock(DistanceADM, y, d, 0, nil, nil)
	return pair{kind: DistanceADM, u: u, v: v}.exact(0, 0)
}

// Radii and members equal those of the definition, in every arithmetic, however
// the rows are cut into blocks and tiles, with products as bad as they may be.
func TestMembersAreExact(t *testing.T) {
	const d = 24
	r := rand.New(rand.NewPCG(1, 1))
	for name, set := range hardSets(r) {
		ref, gen := set[0], set[1]
		for _, kind := range []Distance{DistanceF32, DistanceFP16, DistanceADM} {
			for _, cut := range [][2]int{{evaluatorRows, tileRows}, {33, 7}} {
				for _, crowded := range []float64{0, 0.1, 1} { // 0: without bytes
					s := NewScan(t.Context(), kind, worst{r: r, bytes: crowded > 0}, ref, d)
					s.rows, s.side, s.crowded = cut[0], cut[1], crowded
					testMembers(t, name, s, ref, gen)
				}
			}
		}
	}
}

func testMembers(t *testing.T, name string, s *Scan, ref, gen []float32) {
	t.Helper()
	refOwn, genOwn := naiveBlocks(s.kind, ref, ref, s.d, s.rows), naiveBlocks(s.kind, gen, gen, s.d, s.rows)
	distances := naiveBlocks(s.kind, ref, gen, s.d, s.rows)
	for _, k := range []int{1, 3, 20} {
		wantRef, wantGen := naiveRadii(refOwn, k), naiveRadii(genOwn, k)
		gotRef, err := s.Radii(ref, k)
		if err != nil {
			t.Fatal(err)
		}
		gotGen, err := s.Radii(gen, k)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(gotRef, wantRef) || !slices.Equal(gotGen, wantGen) {
			t.Errorf("%s, %s, blocks of %d: radii for k = %d differ", name, s.kind, s.rows, k)
		}
		for _, strict := range []bool{true, false} {
			got, err := s.Members(ref, gen, wantRef, wantGen, strict)
			if err != nil {
				t.Fatal(err)
			}
			if want := naiveMembers(distances, wantRef, wantGen, strict); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s, blocks of %d, k = %d, strict %v: got %+v, want %+v", name, s.kind, s.rows, k, strict, got, want)
			}
		}
	}
	got, err := s.Distances(ref, gen, 16)
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	for _, row := range naiveDistances(s.kind, ref[:min(len(ref), s.rows*s.d)], gen[:min(len(gen), s.rows*s.d)], s.d)[:16] {
		want = append(want, row[:16]...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s, %s, blocks of %d: the distances differ", name, s.kind, s.rows)
	}
}

// Products that come from 8 bits are within their bounds, in whole tiles and in
// those that the end of a block cuts short.
func TestByteBounds(t *testing.T) {
	const d, side = 24, 32
	r := rand.New(rand.NewPCG(2, 2))
	for name, set := range hardSets(r) {
		for _, kind := range []Distance{DistanceF32, DistanceADM} {
			s := NewScan(t.Context(), kind, worst{r: r, bytes: true}, set[0], d)
			s.side = side
			p := pair{kind: kind, u: s.prepare(kind, set[0], 0, nil), v: s.prepare(kind, set[1], 0, nil)}
			err := s.tiles(p, false, func(tile tile) {
				u, v := tile.measures()
				buffer := make([]float32, tile.cols)
				for i := tile.i; i < tile.i+tile.rows; i++ {
					for x, c := range tile.row(i, tile.j, tile.j+tile.cols, buffer) {
						j := tile.j + x
						want, allowed := dot(p.u.row(i), p.v.row(j)), omitted(u, v, i, j)+u.unit*u.span[i]*v.span[j]
						if math.Abs(float64(c)-want) > allowed {
							t.Errorf("%s, %s: rows %d and %d: %v, want %v ± %g", name, kind, i, j, c, want, allowed)
						}
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTooFewNeighbours(t *testing.T) {
	rows := []float32{0, 0, 1, 0, 0, 1}
	if _, err := NewScan(t.Context(), DistanceF32, nil, rows, 2).Radii(rows, 3); err == nil {
		t.Error("the third neighbour among three images was found")
	}
}
