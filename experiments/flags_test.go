package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every number of the command line has a smallest and a largest value.
func TestFlagsAreBounded(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		check := func(f *pflag.Flag) {
			if _, ok := f.Value.(*boundedFlag); !ok && strings.ContainsAny(f.Value.Type()[:1], "iufd") {
				t.Errorf("%s: --%s is a %s without bounds", c.CommandPath(), f.Name, f.Value.Type())
			}
		}
		c.PersistentFlags().VisitAll(check)
		c.Flags().VisitAll(check)
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(rootCommand(&globals{}))
}
