package duty

import (
	"slices"

	"github.com/etcd-backupd/backupd/internal/spool"
)

// learn notes what the spool tells of the repository. If nothing else has told its id,
// neither the configuration nor a record nor a look, it is the one that the newest
// snapshot in the spool waits for: to make another one there, or to adopt it, would
// leave that snapshot behind unseen.
func (s *Subject) learn() {
	_, others := s.waiting()
	s.Known.change(func(f *Facts) {
		if f.RepositoryID == "" && len(others) > 0 {
			f.RepositoryID = others[len(others)-1].Repository
			others = slices.DeleteFunc(others, func(p spool.Pending) bool { return p.Repository == f.RepositoryID })
		}
		f.Astray = others
	})
}
