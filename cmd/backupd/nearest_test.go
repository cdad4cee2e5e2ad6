package main

import (
	"slices"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"prod", "prod", 0}, {"prod", "PROD", 0}, {"", "prod", 4}, {"prod", "", 4}, {"prdo", "prod", 2},
		{"prod", "prd", 1}, {"prod", "prods", 1}, {"prod", "brod", 1}, {"kitten", "sitting", 3}, {"abc", "xyz", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"lab", "prod", "prod-eu", "staging", "test"}
	if got := nearest("prdo", names); !slices.Equal(got, []string{"prod", "lab", "prod-eu"}) {
		t.Errorf("got %q", got)
	}
	if got := nearest("x", nil); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
