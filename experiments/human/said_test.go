package human

import (
	"errors"
	"testing"
)

// What several faults have in common is said once, with all that it concerns.
func TestSaidOnce(t *testing.T) {
	const paragraph = "ort: ONNX Runtime 1.31.1 is not installed; run `make onnxruntime` in the repository"
	const shapes = "the checkpoint does not fit the network; its shapes suggest channel_mult: \"1,1,2\"\n  mis-shaped input_blocks.5.0.in_layers.2.weight: the network wants [192 64 3 3]\n  and 88 more"
	for text, want := range map[string]string{
		"row \"a\": " + paragraph + "\nrow \"b\": models: b.pt: " + paragraph + "\nrow \"c\": " + paragraph: "row \"a\": " + paragraph + "\nrow \"b\": models: b.pt: the same\nrow \"c\": the same\n",
		"row \"a\": " + shapes + "\nrow \"b\": " + shapes:                                                   "row \"a\": " + shapes + "\nrow \"b\": the same\n",
		"row \"a\": is broken\nrow \"b\": is broken":                                                        "row \"a\": is broken\nrow \"b\": is broken",
		"one: " + shapes + "\ntwo: is broken\n  and 88 more":                                                "one: " + shapes + "\ntwo: is broken\n  and 88 more",
	} {
		if got := Said(errors.New(text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
