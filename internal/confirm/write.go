package confirm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Prefix is where the temporary key of the write has its name.
const Prefix = "backupd/verify-cluster/"

// leaseTTL bounds, in seconds, how long the key stays if this process dies.
const leaseTTL = 60

// write puts and deletes one key, if all else is well.
func (r *round) write(ctx context.Context) {
	switch {
	case r.noWrite:
		r.warn(sectionWrite, "put", "", "left out, because of --no-write: whether the cluster takes writes was not tried")
		return
	case r.Failures > 0 || len(r.here) == 0:
		r.warn(sectionWrite, "put", "", "not tried, because something else is not as planned")
		return
	}
	key := Prefix + backup.RandomName(16)
	at := r.here[0]
	var rev int64
	err := r.request(ctx, at.endpoint, func(ctx context.Context, cl *clientv3.Client) error {
		lease, err := cl.Grant(ctx, leaseTTL)
		if err != nil {
			return err
		}
		if _, err := cl.Put(ctx, key, "", clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
		deleted, err := cl.Delete(ctx, key)
		if err != nil {
			return err
		}
		rev = deleted.Header.Revision
		_, err = cl.Revoke(ctx, lease.ID)
		return err
	})
	if err != nil {
		r.fail(Incomplete, sectionWrite, "put", hintOf(err), "a write by %s fails: %v", r.name(at.memberID), err)
		return
	}
	r.ok(sectionWrite, "put", "a key was put and deleted (%s, revision %d)", key, rev)
}

// compareLeases compares the leases of the members by their IDs, and their number with the
// snapshot's. They are no part of HashKV, come and go by time, and so prove nothing: a difference
// is a warning.
func (r *round) compareLeases(ctx context.Context) {
	said := map[string][]string{} // members by the IDs that they list
	counts := map[string]int64{}
	for _, a := range r.here {
		var ids []clientv3.LeaseID
		err := r.request(ctx, a.endpoint, func(ctx context.Context, cl *clientv3.Client) error {
			resp, err := cl.Leases(ctx)
			if err == nil {
				ids = nil
				for _, l := range resp.Leases {
					ids = append(ids, l.ID)
				}
			}
			return err
		})
		if err != nil {
			r.warn(sectionData, "leases", hintOf(err), "%s does not list its leases: %v", r.name(a.memberID), err)
			continue
		}
		slices.Sort(ids)
		key := fmt.Sprint(ids)
		said[key], counts[key] = append(said[key], r.name(a.memberID)), int64(len(ids))
	}
	want := r.plan.Source.Leases
	var off []string
	for key, names := range said {
		if n := counts[key]; n != want {
			off = append(off, fmt.Sprintf("%d by the word of %s", n, strings.Join(names, ", ")))
		}
	}
	slices.Sort(off)
	for _, what := range off {
		r.warn(sectionData, "leases", "", "%s, and the snapshot had %d: leases end, and clients grant others", what, want)
	}
	switch {
	case len(said) == 1 && len(off) == 0:
		r.ok(sectionData, "leases", "%d, as many as in the snapshot, with equal IDs on all that answer", want)
	case len(said) > 1 && len(off) == 0:
		var groups []string
		for _, names := range said {
			groups = append(groups, strings.Join(names, ", "))
		}
		slices.Sort(groups)
		r.warn(sectionData, "leases", "run this again: if they still differ, a member was restored from another snapshot",
			"%d, as many as in the snapshot, but the IDs differ: %s", want, strings.Join(groups, " from "))
	}
}
