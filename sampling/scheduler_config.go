package sampling

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A SchedulerConfig is the scheduler_config.json of a diffusers folder: the
// process that the checkpoint was trained on, and how its authors sample from
// it. A field that is nil was not there, or null; then the sampler that reads it
// has a default of its own, as each class of diffusers has. A sampler reads what
// the class of diffusers that it stands for reads, whatever class the file was
// written by: that is what diffusers calls from_config.
type SchedulerConfig struct {
	ClassName string `json:"_class_name"`

	NumTrainTimesteps   *int      `json:"num_train_timesteps"`
	BetaStart           *float64  `json:"beta_start"`
	BetaEnd             *float64  `json:"beta_end"`
	BetaSchedule        *string   `json:"beta_schedule"` // linear | scaled_linear | squaredcos_cap_v2
	TrainedBetas        []float64 `json:"trained_betas"` // in place of the three above
	RescaleBetasZeroSNR *bool     `json:"rescale_betas_zero_snr"`
	PredictionType      *string   `json:"prediction_type"` // epsilon | v_prediction | sample

	TimestepSpacing *string  `json:"timestep_spacing"` // leading | trailing | linspace
	StepsOffset     *int     `json:"steps_offset"`
	SetAlphaToOne   *bool    `json:"set_alpha_to_one"`
	ClipSample      *bool    `json:"clip_sample"`
	ClipSampleRange *float64 `json:"clip_sample_range"`
	VarianceType    *string  `json:"variance_type"`
	Thresholding    *bool    `json:"thresholding"`
	SkipPRKSteps    *bool    `json:"skip_prk_steps"`

	AlgorithmType        *string   `json:"algorithm_type"`
	SolverOrder          *int      `json:"solver_order"`
	SolverType           *string   `json:"solver_type"`
	LowerOrderFinal      *bool     `json:"lower_order_final"`
	EulerAtFinal         *bool     `json:"euler_at_final"`
	LambdaMinClipped     *extended `json:"lambda_min_clipped"`
	FinalSigmasType      *string   `json:"final_sigmas_type"` // zero | sigma_min
	UseKarrasSigmas      *bool     `json:"use_karras_sigmas"`
	UseExponentialSigmas *bool     `json:"use_exponential_sigmas"`
	UseBetaSigmas        *bool     `json:"use_beta_sigmas"`
	UseLuLambdas         *bool     `json:"use_lu_lambdas"`
	UseFlowSigmas        *bool     `json:"use_flow_sigmas"`
	UseDynamicShifting   *bool     `json:"use_dynamic_shifting"`

	InterpolationType *string  `json:"interpolation_type"` // linear | log_linear
	SigmaMin          *float64 `json:"sigma_min"`
	SigmaMax          *float64 `json:"sigma_max"`
	TimestepType      *string  `json:"timestep_type"` // discrete | continuous
}

// idleSchedulerKeys are the known fields that change no result: notes, and
// parameters of options that are refused where they are on.
var idleSchedulerKeys = []string{
	"_diffusers_version", "_name_or_path", "tensor_format",
	"dynamic_thresholding_ratio", "sample_max_value", // of thresholding
	"flow_shift", "time_shift_type", // of use_flow_sigmas and use_dynamic_shifting
	"predict_x0", "disable_corrector", "solver_p", // of UniPCMultistepScheduler
}

// schedulerClasses are the classes of diffusers whose files can be read, with
// the sampler that stands for each; those without one can be sampled from with
// any of the others.
var schedulerClasses = map[string]string{
	"DDPMScheduler":                   "ddpm",
	"DDIMScheduler":                   "ddim",
	"PNDMScheduler":                   "pndm",
	"DPMSolverMultistepScheduler":     "dpm_solver_2m",
	"EulerDiscreteScheduler":          "euler",
	"EulerAncestralDiscreteScheduler": "",
	"HeunDiscreteScheduler":           "",
	"LMSDiscreteScheduler":            "",
	"KDPM2DiscreteScheduler":          "",
	"KDPM2AncestralDiscreteScheduler": "",
	"DEISMultistepScheduler":          "",
	"DPMSolverSinglestepScheduler":    "",
	"DPMSolverSDEScheduler":           "",
	"UniPCMultistepScheduler":         "",
}

// ParseSchedulerConfig reads a scheduler_config.json. A field that it does not
// know is an error, as it might change numbers; so is a class of diffusers that
// has another kind of process. A value that no sampler here can honour is
// refused by the sampler that would have to.
func ParseSchedulerConfig(data []byte) (*SchedulerConfig, error) {
	data = stringOrNonFinite.ReplaceAllFunc(data, func(word []byte) []byte {
		if word[0] == '"' {
			return word
		}
		return fmt.Appendf(nil, "%q", word)
	})
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("sampling: scheduler config: expected a JSON object: %w", err)
	}
	c := &SchedulerConfig{}
	v := reflect.ValueOf(c).Elem()
	known := map[string]reflect.Value{}
	for i := range v.NumField() {
		known[v.Type().Field(i).Tag.Get("json")] = v.Field(i)
	}
	var errs []error
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field, ok := known[name]
		switch {
		case slices.Contains(idleSchedulerKeys, name):
		case !ok:
			unknown = append(unknown, strconv.Quote(name))
		default:
			if err := json.Unmarshal(fields[name], field.Addr().Interface()); err != nil {
				errs = append(errs, fmt.Errorf("%s is %s, expected %s", name, fields[name], kindName(field.Type())))
			}
		}
	}
	if unknown != nil {
		errs = append(errs, fmt.Errorf("unknown field %s; known: %s", strings.Join(unknown, ", "), strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("sampling: scheduler config: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("sampling: scheduler config: %w", err)
	}
	return c, nil
}

// Validate tells everything that is wrong with the fields, whichever sampler
// reads them.
func (c *SchedulerConfig) Validate() error {
	var f Faults
	oneOf := func(name string, v *string, values ...string) {
		f.When(v != nil && !slices.Contains(values, *v), "%s is %q, expected one of: %s", name, or(v, ""), strings.Join(values, ", "))
	}
	_, readable := schedulerClasses[c.ClassName]
	f.When(c.ClassName != "" && !readable, "_class_name is %q, which is not supported; supported: %s", c.ClassName, strings.Join(slices.Sorted(maps.Keys(schedulerClasses)), ", "))
	steps := or(c.NumTrainTimesteps, 1000)
	f.When(steps < 1 || steps > maxDiffusionSteps, "num_train_timesteps is %d, expected 1 to %d", steps, maxDiffusionSteps)
	oneOf("beta_schedule", c.BetaSchedule, "linear", "scaled_linear", "squaredcos_cap_v2")
	oneOf("prediction_type", c.PredictionType, "epsilon", "v_prediction", "sample")
	oneOf("timestep_spacing", c.TimestepSpacing, "leading", "trailing", "linspace")
	oneOf("final_sigmas_type", c.FinalSigmasType, "zero", "sigma_min")
	oneOf("interpolation_type", c.InterpolationType, "linear", "log_linear")
	oneOf("timestep_type", c.TimestepType, "discrete", "continuous")
	first, last := or(c.BetaStart, 0.0001), or(c.BetaEnd, 0.02)
	f.When(!(first > 0 && first < 1), "beta_start is %g, expected a number between 0 and 1", first)
	f.When(!(last > 0 && last < 1), "beta_end is %g, expected a number between 0 and 1", last)
	f.When(c.StepsOffset != nil && (*c.StepsOffset < 0 || *c.StepsOffset >= steps), "steps_offset is %d, expected 0 to %d", or(c.StepsOffset, 0), steps-1)
	f.When(!(or(c.ClipSampleRange, 1) > 0), "clip_sample_range is %g, expected a positive number", or(c.ClipSampleRange, 1))
	f.When(c.TrainedBetas != nil && len(c.TrainedBetas) != steps, "trained_betas has %d values, expected %d as num_train_timesteps says", len(c.TrainedBetas), steps)
	faulty := 0
	for i, b := range c.TrainedBetas {
		if !(b > 0 && b <= 1) && faulty < 3 { // enough to see what is wrong with the list
			faulty++
			f.When(true, "trained_betas[%d] is %g, expected a number above 0 and at most 1", i, b)
		}
	}
	return f.Join()
}

// Sampler is the name in Samplers of the class's own sampler, "" where it has
// none.
func (c *SchedulerConfig) Sampler() string { return schedulerClasses[c.ClassName] }

// Predicts is what the network's output stands for.
func (c *SchedulerConfig) Predicts() Parametrization {
	switch or(c.PredictionType, "epsilon") {
	case "v_prediction":
		return V
	case "sample":
		return XStart
	}
	return Epsilon
}

// ClipDenoised tells whether the class clips x̂0: DDPM and DDIM do, unless the
// file says otherwise. Pipelines of latents switch it off whatever it says.
func (c *SchedulerConfig) ClipDenoised() bool {
	clips := c.ClassName == "DDPMScheduler" || c.ClassName == "DDIMScheduler"
	return clips && or(c.ClipSample, true)
}

// An option is a switch of a scheduler_config.json.
type option struct {
	name  string
	value *bool
}

// refuse is an error that names each of the options that is on.
func refuse(sampler string, options ...option) error {
	f := Faults{Of: "sampling: " + sampler + ": scheduler config"}
	for _, o := range options {
		f.When(or(o.value, false), "%s is true, which this sampler does not do", o.name)
	}
	return f.Join()
}

// or is what p points to, or the default.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// chosen is a sampler's own option, or else the file's field, or else the default.
func chosen[T any](own, file *T, def T) T { return or(own, or(file, def)) }

// stringOrNonFinite is a JSON string, or a word that Python writes into JSON for
// a number.
var stringOrNonFinite = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"?|-Infinity|Infinity|NaN`)

// extended is a number that may be infinite.
type extended float64

// UnmarshalJSON reads a number, or one of Python's words in quotes.
func (e *extended) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case `"-Infinity"`:
		*e = extended(math.Inf(-1))
	case `"Infinity"`:
		*e = extended(math.Inf(1))
	case `"NaN"`:
		return errors.New("not a number")
	default:
		return json.Unmarshal(data, (*float64)(e))
	}
	return nil
}

// kindName is the word for a field's type in messages.
func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list of numbers"
	}
	return "text"
}
