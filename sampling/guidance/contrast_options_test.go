package guidance

import (
	"fmt"
	"strings"
	"testing"
)

func TestContrastsFromYAML(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"apg", "{Scale:7.5 Eta:0 NormThreshold:15 Momentum:-0.5 CFGSteps:0 CFGScale:1 ClassifierFree:{Model:null Contrast:{Space:x_start"},
		{"{apg: {eta: 1, norm_threshold: 0, momentum: 0, space: output}}", "{Scale:7.5 Eta:1 NormThreshold:0 Momentum:0 CFGSteps:0 CFGScale:1 ClassifierFree:{Model:null Contrast:{Space:output"},
		{"{apg: {momentum: -1, norm_threshold: -2, cfg_steps: -1, cfg_scale: .inf}}", "guidance.apg.cfg_scale: expected a finite number"},
		{"{apg: {momentum: -1}}", "momentum is -1, expected more than -1"},
		{"{apg: {norm_threshold: -2}}", "norm_threshold is -2, expected a length"},
		{"{apg: {cfg_steps: -1}}", "cfg_steps is -1"},
		{"{apg: {space: pixels}}", `apg: space is "pixels", expected one of [output epsilon x_start v velocity]`},
		{"cfg_zero_star", "{Scale:7.5 ZeroInitSteps:1 ClassifierFree:{Model:null Contrast:{Space:velocity"},
		{"{cfg_zero_star: {zero_init_steps: -1, rescale: 2}}", "zero_init_steps is -1"},
		{"fdg", "{Scales:[10 5] ParallelWeights:[] ClassifierFree:{Model:null Contrast:{Space: "},
		{"{fdg: {scales: [4, 3, 2]}}", "{Scales:[4 3 2] ParallelWeights:[]"},
		{"{fdg: {scales: []}}", "scales is empty"},
		{"{fdg: {parallel_weights: [1]}}", "parallel_weights has 1 numbers, expected 2"},
		{"autoguidance", "autoguidance: model is missing: name the worse network"},
		{"{autoguidance: {model: {family: adm}}}", "{Scale:2 Model:{\"family\":\"adm\"} Contrast:{Space: "},
		{"{autoguidance: {scale: .nan, model: {}}}", "guidance.autoguidance.scale: expected a finite number"},
		{"tcfg", "{Scale:7.5 ClassifierFree:{Model:null Contrast:{Space:epsilon"},
		{"mambo_g", "{Scale:10 Alpha:8 ClassifierFree:{Model:null Contrast:{Space:velocity"},
		{"{mambo_g: {alpha: -1}}", "alpha is -1"},
	} {
		g, err := fromYAML(t, c.yaml)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%+v", g[0].Value)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s lacks %q", c.yaml, got, c.want)
		}
	}
}
