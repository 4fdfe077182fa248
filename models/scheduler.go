package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sagbench/sampling"
)

// readScheduler reads a scheduler_config.json.
func readScheduler(path string) (*sampling.SchedulerConfig, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("models: %s is missing; it says which process the U-Net was trained on", path)
	}
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	c, err := sampling.ParseSchedulerConfig(data)
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	return c, nil
}

// compVisScheduler is the process of Stable Diffusion 1.x, which its single-file
// checkpoints leave to the code, visited as the published folders say.
func compVisScheduler() *sampling.SchedulerConfig {
	steps, first, last, schedule, prediction, spacing, offset, no := 1000, 0.00085, 0.012, "scaled_linear", "epsilon", "leading", 1, false
	return &sampling.SchedulerConfig{
		ClassName: "DDIMScheduler", NumTrainTimesteps: &steps, BetaStart: &first, BetaEnd: &last, BetaSchedule: &schedule,
		PredictionType: &prediction, TimestepSpacing: &spacing, StepsOffset: &offset, SetAlphaToOne: &no, ClipSample: &no,
	}
}
