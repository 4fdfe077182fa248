package sampling

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// Computed with numpy 2 from the formulas of gaussian_diffusion.py and
// respace.py: name, diffusion steps, respacing, index, original timestep; β, ᾱ,
// posterior variance, its clipped logarithm, posterior mean's coefficients.
var goldenSchedule = []struct {
	name       string
	steps      int
	respacing  string
	index, t   int
	beta, bar  float64
	variance   float64
	logClipped float64
	mean1      float64
	mean2      float64
}{
	{"linear", 1000, "", 0, 0, 9.999999999998899e-05, 0.9999, 0.0, -9.81672513529595, 1.0, 0.0},
	{"linear", 1000, "", 1, 1, 0.00011991991991988638, 0.9997800920720721, 5.453187661300667e-05, -9.81672513529595, 0.5452914995101377, 0.4547084989905303},
	{"linear", 1000, "", 500, 500, 0.010059959959960008, 0.07779665836502389, 0.010051335778909641, -4.600049739984903, 0.0030580570756296344, 0.9941043507567258},
	{"linear", 1000, "", 999, 999, 0.020000000000000018, 4.035829765375676e-05, 0.019999983526560627, -3.912023829100454, 0.00012835148717224693, 0.9899486782675173},
	{"cosine", 1000, "", 0, 0, 4.128422482196914e-05, 0.999958715775178, 0.0, -10.734082532465003, 1.0, 0.0},
	{"cosine", 1000, "", 500, 500, 0.003155691441585007, 0.49228517244880304, 0.0031460051254634824, -5.761621845147288, 0.004367866899526329, 0.9953562794552251},
	{"cosine", 1000, "", 999, 999, 0.999, 2.4287669070348567e-09, 0.9989975760881921, -0.0010029266746731796, 0.0015568917154901703, 0.03162269987413465},
	{"linear", 1000, "250", 1, 4, 0.0005990655644756426, 0.9993009943420809, 8.570253440564813e-05, -9.364628159803084, 0.8569824917180376, 0.1430175007910898},
	{"linear", 1000, "250", 125, 502, 0.04929790363417974, 0.07623466678988594, 0.0490869420889959, -3.0141622247856663, 0.01511196081567503, 0.9708670288147777},
	{"linear", 1000, "250", 249, 999, 0.07751934499235003, 4.035829765375675e-05, 0.07751908207860697, -2.557231152560974, 0.0005127614983862911, 0.9604553074808463},
	{"linear", 1000, "ddim25", 12, 480, 0.3110981872967178, 0.09486869695050186, 0.29637340154956043, -1.2161351279487398, 0.1275465452609061, 0.7907157835287305},
	{"linear", 1000, "ddim25", 24, 960, 0.5326018230995546, 8.741305391053614e-05, 0.5325487673394027, -0.630080803733886, 0.007284256882034163, 0.683597147956959},
	{"cosine", 4000, "10", 0, 0, 9.865818813681315e-06, 0.9999901341811863, 0.0, -11.526714876059339, 1.0, 0.0},
	{"cosine", 4000, "10", 5, 2222, 0.29743040117578323, 0.4074903428897069, 0.21083332117273484, -1.5566874047273012, 0.3822996562270237, 0.5941533769807168},
	{"cosine", 4000, "10", 9, 3999, 0.9999999948764644, 1.5179804611038726e-10, 0.9703723985145295, -0.030075365167237047, 0.17212668696757127, 6.94581666639259e-05},
	{"linear", 400, "10,20,5", 17, 183, 0.14844035430047675, 0.11509928093624783, 0.14507471977315928, -1.9305063605071289, 0.061671740204622884, 0.9018769644172923},
	{"linear", 400, "10,20,5", 34, 399, 0.8027882935460174, 3.636006884496547e-05, 0.8026694679889896, -0.21981227120811983, 0.01090091178252129, 0.44401951508539067},
}

func TestScheduleGolden(t *testing.T) {
	for _, g := range goldenSchedule {
		s, err := NewSchedule(ScheduleConfig{DiffusionSteps: g.steps, NoiseSchedule: g.name, TimestepRespacing: g.respacing})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Timestep(g.index); got != (Timestep{g.index, float64(g.t)}) {
			t.Errorf("%s %d %q: Timestep(%d) = %v, want %d", g.name, g.steps, g.respacing, g.index, got, g.t)
		}
		for _, v := range []struct {
			name      string
			got, want float64
		}{
			{"Beta", s.Beta(g.index), g.beta},
			{"AlphaBar", s.AlphaBar(g.index), g.bar},
			{"PosteriorVariance", s.PosteriorVariance(g.index), g.variance},
			{"PosteriorLogVariance", s.PosteriorLogVariance(g.index), g.logClipped},
			{"posteriorMean1", s.posteriorMean1[g.index], g.mean1},
			{"posteriorMean2", s.posteriorMean2[g.index], g.mean2},
		} {
			// 1 − ᾱ_i/ᾱ_{i-1} loses what β lacks to 1
			if math.Abs(v.got-v.want) > 1e-11*math.Abs(v.want) {
				t.Errorf("%s %d %q: %s(%d) = %.17g, want %.17g", g.name, g.steps, g.respacing, v.name, g.index, v.got, v.want)
			}
		}
	}
}

func TestFixedVariance(t *testing.T) {
	config := ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "250"}
	large, err := NewSchedule(config)
	if err != nil {
		t.Fatal(err)
	}
	config.SigmaSmall = true
	small, err := NewSchedule(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name             string
		s                *Schedule
		i                int
		variance, logged float64
	}{
		{"large", large, 0, 8.570253440564813e-05, -9.364628159803084},
		{"large", large, 249, 0.07751934499235003, math.Log(0.07751934499235003)},
		{"small", small, 0, 0, -9.364628159803084},
		{"small", small, 249, 0.07751908207860697, -2.557231152560974},
	} {
		v, l := c.s.FixedVariance(c.i)
		if math.Abs(v-c.variance) > 1e-11*c.variance || math.Abs(l-c.logged) > 1e-10 {
			t.Errorf("%s: FixedVariance(%d) = %g, %g, want %g, %g", c.name, c.i, v, l, c.variance, c.logged)
		}
	}
}

// The identities that tie the tables of any schedule together.
func TestScheduleIdentities(t *testing.T) {
	for _, c := range []ScheduleConfig{
		{DiffusionSteps: 1000, NoiseSchedule: "cosine", TimestepRespacing: "40"},
		{DiffusionSteps: 20, NoiseSchedule: "linear"},
		{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "1"},
	} {
		s, err := NewSchedule(c)
		if err != nil {
			t.Fatal(err)
		}
		bar := 1.0
		for i := range s.Len() {
			bar *= 1 - s.Beta(i)
			prev := s.AlphaBar(i - 1)
			if math.Abs(bar-s.AlphaBar(i)) > 1e-14 {
				t.Errorf("%+v: ᾱ_%d = %g, want the product of 1−β, %g", c, i, s.AlphaBar(i), bar)
			}
			// the posterior's mean of √ᾱ x_0 at x_t = √ᾱ_t x_0 is √ᾱ_{t-1} x_0
			if got := s.posteriorMean1[i] + s.posteriorMean2[i]*math.Sqrt(bar); math.Abs(got-math.Sqrt(prev)) > 1e-12 {
				t.Errorf("%+v: posterior mean %d of the noiseless state is %g, want %g", c, i, got, math.Sqrt(prev))
			}
			if c := s.At(i); math.IsInf(float64(c.minLog), 0) || math.IsNaN(float64(c.minLog)) {
				t.Errorf("step %d: log variance is %g", i, c.minLog)
			}
		}
	}
}

func TestRescaledTimesteps(t *testing.T) {
	s, err := NewSchedule(ScheduleConfig{DiffusionSteps: 4000, NoiseSchedule: "cosine", TimestepRespacing: "10", RescaleTimesteps: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{999.75, 888.75, 777.5, 666.5, 555.5, 444.25, 333.25, 222.25, 111.0, 0.0}
	if got := descending(s); !slices.Equal(got, want) {
		t.Errorf("the network receives %v, want %v", got, want)
	}
	// 1000/3000 is rounded to float32, and so is the product
	s, err = NewSchedule(ScheduleConfig{DiffusionSteps: 3000, NoiseSchedule: "linear", RescaleTimesteps: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Timestep(2999).Value; got != float64(float32(2999)*float32(1.0/3)) {
		t.Errorf("t = 2999 of 3000 is sent as %v", got)
	}
}

func descending(s *Schedule) []float64 {
	var out []float64
	for i := s.Len() - 1; i >= 0; i-- {
		out = append(out, s.Timestep(i).Value)
	}
	return out
}

func TestSpaceTimesteps(t *testing.T) {
	for _, c := range []struct {
		steps     int
		respacing string
		want      []int
	}{
		{1000, "7", []int{0, 166, 333, 500, 666, 832, 999}}, // 166.5, 499.5 and 832.5 go to the even neighbour
		{1000, "8", []int{0, 143, 285, 428, 571, 714, 856, 999}},
		{1000, "ddim8", []int{0, 125, 250, 375, 500, 625, 750, 875}},
		{1000, "ddim7", []int{0, 143, 286, 429, 572, 715, 858}},
		{4000, "10", []int{0, 444, 889, 1333, 1777, 2222, 2666, 3110, 3555, 3999}},
		{10, "3,0,2", []int{0, 2, 3, 7, 9}},
		{11, " 2, 2,2", []int{0, 3, 4, 7, 8, 10}},
		{1000, "1", []int{0}},
		{10, "10", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{3, "", []int{0, 1, 2}},
		{300, "10,15,20", []int{0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 100, 107, 114, 121, 128, 135, 142, 149, 157, 164, 171, 178, 185, 192, 199,
			200, 205, 210, 216, 221, 226, 231, 236, 242, 247, 252, 257, 263, 268, 273, 278, 283, 289, 294, 299}},
	} {
		got, err := spaceTimesteps(c.steps, c.respacing)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d %q: %v, %v, want %v", c.steps, c.respacing, got, err, c.want)
		}
	}
	// too long to list: sum and weighted sum Σ (i+1)·t_i, from Python
	for respacing, want := range map[string][2]int{"250": {124875, 20896611}, "100": {49950, 3363345}, "50": {24975, 849164}, "25": {12487, 216439}} {
		got, err := spaceTimesteps(1000, respacing)
		sum, weighted := 0, 0
		for i, v := range got {
			sum, weighted = sum+v, weighted+(i+1)*v
		}
		if err != nil || [2]int{sum, weighted} != want {
			t.Errorf("%q: sums %d, %d, %v, want %v", respacing, sum, weighted, err, want)
		}
	}
}

func TestScheduleErrors(t *testing.T) {
	for _, c := range []struct {
		config ScheduleConfig
		want   []string
	}{
		{ScheduleConfig{NoiseSchedule: "linear"}, []string{"diffusion_steps is 0, expected 1 to 1000000"}},
		{ScheduleConfig{DiffusionSteps: 1 << 40, NoiseSchedule: "linear"}, []string{"expected 1 to 1000000"}},
		{ScheduleConfig{DiffusionSteps: 10, NoiseSchedule: "linear"}, []string{"β = 20/10", "at least 20 steps"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "cosin", TimestepRespacing: "2000"},
			[]string{`noise_schedule is "cosin", expected linear or cosine`, `"2000" asks for 2000 steps of a section that has 1000`}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "ddim37"}, []string{`"ddim37": no integer stride makes exactly 37 steps of 1000`, "36 and 38"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "ddim300"}, []string{"250 and 334"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "ddim1"}, []string{"one makes: 2"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "ddim1001"}, []string{"one makes: 1000"}},
		{ScheduleConfig{DiffusionSteps: 1, NoiseSchedule: "cosine", TimestepRespacing: "ddim1"}, []string{"one makes: none"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "ddim"}, []string{"ddim and a positive count"}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "10,x"}, []string{`section "x" is not a count`}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "-3"}, []string{`section "-3" is not a count`}},
		{ScheduleConfig{DiffusionSteps: 1000, NoiseSchedule: "linear", TimestepRespacing: "0"}, []string{"keeps no step"}},
		{ScheduleConfig{DiffusionSteps: 20, NoiseSchedule: "linear", TimestepRespacing: strings.Repeat("1,", 30)}, []string{"31 sections, more than the 20"}},
	} {
		err := c.config.Validate()
		if err == nil {
			t.Errorf("%+v is accepted", c.config)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q lacks %q", c.config, err, want)
			}
		}
	}
	if err := errors.Join(DefaultSchedule().Validate(), ScheduleConfig{DiffusionSteps: 1, NoiseSchedule: "cosine"}.Validate()); err != nil {
		t.Error(err)
	}
}

func FuzzSpaceTimesteps(f *testing.F) {
	for _, seed := range []string{"", "250", "ddim25", "10,10,10", "3,0,2", "ddim", "9999999999999999999999", ",", "1e3"} {
		f.Add(1000, seed)
	}
	f.Fuzz(func(t *testing.T, steps int, respacing string) {
		if steps < 1 || steps > 5000 {
			return
		}
		kept, err := spaceTimesteps(steps, respacing)
		if err != nil {
			return
		}
		if len(kept) == 0 || kept[0] < 0 || kept[len(kept)-1] >= steps {
			t.Fatalf("%d %q keeps %v", steps, respacing, kept)
		}
		for i, v := range kept[1:] {
			if v <= kept[i] {
				t.Fatalf("%d %q: %d follows %d", steps, respacing, v, kept[i])
			}
		}
	})
}

// TestScheduleNames holds DiT's name of the cosine schedule to the same tables.
func TestScheduleNames(t *testing.T) {
	var betas [2][]float64
	for i, name := range []string{"cosine", "squaredcos_cap_v2"} {
		s, err := NewSchedule(ScheduleConfig{DiffusionSteps: 100, NoiseSchedule: name})
		if err != nil {
			t.Fatal(err)
		}
		betas[i] = s.beta
	}
	if !slices.Equal(betas[0], betas[1]) {
		t.Error("cosine and squaredcos_cap_v2 differ")
	}
}
