package search

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRounds(t *testing.T) {
	r := Rule{Rows: 12, Lower: []bool{true}, Confidence: 0.95, First: 128, Eta: 4, Most: 2048, Budget: 9830}
	for _, c := range []struct {
		change func(*Rule)
		left   int
		want   []int
	}{
		{func(*Rule) {}, 2, []int{128, 512, 2048}},
		{func(*Rule) {}, 12, []int{128, 512, 819}}, // 9830 / 12
		{func(r *Rule) { r.Most = 1500 }, 2, []int{128, 512, 1500}},
		{func(r *Rule) { r.Most = 550 }, 2, []int{128, 512}},            // less than a tenth more
		{func(r *Rule) { r.Budget = 12 * 128 }, 2, []int{128}},          // one round
		{func(r *Rule) { r.Budget = 12*128 + 100 }, 2, []int{128, 178}}, // which is cut short, and the last
		{func(r *Rule) { r.Most = 128 }, 2, []int{128}},
	} {
		one := r
		c.change(&one)
		if got := one.Rounds(c.left); !slices.Equal(got, c.want) {
			t.Errorf("%+v, %d left: rounds of %v images, want %v", one, c.left, got, c.want)
		}
	}
	if n := r.Next(512, 5000, 1); n != 0 {
		t.Errorf("one row goes on to %d images", n)
	}
}

// No course of a search draws more than its budget, or has more rounds than the level
// allows for.
func TestBudget(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 19))
	for range 20_000 {
		r := Rule{Rows: 2 + dice.IntN(30), Lower: []bool{true}, Confidence: 0.95, First: 2 + dice.IntN(100), Eta: 2 + dice.IntN(4), Most: 100 + dice.IntN(5000)}
		r.Budget = r.Rows*r.First + dice.IntN(20_000)
		left, drawn, at, rounds := r.Rows, 0, 0, 0
		for {
			next := r.Next(at, drawn, left)
			if next == 0 {
				break
			}
			if drawn += left * (next - at); next <= at || next > r.Most {
				t.Fatalf("%+v: from %d to %d images", r, at, next)
			}
			at = next
			rounds++
			left -= dice.IntN(left)
		}
		if most := len(r.Rounds(2)); drawn > r.Budget || rounds > most {
			t.Fatalf("%+v: %d images, %d rounds, more than %d", r, drawn, rounds, most)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Rule{Rows: 3, Lower: []bool{true}, Confidence: 0.95, First: 100, Eta: 3, Most: 1000, Budget: 300}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Rule){
		"budget is 299, less than one round: 3 rows of 100 images are 300": func(r *Rule) { r.Budget = 299 },
		"1 row: a search compares at least 2":                              func(r *Rule) { r.Rows = 1 },
		"first is 100, and samples, the most that a row may get, is 99":    func(r *Rule) { r.Most = 99 },
	} {
		r := good
		change(&r)
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A world is a sweep whose truth is known. A metric's value over N images is
//
//	truth + bias/N + noise·W(N)/N
//
// where W is a random walk of N steps, so that rounds go on from each other, a part of
// which all rows share, as those have that start from the same noise.
type world struct {
	truth  [][]float64 // metric → row
	noise  float64     // of one image
	shared float64     // part of the variance
	bias   float64
}

// A walk is how far the noise of a metric has got.
type walk struct {
	common float64
	own    []float64 // by row
}

// course is one search in a world: the rows that are left, and the images drawn.
func (w world) course(t *testing.T, r Rule, dice *rand.Rand) (left []int, drawn int) {
	const draws = 100
	left = make([]int, len(w.truth[0]))
	for i := range left {
		left[i] = i
	}
	walks := make([]walk, len(w.truth))
	for m := range walks {
		walks[m].own = make([]float64, len(left))
	}
	a, b := math.Sqrt(w.shared), math.Sqrt(1-w.shared)
	again := make([]float64, draws)
	for at, next := 0, r.First; next > 0; at, next = next, r.Next(next, drawn, len(left)) {
		drawn += len(left) * (next - at)
		n, step := float64(next), math.Sqrt(float64(next-at))
		rows := make([]Row, len(left))
		for m := range walks {
			walks[m].common += step * dice.NormFloat64()
			for k := range again {
				again[k] = dice.NormFloat64()
			}
			for i, row := range left {
				walks[m].own[row] += step * dice.NormFloat64()
				value := w.truth[m][row] + w.bias/n + w.noise*(a*walks[m].common+b*walks[m].own[row])/n
				values := make([]float64, draws)
				for k := range values { // a draw holds 63 % of the images: its bias is larger
					values[k] = value + 0.6*w.bias/n + w.noise/math.Sqrt(n)*(a*again[k]+b*dice.NormFloat64())
				}
				rows[i].Values, rows[i].Draws = append(rows[i].Values, value), append(rows[i].Draws, values)
			}
		}
		found, err := r.Decide(rows)
		if err != nil {
			t.Fatal(err)
		}
		var on []int
		for i, o := range found {
			if !o.Dropped {
				on = append(on, left[i])
			}
		}
		left = on
	}
	return left, drawn
}

// Over 2,000 searches in worlds with known truth, the best row is dropped in no more
// than 1 − confidence of them, and 40 % of the grid's images are enough on the average,
// though the budget would allow for all.
func TestSimulation(t *testing.T) {
	const repeats, rows = 2000, 12
	r := Rule{Rows: rows, Lower: []bool{true}, Confidence: 0.95, First: 128, Eta: 4, Most: 2048, Budget: rows * 2048}
	dice := rand.New(rand.NewPCG(2016, 2018))
	lost, images, alone := 0, 0, 0
	for range repeats {
		// A valley over s and σ, such as FID has: the best row anywhere in it.
		w := world{truth: make([][]float64, 1), noise: 20, shared: 0.8, bias: 2000}
		s, sigma := dice.Float64()*3, dice.Float64()*2
		for i := range rows {
			x, y := float64(i%4)-s, float64(i/4)-sigma
			w.truth[0] = append(w.truth[0], 10+3*x*x+2*y*y)
		}
		best := slices.Index(w.truth[0], slices.Min(w.truth[0]))
		left, drawn := w.course(t, r, dice)
		images += drawn
		if !slices.Contains(left, best) {
			lost++
		} else if len(left) == 1 {
			alone++
		}
	}
	share := float64(images) / (repeats * rows * 2048)
	t.Logf("valleys: the best row was dropped in %d of %d searches and alone at the end in %d; %.1f %% of the images", lost, repeats, alone, 100*share)
	if lost > repeats/20 || share > 0.4 || alone < repeats/3 {
		t.Errorf("expected at most %d, at most 40 %%, at least %d", repeats/20, repeats/3)
	}
}

// Where rows are as good as equal, to drop the best is easiest: chance alone
// decides.
func TestSimulationOfEqualRows(t *testing.T) {
	const repeats = 2000
	for _, rows := range []int{12, 2} {
		r := Rule{Rows: rows, Lower: []bool{true}, Confidence: 0.95, First: 128, Eta: 2, Most: 2048, Budget: rows * 2048}
		dice := rand.New(rand.NewPCG(1, 95))
		w := world{truth: [][]float64{make([]float64, rows)}, noise: 20, shared: 0.5, bias: 2000}
		w.truth[0][0] = -1e-6 // the best, by a hair
		lost := 0
		for range repeats {
			if left, _ := w.course(t, r, dice); !slices.Contains(left, 0) {
				lost++
			}
		}
		t.Logf("%d rows: the best was dropped in %d of %d searches", rows, lost, repeats)
		if lost > repeats/20 {
			t.Errorf("%d rows: expected at most %d", rows, repeats/20)
		}
	}
}

// With two metrics no row that another one fails to beat in both is dropped, in all but
// 1 − confidence of the searches, and most of the others are.
func TestSimulationOfTwoMetrics(t *testing.T) {
	const repeats = 500
	r := Rule{Rows: 6, Lower: []bool{true, true}, Confidence: 0.95, First: 128, Eta: 4, Most: 2048, Budget: 6 * 2048}
	dice := rand.New(rand.NewPCG(2, 19))
	// Rows 0 to 2 beat each other in one of both; each of the others is beaten in both.
	w := world{truth: [][]float64{{10, 11, 12, 13, 14, 15}, {12, 11, 10, 14, 13, 15}}, noise: 20, shared: 0.5, bias: 2000}
	lost, dropped := 0, 0
	for range repeats {
		left, _ := w.course(t, r, dice)
		if len(left) < 3 || left[2] != 2 {
			lost++
		}
		dropped += 6 - len(left)
	}
	t.Logf("a row of the front was dropped in %d of %d searches, of the others %.1f in each", lost, repeats, float64(dropped)/repeats)
	if lost > repeats/20 || dropped < 2*repeats {
		t.Errorf("expected at most %d, and at least 2", repeats/20)
	}
}

// draws about a value whose paired differences have the standard deviation 1 or, of
// rows with the same sign, 0.
func draws(value, sign float64) []float64 {
	out := make([]float64, 200)
	for i := range out {
		out[i] = value
		if i%2 == 0 {
			out[i] += sign
		}
	}
	return out
}

func TestDecide(t *testing.T) {
	row := func(sign float64, values ...float64) Row {
		r := Row{Values: values}
		for _, v := range values {
			r.Draws = append(r.Draws, draws(v, sign))
		}
		return r
	}
	dropped := func(r Rule, rows ...Row) (out []bool) {
		t.Helper()
		found, err := r.Decide(rows)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range found {
			out = append(out, o.Dropped)
		}
		return out
	}
	one := Rule{Rows: 3, Lower: []bool{true}, Confidence: 0.95, First: 10, Eta: 2, Most: 10, Budget: 30}
	rows := []Row{row(1, 5), row(0, 3), row(1, 3.5)}
	if got := dropped(one, rows...); !slices.Equal(got, []bool{true, false, false}) {
		t.Errorf("lower is better: dropped %v", got)
	}
	one.Lower = []bool{false}
	if got := dropped(one, rows...); !slices.Equal(got, []bool{false, true, false}) {
		t.Errorf("higher is better: dropped %v", got) // row 2 has row 0's draws: no spread between them
	}
	found, _ := Rule{Rows: 3, Lower: []bool{true}, Confidence: 0.95, First: 10, Eta: 2, Most: 10, Budget: 30}.Decide(rows)
	// Standard deviation of draws that are 0 and 1 in turn: √(50/199); level 0.05/2; t of 199 degrees: 1.97196.
	half := 1.97196 * math.Sqrt(50.0/199)
	if d := found[0].Differences[0]; found[0].Against != 1 || d.Value != 2 || math.Abs(d.High-2-half) > 1e-4 || math.Abs(d.Low-2+half) > 1e-4 {
		t.Errorf("row 0: %+v, want 2 ± %g against row 1", found[0], half)
	}
	if found[1].Against != -1 || found[1].Differences != nil {
		t.Errorf("the best was compared: %+v", found[1])
	}

	// FID and recall: who is better in one of both stays.
	both := Rule{Rows: 4, Lower: []bool{true, false}, Confidence: 0.95, First: 10, Eta: 2, Most: 10, Budget: 40}
	if got := dropped(both, row(1, 5, 10), row(0, 9, 20), row(1, 12, 5), row(0, 9, 7)); !slices.Equal(got, []bool{false, false, true, true}) {
		t.Errorf("two metrics: dropped %v", got)
	}
	if a, b := both.Level(), one.Level(); math.Abs(a-0.05/12) > 1e-12 || math.Abs(b-0.05/2) > 1e-12 {
		t.Errorf("levels %g and %g, want 0.05/12 and 0.05/2", a, b)
	}
	if _, err := one.Decide([]Row{row(1, 1), {[]float64{1}, [][]float64{{1, 2}}}}); err == nil {
		t.Error("rows with other numbers of draws were compared")
	}
}

func TestNeeded(t *testing.T) {
	// 1.96 + 0.84 = 2.80 standard errors: four times the images halve it.
	if n := Needed(1, 1000, 1); n != 7849 {
		t.Errorf("%v images, want 7849", n)
	}
	if a, b := Needed(0.5, 1000, 1), Needed(1, 4000, 1); math.Abs(a*16-b) > 16 {
		t.Errorf("%v and %v images", a, b)
	}
}
