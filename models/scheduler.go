package models

import (
	"errors"
	"fmt"
	"io/fs"

	"sagbench/sampling"
)

// schedulerFile is scheduler_config.json as a component's config.
type schedulerFile struct {
	sampling.SchedulerConfig `yaml:",inline"`
}

func (*schedulerFile) class() string { return "" }

// ignored are keys of solvers and of options that other keys switch off.
func (*schedulerFile) ignored() []string {
	return []string{"dynamic_thresholding_ratio", "sample_max_value", "skip_type", "flow_shift", "time_shift_type", "solver_p", "disable_corrector", "predict_x0"}
}

func (*schedulerFile) fixed() map[string]string {
	return map[string]string{"trained_betas": "null", "thresholding": "false", "lambda_min_clipped": "-Infinity"}
}

// ReadScheduler reads a scheduler_config.json.
func ReadScheduler(path string) (sampling.SchedulerConfig, error) {
	c := schedulerFile{sampling.DefaultScheduler()}
	b, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.SchedulerConfig, fmt.Errorf("models: %s is missing; it says which process the U-Net was trained on", path)
	}
	if err != nil {
		return c.SchedulerConfig, fmt.Errorf("models: %w", err)
	}
	err = decodeConfig(b, &c)
	return c.SchedulerConfig, err
}
