package main

import (
	"cmp"
	"slices"
	"strings"
)

// nearestShown is how many names are suggested.
const nearestShown = 3

// nearest returns the names that are most like another, the nearest first.
func nearest(to string, names []string) []string {
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(to, a), distance(to, b)) })
	return names[:min(nearestShown, len(names))]
}

// distance is how many letters must be put in, taken out or replaced to make one name of
// the other. Capital letters count as small ones.
func distance(a, b string) int {
	from, to := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	row := make([]int, len(to)+1) // of the letters of a that were read
	for j := range row {
		row[j] = j
	}
	for i, x := range from {
		before := row[0]
		row[0] = i + 1
		for j, y := range to {
			change := before
			if x != y {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(to)]
}
