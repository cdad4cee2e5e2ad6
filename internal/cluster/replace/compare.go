package replace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// comparisons is how often two answers may not be comparable, because the cluster was
// compacted in between.
const comparisons = 10

// compare compares the new member's data with that of another one. HashKV stops a member for
// as long as it takes, so one is asked after the other, and the leader only if there is no
// other. Then nothing is left to do.
func (r *run) compare(ctx context.Context, s *state) error {
	if err := r.o.before("compare"); err != nil {
		return err
	}
	with, ok := partner(s)
	if !ok {
		return &unsettledError{errors.New("no other voting member answers")}
	}
	last := errors.New("no answer")
	for range comparisons {
		own, other, err := hashes(ctx, r.cluster, s, with)
		switch {
		case err == nil && own == other:
			r.report.HashKV, r.report.ComparedWith = &own, s.nameOf(with.MemberID)
			r.report.note("HashKV is equal on members %s and %s", r.o.Name, s.nameOf(with.MemberID))
			return r.finish()
		case err == nil && own.CompactRevision == other.CompactRevision:
			return differs(r, s, with, own, other)
		case err == nil:
			err = fmt.Errorf("compact revisions %d and %d", own.CompactRevision, other.CompactRevision)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, cluster.ErrPermission):
			return err
		}
		last = err
		if err := r.sleep(ctx); err != nil {
			return err
		}
	}
	return backup.WithHint(fmt.Errorf("HashKV could not be compared: %w", last),
		"the member votes, and is a member like the others; the same command tries the comparison again")
}

// differs notes that the new member has other data than another one, which no wait mends.
func differs(r *run, s *state, with cluster.Candidate, own, other backup.HashKV) error {
	n := *cmp.Or(s.note, &note{ClusterID: s.clusterID, Member: r.o.Name, PeerURLs: s.wanted, Begun: time.Now().UTC()})
	n.Differs = s.nameOf(with.MemberID)
	return errors.Join(backup.WithHint(backup.Corruptf(
		"member %s holds other data than member %s: HashKV %d and %d at revision %d", r.o.Name, n.Differs, own.Hash,
		other.Hash, own.Revision),
		"etcdctl endpoint hashkv --cluster shows which member differs from the others: that one must be replaced. A new "+
			"member gets its data from the leader: if that one differs, let another one lead first (etcdctl move-leader). "+
			"If %s itself must be replaced again, stop it, and run the same command", r.o.Name), r.folders.writeNote(n))
}

// partner is the member that the new one is compared with.
func partner(s *state) (cluster.Candidate, bool) {
	all := s.voters()
	slices.Reverse(all) // the leader last
	if len(all) == 0 {
		return cluster.Candidate{}, false
	}
	return all[0], true
}

// hashes asks both members at one revision. One that is compacted at that very revision
// answers with a hash that it stored before, which may not be comparable: then both are asked
// for what they have now.
func hashes(
	ctx context.Context, c *cluster.Cluster, s *state, with cluster.Candidate,
) (own, other backup.HashKV, err error) {
	of := s.seen[s.target.ID]
	now, err := c.Identify(ctx, with.Endpoint)
	if err != nil {
		return own, other, err
	}
	ask := func(put func(context.Context, cluster.Candidate, backup.Revision) (backup.HashKV, error)) error {
		if own, err = put(ctx, of, now.Revision); err != nil {
			return err
		}
		other, err = put(ctx, with, now.Revision)
		return err
	}
	if err := ask(c.HashKV); err == nil && own.CompactRevision == other.CompactRevision {
		return own, other, nil
	}
	err = ask(c.HashKVNow)
	return own, other, err
}

func (s *state) nameOf(id backup.MemberID) string {
	for _, m := range s.members {
		if m.ID == id {
			return m.Name
		}
	}
	return id.String()
}

// finish removes what would make the next call go on.
func (r *run) finish() error {
	if err := r.o.Done(r.report); err != nil {
		return err
	}
	if err := r.o.before("finish"); err != nil {
		return err
	}
	if err := r.folders.removeNote(); err != nil {
		return err
	}
	r.finished = true
	return nil
}
