package models

// A Captioned is a Family that tells from its flags whether its network is
// Prompted.
type Captioned interface {
	Family
	// TakesPrompts reports whether Open returns a Prompted.
	TakesPrompts() bool
}

var _ Captioned = (*SD)(nil)

// TakesPrompts implements Captioned: all of Stable Diffusion does, a component
// of it does not.
func (c *SD) TakesPrompts() bool { return c.Component == "" }
