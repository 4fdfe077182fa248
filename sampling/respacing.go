package sampling

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// spaceTimesteps is the ascending original timesteps that a respacing of a
// process of the given number of steps keeps. Source: respace.py
// space_timesteps, round half to even and running float64 sum included.
func spaceTimesteps(steps int, respacing string) ([]int, error) {
	if respacing == "" {
		respacing = strconv.Itoa(steps)
	}
	if count, ok := strings.CutPrefix(respacing, "ddim"); ok {
		return strideTimesteps(steps, count)
	}
	sections := strings.Split(respacing, ",")
	if len(sections) > steps {
		return nil, fmt.Errorf("timestep_respacing %q has %d sections, more than the %d diffusion_steps", respacing, len(sections), steps)
	}
	var kept []int
	start := 0
	for i, section := range sections {
		count, err := strconv.Atoi(strings.TrimSpace(section))
		if err != nil || count < 0 {
			return nil, fmt.Errorf("timestep_respacing %q: section %q is not a count; expected one such as 250, ddim25 or 10,10,20", respacing, section)
		}
		size := steps / len(sections)
		if i < steps%len(sections) {
			size++
		}
		if count > size {
			return nil, fmt.Errorf("timestep_respacing %q asks for %d steps of a section that has %d (%d diffusion_steps in %d equal sections)", respacing, count, size, steps, len(sections))
		}
		stride := 1.0
		if count > 1 {
			stride = float64(size-1) / float64(count-1)
		}
		at := 0.0
		for range count {
			kept = append(kept, start+int(math.RoundToEven(at)))
			at += stride
		}
		start += size
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("timestep_respacing %q keeps no step, expected at least one", respacing)
	}
	return kept, nil
}

// strideTimesteps is 0, k, 2k, … below steps, with the smallest stride k that
// makes exactly the wanted count.
func strideTimesteps(steps int, wanted string) ([]int, error) {
	count, err := strconv.Atoi(strings.TrimSpace(wanted))
	if err != nil || count < 1 {
		return nil, fmt.Errorf("timestep_respacing %q: expected ddim and a positive count, such as ddim25", "ddim"+wanted)
	}
	below, above := 0, 0 // the counts nearest to the wanted one that a stride makes
	for stride := 1; stride < steps; stride++ {
		n := (steps-1)/stride + 1
		if n > count {
			above = n
			continue
		}
		if n < count {
			below = n
			break
		}
		var kept []int
		for t := 0; t < steps; t += stride {
			kept = append(kept, t)
		}
		return kept, nil
	}
	return nil, fmt.Errorf("timestep_respacing \"ddim%d\": no integer stride makes exactly %d steps of %d; the nearest counts that one makes: %s", count, count, steps, nearest(below, above))
}

func nearest(below, above int) string {
	switch {
	case below == 0 && above == 0:
		return "none"
	case below == 0:
		return strconv.Itoa(above)
	case above == 0:
		return strconv.Itoa(below)
	}
	return fmt.Sprintf("%d and %d", below, above)
}
