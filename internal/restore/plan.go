// Package restore rebuilds etcd data directories from a database.
//
// A restore makes all decisions first. A [Source] describes its database,
// [NewPlan] decides what the new cluster will be, and [Site.Check] inspects the
// folders of one host and refuses everything that would put data at risk. None of
// these changes anything. [Work.Execute] builds complete data directories in a
// staging folder beside each target and then renames them into place. If it is
// killed, each target is the complete old one, the complete new one or, in the
// middle of several steps, closed to every server. The same restore again begins
// with [FinishInterrupted], which finishes the work.
package restore

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore/token"
)

// Request is the operator's request for the new cluster. It has the fields of
// etcdutl's flags of the same names, and one more. It is the same on every host.
type Request struct {
	// InitialCluster empty means the members that the source records.
	InitialCluster string `json:"initialCluster,omitempty"`
	// Token empty means a fresh one, which says of which restore it is. Such a token
	// is refused for any other restore. A token of another form proves nothing.
	Token         string `json:"token,omitempty"`
	BumpRevision  uint64 `json:"bumpRevision,omitempty"`
	MarkCompacted bool   `json:"markCompacted,omitempty"`
	// AutoBump says that nobody has asked for just that bump, and BumpReason why it is that.
	AutoBump   bool   `json:"autoBump,omitempty"`
	BumpReason string `json:"bumpReason,omitempty"`
	// ClearAlarms removes all alarms of the old cluster, ClearNoSpace those for which its
	// databases were too large.
	ClearAlarms  bool `json:"clearAlarms,omitempty"`
	ClearNoSpace bool `json:"clearNoSpace,omitempty"`
	// AllowLocalhost accepts members that the others cannot reach.
	AllowLocalhost bool `json:"allowLocalhost,omitempty"`
}

// Validate checks everything that does not depend on a source.
func (r *Request) Validate() error {
	if r.BumpRevision > 0 && !r.MarkCompacted {
		return errors.New("--mark-compacted required if --bump-revision > 0: the two go together")
	}
	if r.MarkCompacted && r.BumpRevision == 0 {
		return errors.New("--bump-revision required if --mark-compacted: the two go together")
	}
	return nil
}

// Plan describes the new cluster, decided once for all of its hosts. It is plain
// data: [Plan.Marshal] writes it, once it is sealed, and [ParsePlan] reads it again.
type Plan struct {
	// CreatedAt, Stored and Places are set by [Plan.Seal].
	CreatedAt time.Time       `json:"createdAt,omitzero"`
	Stored    Stored          `json:"stored,omitzero"`
	ClusterID backup.MemberID `json:"clusterID"`
	Token     string          `json:"token"`
	// Members are the whole new cluster, with the ids that etcd will compute.
	Members []backup.Member `json:"members"`
	Places  []Place         `json:"places,omitempty"`
	Source  Origin          `json:"source"`
	// Notes are facts that the operator should know before the restore.
	Notes   []string `json:"notes,omitempty"`
	Request Request  `json:"request"`
}

// NewPlan decides a restore. The result depends on the arguments alone, except for
// a random part of the token if none is requested. It returns a [*TokenError] if the
// requested token was made for another restore.
func NewPlan(source Origin, r Request) (*Plan, error) {
	p := &Plan{Source: source, Token: r.Token, Request: r}
	if err := p.checkRevision(); err != nil {
		return nil, err
	}
	var err error
	if r.InitialCluster == "" {
		p.Members, p.Notes, err = members.Recorded(source.Members)
	} else {
		p.Members, err = members.Parse(r.InitialCluster)
	}
	if err != nil {
		return nil, err
	}
	if !r.AllowLocalhost {
		if err := members.CheckLoopback(p.Members); err != nil {
			return nil, err
		}
	}
	if p.Token == "" {
		p.Token = token.New(p.tokenOf(), backup.Digest{}).String()
	}
	if err := p.checkToken(); err != nil {
		return nil, err
	}
	if p.ClusterID, err = members.Identify(p.Members, p.Token); err != nil {
		return nil, err
	}
	p.note()
	return p, nil
}

// leftRevisions is how many revisions a bump must leave: for centuries.
const leftRevisions = 1 << 48

func (p *Plan) checkRevision() error {
	if err := p.Request.Validate(); err != nil {
		return err
	}
	room := math.MaxInt64 - leftRevisions - int64(p.Source.Revision)
	if p.Request.BumpRevision > uint64(max(0, room)) {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"--bump-revision %d after revision %d comes so near to the largest revision that etcd can count (%d) that the "+
				"new cluster would soon take no writes", p.Request.BumpRevision, p.Source.Revision, math.MaxInt64)},
			"give a smaller one: it need only be more than the revisions that were lost, such as 1000000000")
	}
	return nil
}

func (p *Plan) note() {
	p.Notes = append(p.Notes, p.Source.Warnings...)
	if p.Request.BumpRevision > 0 && p.Request.BumpReason != "" {
		p.notef("revision bumped by %d because %s", p.Request.BumpRevision, p.Request.BumpReason)
	}
	for _, a := range p.Source.Alarms {
		if p.Request.ClearAlarms || p.Request.ClearNoSpace && a.Type == noSpace {
			p.notef("alarm %s of the old member %s is cleared", a.Type, a.MemberID)
		} else {
			p.notef("alarm %s of the old member %s is restored and will be active: --clear-alarms removes it",
				a.Type, a.MemberID)
		}
	}
	p.noteQuota()
	if p.Source.AuthEnabled {
		p.notef("auth is enabled in this snapshot: the restored cluster has the users and passwords of that time")
	}
	if _, ours := token.Parse(p.Token); !ours && len(p.Members) > 1 {
		p.notef("the token %q says nothing of the snapshot and of the flags: a member that is restored with it from "+
			"another snapshot, or with other flags, joins the cluster with other data, and no error shows it", p.Token)
	}
	p.noteIdentity()
	if p.Source.Leases > 0 {
		p.notef("%d leases restart with their full TTL", p.Source.Leases)
	}
}

// noteIdentity says if the new cluster cannot be told from the old one.
func (p *Plan) noteIdentity() {
	old := members.Shared(p.Members, p.Source.Members)
	if len(old) == 0 {
		return
	}
	p.notef("token and peer URLs are those of the old cluster, so %s will have the same id: clients, backups and old "+
		"members cannot tell the two clusters apart", members.Names(old))
	if len(p.Members) > 1 {
		p.notef("an old member that still runs, or is started again, joins the new cluster with its old data, and no error " +
			"shows it: stop all old members for good, or give another --initial-cluster-token")
	}
}

// noSpace is the alarm that a member raises whose database has reached its quota.
const noSpace = "NOSPACE"

// clearsNoSpace reports whether alarms that the database holds are removed for lack of space
// alone.
func (p *Plan) clearsNoSpace() bool {
	return p.Request.ClearNoSpace && !p.Request.ClearAlarms &&
		slices.ContainsFunc(p.Source.Alarms, func(a backup.Alarm) bool { return a.Type == noSpace })
}

// defaultQuota is etcd's --quota-backend-bytes unless one is given, and enough is the
// largest that it recommends.
const (
	defaultQuota = 2 << 30
	enough       = 8 << 30
)

// noteQuota says if the new servers would soon, or at once, refuse all writes.
func (p *Plan) noteQuota() {
	quota, of := p.Source.QuotaBytes, "the old server's quota"
	if quota == 0 {
		quota, of = defaultQuota, "etcd's default quota"
	}
	if p.Source.Bytes <= quota/10*9 {
		return
	}
	p.notef("the database of %d bytes is %d%% of %s of %d: the alarm NOSPACE would stop all writes; "+
		"start the servers with --quota-backend-bytes=%d, and defragment them",
		p.Source.Bytes, p.Source.Bytes/(quota/100), of, quota, max(enough, 2*p.Source.Bytes))
}

func (p *Plan) notef(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

func (p *Plan) revision() string {
	if p.Request.BumpRevision == 0 {
		return p.Source.Revision.String()
	}
	return fmt.Sprintf("%d, bumped by %d and marked compacted", p.Source.Revision, p.Request.BumpRevision)
}

// InitialCluster returns the new cluster in the form of etcd's --initial-cluster.
func (p *Plan) InitialCluster() string { return members.Format(p.Members) }
