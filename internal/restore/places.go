package restore

import (
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// LocalPlace is where one of several members goes on this host.
type LocalPlace struct {
	Member  string `json:"member"`
	DataDir string `json:"dataDir"`          // absolute
	WALDir  string `json:"walDir,omitempty"` // as that of [Site]
	Owner   *Owner `json:"owner,omitempty"`  // as that of [Site], which beats it
}

// placed returns the members that have places here.
func (s *Site) placed(p *Plan, mounts []disk.Mount) (out []Target, err error) {
	for _, at := range s.Places {
		m, err := (&Site{Name: at.Member}).member(p)
		if err != nil {
			return nil, err
		}
		t, err := newTarget(m, at.DataDir, at.WALDir, mounts)
		if err != nil {
			return nil, err
		}
		t.owner, t.givenWAL = at.Owner, at.WALDir != ""
		for _, other := range out {
			if err := t.apart(other); err != nil {
				return nil, err
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// apart refuses places of two members that are one, or of which one lies in the other.
func (t Target) apart(other Target) error {
	for _, a := range t.folders() {
		for _, b := range other.folders() {
			if disk.Within(a.Dir, b.Dir) || disk.Within(b.Dir, a.Dir) {
				return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
					"%s of member %s and %s of member %s cannot be on one host", b.Dir, other.Member.Name, a.Dir, t.Member.Name)},
					"restore each member on its own host: --name %s; or all here, elsewhere: --output-dir DIR", t.Member.Name)
			}
		}
	}
	return nil
}
