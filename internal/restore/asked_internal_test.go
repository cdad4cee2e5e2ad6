package restore

import (
	"slices"
	"testing"
)

// TestAsked_AutoBump: auto is the same request, whatever it came to at that time. A number
// that somebody has asked for is not.
func TestAsked_AutoBump(t *testing.T) {
	auto := func(by uint64) Request { return Request{AutoBump: true, BumpRevision: by, MarkCompacted: true} }
	byHand := func(by uint64) Request { return Request{BumpRevision: by, MarkCompacted: by > 0} }
	for name, c := range map[string]struct {
		a, b Request
		want []string
	}{
		"Auto":     {auto(5), auto(6), nil},
		"Same":     {byHand(5), byHand(5), nil},
		"Numbers":  {byHand(5), byHand(6), []string{"--bump-revision"}},
		"AutoThen": {auto(5), byHand(6), []string{"--bump-revision"}},
		"ThenNone": {auto(5), byHand(0), []string{"--bump-revision", "--mark-compacted"}},
	} {
		if got := (asked{Request: c.a}).differences(asked{Request: c.b}); !slices.Equal(got, c.want) {
			t.Errorf("%s: differs in %q, want %q", name, got, c.want)
		}
	}
}
