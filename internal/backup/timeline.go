package backup

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// A timeline is one unforked history of a cluster. Its name has a number, and six
// random characters, because two writers may begin a timeline at the same moment:
//
//	t2-k7q2xd
//
// The numbers put the timelines of a cluster in order. Clocks play no part.
var timelinePattern = regexp.MustCompile(`^t([1-9]\d{0,8})-[a-z2-7]{6}$`)

// NewTimeline makes the name of the timeline that comes after that many others.
func NewTimeline(after int) string { return fmt.Sprintf("t%d-%s", after+1, RandomName(6)) }

// CheckTimeline reports why name cannot name a timeline, or nil.
func CheckTimeline(name string) error {
	if !timelinePattern.MatchString(name) {
		return fmt.Errorf("timeline %q: want the form t2-k7q2xd", name)
	}
	return nil
}

// TimelineNumber returns the number of a timeline, 0 for a malformed name.
func TimelineNumber(name string) int {
	if m := timelinePattern.FindStringSubmatch(name); m != nil {
		n, _ := strconv.Atoi(m[1]) // nine digits fit
		return n
	}
	return 0
}

// CompareTimelines orders the timelines of a cluster by their numbers, the oldest
// first, then as text.
func CompareTimelines(a, b string) int {
	return cmp.Or(cmp.Compare(TimelineNumber(a), TimelineNumber(b)), cmp.Compare(a, b))
}
