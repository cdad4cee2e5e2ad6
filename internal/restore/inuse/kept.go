package inuse

import (
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Kept is a file or folder that stays where it is, such as the repository: a restore must
// neither move it nor build in it.
type Kept struct {
	What string // as in "the repository"
	Path string
}

// Apart refuses a folder that is a kept one, lies in it or has it inside. flag is what gave
// the folder; either may be empty.
func Apart(flag, dir string, kept []Kept) error {
	for _, k := range kept {
		if dir == "" || k.Path == "" {
			continue
		}
		inside, err := disk.Holds(dir, k.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		outside, err := disk.Holds(k.Path, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		if relation := relate(inside, outside); relation != "" {
			return backup.WithHint(&backup.RefusedError{
				Reason: fmt.Sprintf("%s %s %s %s (%s)", flag, dir, relation, k.What, k.Path),
			}, "give the restored data a folder of its own, that shares nothing with %s", k.What)
		}
	}
	return nil
}

func relate(inside, outside bool) string {
	switch {
	case inside && outside:
		return "is"
	case inside:
		return "contains"
	case outside:
		return "lies in"
	}
	return ""
}
