package confirm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// access is what a member says of users and their rights. They are no part of HashKV, and raise
// no revision: the auth revision counts their changes.
type access struct {
	enabled  bool
	revision uint64
}

func (a access) String() string {
	return fmt.Sprintf("%s, auth revision %d", enabled(a.enabled), a.revision)
}

// accessTries is how often the members are asked until they agree, if somebody changes a user
// in between.
const accessTries = 3

// compareAuth compares each member's users and rights with those of the others, and of the
// snapshot, as far as the auth revision tells.
func (r *round) compareAuth(ctx context.Context) {
	if len(r.here) == 0 {
		return
	}
	var said map[access][]string
	for range accessTries {
		var whole bool
		if said, whole = askAccess(ctx, r); !whole {
			return
		}
		if len(said) == 1 {
			break
		}
	}
	if len(said) > 1 {
		var groups []string
		for a, names := range said {
			groups = append(groups, fmt.Sprintf("%s: %s", strings.Join(names, ", "), a))
		}
		slices.Sort(groups)
		r.settled = true
		r.fail(Differs, sectionCluster, "auth", "stop those that were not restored by the plan, and restore them by it: "+
			"their users, passwords and rights are those of another snapshot",
			"the members have different users or rights (%s; %s)", strings.Join(groups, "; "), planned(r.plan))
		return
	}
	for got := range said {
		r.compareAccess(got, r.plan.Source)
	}
}

// askAccess asks each member, and returns who says what, and false if one does not answer.
func askAccess(ctx context.Context, r *round) (map[access][]string, bool) {
	said, whole := map[access][]string{}, true
	for _, m := range r.here {
		var got access
		err := r.request(ctx, m.endpoint, func(ctx context.Context, cl *clientv3.Client) error {
			resp, err := cl.AuthStatus(ctx)
			if err == nil {
				got = access{resp.Enabled, resp.AuthRevision}
			}
			return err
		})
		if err != nil {
			whole = false
			r.fail(Incomplete, sectionCluster, "auth", hintOf(err), "the auth status of %s is not known: %v",
				r.name(m.memberID), err)
			continue
		}
		said[got] = append(said[got], r.name(m.memberID))
	}
	return said, whole
}

// compareAccess compares what all say with the snapshot.
func (r *Report) compareAccess(got access, was restore.Origin) {
	switch {
	case got.enabled != was.AuthEnabled:
		r.fail(Incomplete, sectionCluster, "auth", "", "auth is %s, and was %s in the snapshot", enabled(got.enabled),
			enabled(was.AuthEnabled))
	case was.AuthRevision == 0:
		r.ok(sectionCluster, "auth", "%s, as in the snapshot; auth revision %d by the word of each member",
			enabled(got.enabled), got.revision)
	case got.revision < was.AuthRevision: // it never falls
		r.settled = true
		r.fail(Differs, sectionCluster, "auth", "restore the members by the plan: they were restored from another snapshot",
			"the users or rights are not the snapshot's: auth revision %d, and it was %d", got.revision, was.AuthRevision)
	case got.revision > was.AuthRevision:
		r.fail(Incomplete, sectionCluster, "auth", "if nobody has changed a user or a role since the restore, the members "+
			"were restored from another snapshot: restore them by the plan",
			"the users or rights are not the snapshot's any more: auth revision %d, and it was %d", got.revision,
			was.AuthRevision)
	default:
		r.ok(sectionCluster, "auth", "%s, as in the snapshot; auth revision %d, as planned, by the word of each member",
			enabled(got.enabled), got.revision)
	}
}

// planned is what the snapshot had.
func planned(p *restore.Plan) string {
	if p.Source.AuthRevision == 0 {
		return "the snapshot: " + enabled(p.Source.AuthEnabled)
	}
	return fmt.Sprintf("the snapshot: %s", access{p.Source.AuthEnabled, p.Source.AuthRevision})
}

func enabled(on bool) string {
	if on {
		return "enabled"
	}
	return "not enabled"
}
