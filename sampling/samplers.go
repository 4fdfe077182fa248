package sampling

import "sagbench/configs"

// Samplers are the samplers by the name that an experiment gives them, each
// with its defaults.
var Samplers = configs.Registry[Sampler]{
	"ddpm": func() Sampler { return &DDPM{Steps: 250} },
	"ddim": func() Sampler { return &DDIM{Steps: 25} },
}
