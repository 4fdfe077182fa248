package human

import (
	"slices"
	"testing"
)

func TestShortPaths(t *testing.T) {
	for _, c := range []struct{ paths, want []string }{
		{[]string{"/x/a.npz"}, []string{"a.npz"}},
		{[]string{"r/1/samples.npz", "r/2/samples.npz", "/far/other.npz"}, []string{"1/samples.npz", "2/samples.npz", "other.npz"}},
		{[]string{"a/x/s", "b/x/s", "b/y/s"}, []string{"a/x/s", "b/x/s", "y/s"}},
		{[]string{"s", "a/s"}, []string{"s", "a/s"}},
		{[]string{"s", "./s"}, []string{"s", "s"}},
		{[]string{"/s", "s"}, []string{"/s", "s"}},
		{[]string{"/s", "/a/s/"}, []string{"/s", "a/s"}},
	} {
		if got := ShortPaths(c.paths); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.paths, got, c.want)
		}
	}
}
