package sampling

import "sagbench/configs"

// Samplers are the samplers by the name that an experiment gives them, each
// with its defaults.
var Samplers = configs.Registry[Sampler]{
	"ddpm":          func() Sampler { return &DDPM{Steps: 250} },
	"ddim":          func() Sampler { return &DDIM{Steps: 25} },
	"pndm":          func() Sampler { return &PNDM{Steps: 50} },
	"dpm_solver_2m": func() Sampler { return &DPMSolver2M{Steps: 20} },
	"euler":         func() Sampler { return &Euler{Steps: 30} },
}
