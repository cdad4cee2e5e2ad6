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

	"github.com/etcd-backupd/backupd/internal/backup"
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
	// ClearAlarms removes the alarms of the old cluster.
	ClearAlarms bool `json:"clearAlarms,omitempty"`
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
// data: [Plan.Marshal] writes it and [ParsePlan] reads it again.
type Plan struct {
	Source    Origin          `json:"source"`
	ClusterID backup.MemberID `json:"clusterID"`
	Token     string          `json:"token"`
	// Members are the whole new cluster, with the ids that etcd will compute.
	Members []backup.Member `json:"members"`
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
		p.Members, p.Notes, err = recordedMembers(source.Members)
	} else {
		p.Members, err = ParseMembers(r.InitialCluster)
	}
	if err != nil {
		return nil, err
	}
	if p.Token == "" {
		p.Token = newToken(source, r, p.Members).String()
	}
	if err := p.checkToken(); err != nil {
		return nil, err
	}
	if p.ClusterID, err = identify(p.Members, p.Token); err != nil {
		return nil, err
	}
	p.note()
	return p, nil
}

// checkToken refuses the token of another restore. One that was made up can be that
// of any restore.
func (p *Plan) checkToken() error {
	t, ours := parseToken(p.Token)
	switch {
	case p.Source.SHA256.IsZero():
		return errors.New("the source has no sha256")
	case ours:
		return t.check(p.Source, p.Request, p.Members)
	case p.Request.Token == "":
		return fmt.Errorf("token %q was not requested, and does not have the form of a fresh one", p.Token)
	}
	return nil
}

func (p *Plan) checkRevision() error {
	if err := p.Request.Validate(); err != nil {
		return err
	}
	// The server adds 1 to it.
	if p.Request.BumpRevision >= math.MaxInt64-uint64(p.Source.Revision) {
		return fmt.Errorf("--bump-revision %d goes past the largest revision", p.Request.BumpRevision)
	}
	return nil
}

func (p *Plan) note() {
	p.Notes = append(p.Notes, p.Source.Warnings...)
	for _, a := range p.Source.Alarms {
		if p.Request.ClearAlarms {
			p.notef("alarm %s of the old member %s is cleared", a.Type, a.MemberID)
		} else {
			p.notef("alarm %s of the old member %s is restored and will be active: --clear-alarms removes it",
				a.Type, a.MemberID)
		}
	}
	if p.Source.AuthEnabled {
		p.notef("auth is enabled in this snapshot: the restored cluster has the users and passwords of that time")
	}
	if _, ours := parseToken(p.Token); !ours && len(p.Members) > 1 {
		p.notef("the token %q says nothing of the snapshot and of the flags: a member that is restored with it from "+
			"another snapshot, or with other flags, joins the cluster with other data, and no error shows it", p.Token)
	}
	if p.Source.Leases > 0 {
		p.notef("%d leases restart with their full TTL", p.Source.Leases)
	}
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
func (p *Plan) InitialCluster() string { return FormatMembers(p.Members) }
