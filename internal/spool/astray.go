package spool

import (
	"fmt"
	"slices"
	"strings"
)

// MoveHint says what to do with snapshots that wait if their repository never comes back.
func MoveHint(waiting []Pending) string {
	if len(waiting) == 0 {
		return ""
	}
	files := ""
	for _, p := range waiting {
		files += strings.TrimSuffix(p.Path, "spool") + "* "
	}
	return fmt.Sprintf("in the spool snapshots (%d) wait for repository %s, and are stored in no other. "+
		"To give them up, stop the daemon and move them away: mv %s/elsewhere/", len(waiting), Repositories(waiting), files)
}

// Repositories names the repositories that snapshots wait for.
func Repositories(waiting []Pending) string {
	var out []string
	for _, p := range waiting {
		if !slices.Contains(out, p.Repository) {
			out = append(out, p.Repository)
		}
	}
	return strings.Join(out, ", ")
}
