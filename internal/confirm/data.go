package confirm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// Expected returns the HashKV that every member of the plan answers until it is compacted
// later than now, and false if the plan does not tell it.
func Expected(p *restore.Plan) (backup.HashKV, bool) {
	switch o := p.Source; {
	case p.Request.BumpRevision == 0 && o.HashKV != nil:
		return *o.HashKV, true
	case p.Request.BumpRevision > 0 && o.LiveHash != nil && o.Revision > 0:
		return etcddb.BumpedHash(*o.LiveHash, o.Revision+backup.Revision(p.Request.BumpRevision)), true
	}
	return backup.HashKV{}, false
}

// compareData compares each member with the plan, and, if the cluster was written to since,
// the members with one another. HashKV stops a member while it is computed, so one is asked
// at a time, and the leader last.
func (r *round) compareData(ctx context.Context) {
	if len(r.here) == 0 {
		return
	}
	order := slices.Clone(r.here)
	slices.SortStableFunc(order, func(a, b *answer) int { return rank(a) - rank(b) })
	want, known := Expected(r.plan)
	if !known {
		r.settled = true
		r.fail(Incomplete, sectionData, "plan", "",
			"the plan does not tell the HashKV of its source: nothing can be compared")
	}
	now := known // the members are where the plan has left them
	for _, a := range order {
		if known && ctx.Err() == nil {
			r.compareWithPlan(ctx, a, want)
		}
		now = now && a.revision == want.Revision
	}
	if !now && len(order) > 1 && !r.diverged(ctx, r.cluster, order) {
		r.compareTogether(ctx, order)
	}
}

func rank(a *answer) int {
	if a.leader == a.memberID {
		return 1
	}
	return 0
}

func (r *round) compareWithPlan(ctx context.Context, a *answer, want backup.HashKV) {
	name := r.name(a.memberID)
	if a.revision < want.Revision { // a member of the plan begins there
		r.settled = true
		r.fail(Differs, sectionData, name,
			"it may have begun with an empty data directory: restore it again, in the place where it starts",
			"it is at revision %d, and the plan's data is at %d: it does not hold it", a.revision, want.Revision)
		return
	}
	got, err := r.cluster.HashKV(ctx, a.candidate(), want.Revision)
	switch {
	case errors.Is(err, cluster.ErrCompacted):
		r.incomparable(name, "the plan's revision %d is compacted by now", want.Revision)
	case err != nil:
		r.fail(Incomplete, sectionData, name, hintOf(err), "it could not be compared with the plan: %v", err)
	case got.CompactRevision != want.CompactRevision:
		r.incomparable(name, "it was compacted at revision %d since", got.CompactRevision)
	case got.Hash != want.Hash:
		r.settled = true
		r.fail(Differs, sectionData, name,
			"stop it, and restore it again by the plan: it was restored from another snapshot, or is an old member",
			"it holds other data than the plan: HashKV %d at revision %d, and the plan's is %d", got.Hash, want.Revision,
			want.Hash)
	default:
		r.ok(sectionData, name, "HashKV %d at revision %d, as planned", got.Hash, want.Revision)
	}
}

// incomparable says that a comparison with the plan is not possible any more.
func (r *Report) incomparable(name, format string, args ...any) {
	r.settled = true
	r.fail(Incomplete, sectionData, name,
		"only right after a restore can this be known: an API server of Kubernetes compacts every five minutes",
		"not comparable with the plan: "+format, args...)
}

// diverged reports whether members that have applied the same raft entries are at different
// revisions. Then one of them may have compacted what the others could be compared at.
func (r *Report) diverged(ctx context.Context, c *cluster.Cluster, order []*answer) bool {
	var all []cluster.Candidate
	for _, a := range order {
		all = append(all, a.candidate())
	}
	if !cluster.Doubtful(all) {
		return false
	}
	proved := c.Divergence(ctx, all)
	for _, what := range proved {
		r.settled = true
		r.fail(Differs, sectionData, "members", "stop those that were not restored by the plan, and restore them by it",
			"%s", what)
	}
	return len(proved) > 0
}

// togetherTries is how often the members are compared with one another, if the cluster is
// compacted in between.
const togetherTries = 3

// compareTogether compares the members at the newest revision that one of them has shown.
func (r *round) compareTogether(ctx context.Context, order []*answer) {
	why := ""
	for range togetherTries {
		var rev backup.Revision
		for i, a := range r.askAgain(ctx, order) {
			order[i] = a
			rev = max(rev, a.revision)
		}
		hashes := map[backup.HashKV][]string{}
		compacted := map[backup.Revision]bool{}
		why = ""
		for _, a := range order {
			h, err := r.cluster.HashKV(ctx, a.candidate(), rev)
			if err != nil {
				why = fmt.Sprintf("%s: %v", r.name(a.memberID), err)
				break
			}
			hashes[h] = append(hashes[h], r.name(a.memberID))
			compacted[h.CompactRevision] = true
		}
		switch {
		case why != "":
		case len(compacted) > 1:
			why = "they were compacted in between"
		case len(hashes) == 1:
			r.ok(sectionData, "members", "all that answer hold equal data at revision %d", rev)
			return
		default:
			var groups []string
			for h, names := range hashes {
				groups = append(groups, fmt.Sprintf("%s: HashKV %d", strings.Join(names, ", "), h.Hash))
			}
			slices.Sort(groups)
			r.settled = true
			r.fail(Differs, sectionData, "members", "", "they hold different data at revision %d (%s)", rev,
				strings.Join(groups, "; "))
			return
		}
	}
	r.fail(Incomplete, sectionData, "members", "", "they could not be compared with one another: %s", why)
}

// askAgain asks members how far they are. One that does not answer stays as it was.
func (r *asker) askAgain(ctx context.Context, of []*answer) []*answer {
	var endpoints []string
	for _, a := range of {
		endpoints = append(endpoints, a.endpoint)
	}
	again := r.askAll(ctx, endpoints)
	for i, a := range again {
		if a.err != nil || a.memberID != of[i].memberID {
			again[i] = of[i]
		}
	}
	return again
}

// holds reports whether a member has the data with that hash.
func (r *asker) holds(ctx context.Context, a *answer, want backup.HashKV) bool {
	if a.revision < want.Revision {
		return false
	}
	got, err := r.cluster.HashKV(ctx, a.candidate(), want.Revision)
	return err == nil && got == want
}
