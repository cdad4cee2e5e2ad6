package duty

import (
	"errors"

	"github.com/etcd-backupd/backupd/internal/record"
)

// Recall adds to the knowledge of a cluster what an earlier process knew of it. The
// repository that the configuration names wins: a record of another one says nothing.
// It is called before anything else knows of the cluster.
func (s *Subject) Recall(r *record.Record) {
	s.Known.change(func(f *Facts) {
		if f.RepositoryID != "" && r.RepositoryID != "" && f.RepositoryID != r.RepositoryID {
			return
		}
		if r.RepositoryID != "" {
			f.RepositoryID = r.RepositoryID
		}
		if !r.Since.IsZero() && r.Since.Before(f.Since) {
			f.Since = r.Since
		}
		f.ReadBefore, f.Attempted, f.Pruned, f.Failing = r.Read, r.Attempted, r.Pruned, r.Failing
		f.Confirmed, f.Protected, f.newest, f.revision = r.Confirmed, !r.Confirmed.IsZero(), r.Newest, r.Revision
		if r.Error != "" {
			f.Failed = errors.New(r.Error)
		}
	})
}

// Record returns what the next process is to know of the cluster.
func (s *Subject) Record() record.Record {
	f := s.Known.Now()
	r := record.Record{
		Repository: s.Repository, Cluster: s.Cluster, Address: s.Address, RepositoryID: f.RepositoryID,
		Since: f.Since.UTC(), Read: f.LastRead().UTC(), Confirmed: f.Confirmed.UTC(), Newest: f.newest, Revision: f.revision,
		Attempted: f.Attempted.UTC(), Pruned: f.Pruned.UTC(), Failing: f.Failing.UTC(),
	}
	if m := f.Newest(); m != nil {
		r.Newest, r.Revision = m.ID, m.Revision
	}
	if f.Failed != nil {
		r.Error = f.Failed.Error()
	}
	return r
}
