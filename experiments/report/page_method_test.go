package report

import (
	"encoding/json"
	"testing"

	"sagbench/experiments/store"
)

// The method says how classes were chosen, and which prompts were drawn.
func TestSamplingOfSets(t *testing.T) {
	const plain = "1,000 images a row from seed 3 by ddpm"
	for config, want := range map[string]string{
		``:                                 "",
		`, "labels": "balanced"`:           ", balanced labels",
		`, "labels": [1, 2, 3]`:            ", labels of a list of 3",
		`, "labels": {"7": 500, "9": 500}`: ", so many images of each of 2 classes",
		`, "prompts": ["a"], "prompts_file": "captions"`:                                                         "",
		`, "prompts_draw": {"number": 30000, "seed": 18}, "prompts_file": "${REFERENCES}/captions_val2014.json"`: ", 30000 prompts drawn from captions_val2014.json with seed 18",
	} {
		m := &store.Metrics{Samples: 1000, Config: json.RawMessage(`{"sampler": {"ddpm": {}}, "seed": 3` + config + `}`)}
		if got := samplingOf(m); got != plain+want {
			t.Errorf("%s: %q, want %q", config, got, plain+want)
		}
	}
	swept := &store.Metrics{Samples: 1000, Config: json.RawMessage(`{"sampler": {"ddpm": {}}, "seed": 3, "labels": "balanced"}`), Settings: []store.Setting{{Path: "labels", Value: "balanced"}}}
	if got := samplingOf(swept); got != plain {
		t.Errorf("where labels are swept: %q", got)
	}
}
