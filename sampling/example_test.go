package sampling_test

import (
	"fmt"

	"sagbench/sampling"
)

// Five steps of a process of 1000, from the largest timestep down, with the ᾱ of
// each: evenly from the first timestep to the last, and by the integer stride of
// the DDIM paper, which leaves the largest timesteps out.
func ExampleNewSchedule() {
	config := sampling.DefaultSchedule()
	for _, respacing := range []string{"5", "ddim5"} {
		config.TimestepRespacing = respacing
		s, err := sampling.NewSchedule(config)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s:", respacing)
		for i := s.Len() - 1; i >= 0; i-- {
			fmt.Printf("  t %.0f ᾱ %.4f", s.Timestep(i).Value, s.AlphaBar(i))
		}
		fmt.Println()
	}
	// Output:
	// 5:  t 999 ᾱ 0.0000  t 749 ᾱ 0.0034  t 500 ᾱ 0.0778  t 250 ᾱ 0.5214  t 0 ᾱ 0.9999
	// ddim5:  t 800 ᾱ 0.0015  t 600 ᾱ 0.0256  t 400 ᾱ 0.1936  t 200 ᾱ 0.6563  t 0 ᾱ 0.9999
}
