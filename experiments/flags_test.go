package main

import (
	"regexp"
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

// The help of eval lists its flags by groups, each flag but the hidden ones once.
func TestGroupedFlags(t *testing.T) {
	help := succeed(t, "eval", "--help").stdout.String()
	at := 0
	for _, title := range []string{"\nWhat is scored:\n", "\nWhich images:\n", "\nNetworks:\n", "\nOutput:\n", "\nOther flags:\n", "\nGlobal Flags:\n"} {
		i := strings.Index(help[at:], title)
		if i < 0 {
			t.Fatalf("no %q after the groups before it:\n%s", title, help)
		}
		at += i
	}
	evalCommand(&globals{}).Flags().VisitAll(func(f *pflag.Flag) {
		want := 1
		if f.Hidden {
			want = 0
		}
		if got := len(regexp.MustCompile("(?m)^ +(-[a-z], )?--"+f.Name+"( |$)").FindAllString(help, -1)); got != want {
			t.Errorf("--%s stands %d times in the help, expected %d", f.Name, got, want)
		}
	})
}
