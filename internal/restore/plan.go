// Package restore rebuilds etcd data directories from a database.
//
// A restore decides everything first. A [Source] describes its database,
// [NewPlan] decides what the new cluster will be, and [Site.Check] looks at the
// folders of one host and refuses whatever would put data at risk. None of
// these changes anything. [Work.Execute] builds complete data directories in a
// staging folder beside each target and then renames them into place. Killed at
// any moment, a target is the complete old or the complete new one or, where
// that takes several steps, closed to any server. The same restore again, which
// begins with [FinishInterrupted], finishes the work.
package restore

import (
	"errors"
	"fmt"
	"math"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Request is an operator's wishes for the new cluster. Its fields are etcdutl's
// flags of the same names, and one more. It is the same on every host.
type Request struct {
	// InitialCluster empty means the members that the source records.
	InitialCluster string `json:"initialCluster,omitempty"`
	// Token empty means a fresh random one.
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

// NewPlan decides a restore. It depends on its arguments alone, but for a
// random token where none is requested.
func NewPlan(source Origin, r Request) (*Plan, error) {
	p := &Plan{Source: source, Token: r.Token, Request: r}
	if p.Token == "" {
		p.Token = "backupd-" + backup.RandomName(16)
	}
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
	if p.ClusterID, err = identify(p.Members, p.Token); err != nil {
		return nil, err
	}
	p.note()
	return p, nil
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
		p.notef("auth is enabled in this snapshot: the restored cluster asks for the users and passwords of that time")
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

// InitialCluster is the new cluster as etcd's --initial-cluster takes it.
func (p *Plan) InitialCluster() string { return FormatMembers(p.Members) }
