// Package restore rebuilds etcd data directories from a snapshot.
//
// A restore decides everything first: [NewPlan] reads, checks and refuses, and
// touches nothing. [Plan.Execute] builds complete data directories in a staging
// folder beside each target and then renames them into place. Whatever moment
// it is killed at, a target is the complete old or the complete new one or,
// where that takes several steps, closed to any server; and running the same
// restore again, which begins with [FinishInterrupted], finishes the work.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Request is what an operator asks for. Its fields are etcdutl's flags of the
// same names, and a few more.
type Request struct {
	Name    string
	DataDir string
	WALDir  string // empty means <data dir>/member/wal
	// InitialCluster empty means the members that the source records.
	InitialCluster string
	// Token empty means a fresh random one.
	Token string
	// PeerURLs are this member's advertised URLs; empty means those that the
	// initial cluster has for it.
	PeerURLs []string
	// OutputDir, when set, asks for the data directories of all members in it,
	// one folder each, instead of Name and DataDir.
	OutputDir string

	BumpRevision     uint64
	MarkCompacted    bool
	ClearAlarms      bool
	InitialMmapBytes uint64
	// Owner of everything restored; nil means that of the folder which is
	// replaced, or ours.
	Owner *Owner
	// Replace moves data that is in the way aside instead of refusing.
	Replace bool
	// AllowRunning restores although something listens on a peer URL.
	AllowRunning bool

	// EtcdLog is the logger for etcd's own restore code.
	EtcdLog  *zap.Logger
	Progress backup.Progress

	before func(op, path string) error // for tests, see disk
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Plan is everything a restore will do.
type Plan struct {
	Source    *Source
	ClusterID backup.MemberID
	Token     string
	// Members are the whole new cluster.
	Members []Member
	// Targets are the members whose data directories are made here.
	Targets []Target
	// Notes are what the operator should know before it is done.
	Notes []string

	req Request
}

// Target is one member's data directory.
type Target struct {
	Member Member
	data   *slot
	wal    *slot  // nil when the WAL is built with the data directory
	walDir string // empty when it is at its usual place
}

// DataDir is where the member's data directory will be.
func (t Target) DataDir() string { return t.data.dir }

// WALDir is where the member's WAL will be, if not in the data directory.
func (t Target) WALDir() string { return t.walDir }

// NewPlan decides a restore and checks that it can be done. It changes nothing.
// What would put data at risk is a [*backup.RefusedError].
func NewPlan(ctx context.Context, src *Source, req Request) (*Plan, error) {
	if req.EtcdLog == nil {
		req.EtcdLog = zap.NewNop()
	}
	if req.Progress == nil {
		req.Progress = func(backup.Stage, int64, int64) {}
	}
	p := &Plan{Source: src, Token: req.Token, req: req}
	if p.Token == "" {
		p.Token = "backupd-" + backup.RandomName(16)
	}
	for _, step := range []func(context.Context) error{p.planMembers, p.planTargets, p.checkRevisions, p.checkTargets} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	p.note()
	return p, nil
}

func (p *Plan) planMembers(context.Context) (err error) {
	var left []string
	if p.req.InitialCluster == "" {
		p.Members, left, err = recordedMembers(p.Source.Members)
	} else {
		p.Members, err = ParseMembers(p.req.InitialCluster)
	}
	if err != nil {
		return err
	}
	p.Notes = append(p.Notes, left...)
	p.ClusterID, err = identify(p.Members, p.Token)
	return err
}

func (p *Plan) planTargets(context.Context) error {
	if p.req.OutputDir != "" {
		for _, m := range p.Members {
			if m.Name != filepath.Base(m.Name) || m.Name == "." || m.Name == ".." {
				return fmt.Errorf("member name %q cannot be a folder's name", m.Name)
			}
			t, err := newTarget(m, filepath.Join(p.req.OutputDir, m.Name), "")
			if err != nil {
				return err
			}
			p.Targets = append(p.Targets, t)
		}
		return nil
	}
	m, ok := memberNamed(p.Members, p.req.Name)
	if !ok {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("member %q is not in the initial cluster (%s): couldn't find local name in it", p.req.Name, names(p.Members))},
			"--name must be one of: %s", names(p.Members))
	}
	if err := sameURLs(m, p.req.PeerURLs); err != nil {
		return err
	}
	dir := p.req.DataDir
	if dir == "" {
		dir = m.Name + ".etcd"
	}
	t, err := newTarget(m, dir, p.req.WALDir)
	p.Targets = []Target{t}
	return err
}

func newTarget(m Member, dataDir, walDir string) (Target, error) {
	t := Target{Member: m}
	var err error
	if t.data, err = newSlot(dataDir, dataSlot); err != nil || walDir == "" {
		return t, err
	}
	wal, err := newSlot(walDir, walSlot)
	if err != nil {
		return t, err
	}
	snap := filepath.Join(t.data.dir, "member", "snap")
	if within(t.data.dir, wal.dir) || within(wal.dir, snap) || within(snap, wal.dir) {
		return t, fmt.Errorf("--wal-dir %s and --data-dir %s do not go together", wal.dir, t.data.dir)
	}
	rel, err := filepath.Rel(t.data.dir, wal.dir)
	if err != nil {
		return t, err
	}
	t.walDir = wal.dir
	switch {
	case !within(wal.dir, t.data.dir):
		t.wal = wal
	case wal.inside && filepath.Dir(rel) == ".":
		// Another disk that is mounted in the data directory.
		t.wal = wal
		t.data.exclude(rel)
	case rel == t.data.wal:
		t.walDir = ""
	default:
		t.data.wal = rel
	}
	return t, nil
}

// sameURLs refuses advertised URLs that are not those of the initial cluster:
// the member would not find itself in it.
func sameURLs(m Member, advertised []string) error {
	if len(advertised) == 0 {
		return nil
	}
	a, b := slices.Sorted(slices.Values(advertised)), slices.Sorted(slices.Values(m.PeerURLs))
	if slices.Equal(a, b) {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("--initial-advertise-peer-urls=%s, but --initial-cluster has %s for member %s",
		strings.Join(a, ","), strings.Join(b, ","), m.Name)},
		"make the two agree, or leave --initial-advertise-peer-urls out")
}

func (p *Plan) checkRevisions(context.Context) error {
	if (p.req.BumpRevision > 0) != p.req.MarkCompacted {
		return errors.New("--bump-revision and --mark-compacted go together")
	}
	// The server adds 1 to it.
	if p.req.BumpRevision >= math.MaxInt64-uint64(p.Source.Revision) {
		return fmt.Errorf("--bump-revision %d goes past the largest revision", p.req.BumpRevision)
	}
	return nil
}

func (p *Plan) note() {
	p.Notes = append(p.Notes, p.Source.Warnings...)
	for _, a := range p.Source.Alarms {
		if p.req.ClearAlarms {
			p.Notes = append(p.Notes, fmt.Sprintf("alarm %s of the old member %s is cleared", a.Type, a.MemberID))
		} else {
			p.Notes = append(p.Notes, fmt.Sprintf("alarm %s of the old member %s comes along and will be in force: --clear-alarms removes it", a.Type, a.MemberID))
		}
	}
	if p.Source.AuthEnabled {
		p.Notes = append(p.Notes, "auth is enabled in this snapshot: the restored cluster asks for the users and passwords of that time")
	}
	if p.Source.Leases > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d leases begin their full time to live anew", p.Source.Leases))
	}
}

// WriteTo prints the plan for people.
func (p *Plan) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "restore %s\n", p.Source.Name)
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "  revision\t%s\n", p.revision())
	fmt.Fprintf(tw, "  cluster\t%s\n", p.ClusterID)
	fmt.Fprintf(tw, "  token\t%s\n", p.Token)
	for _, m := range p.Members {
		fmt.Fprintf(tw, "  member\t%s (%s) %s\n", m.Name, m.ID, strings.Join(m.PeerURLs, ","))
	}
	for _, t := range p.Targets {
		fmt.Fprintf(tw, "  data directory\t%s (%s)%s\n", t.data.dir, t.Member.Name, t.data.describe())
		if t.wal != nil {
			fmt.Fprintf(tw, "  WAL directory\t%s (%s)%s\n", t.wal.dir, t.Member.Name, t.wal.describe())
		}
	}
	_ = tw.Flush() // a strings.Builder takes everything
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (p *Plan) revision() string {
	if p.req.BumpRevision == 0 {
		return p.Source.Revision.String()
	}
	return fmt.Sprintf("%d, bumped by %d and marked compacted", p.Source.Revision, p.req.BumpRevision)
}

// InitialCluster is the new cluster as etcd's --initial-cluster takes it.
func (p *Plan) InitialCluster() string { return FormatMembers(p.Members) }

// Summary is a plan for machines.
type Summary struct {
	Source    string          `json:"source"`
	Revision  backup.Revision `json:"revision"`
	ClusterID backup.MemberID `json:"clusterID"`
	Token     string          `json:"token"`
	Members   []backup.Member `json:"members"`
	Targets   []SummaryTarget `json:"targets"`
	Notes     []string        `json:"notes"`
}

// SummaryTarget is one data directory.
type SummaryTarget struct {
	Name    string `json:"name"`
	DataDir string `json:"dataDir"`
	WALDir  string `json:"walDir,omitempty"`
}

// Summary returns what p does in a form that encodes to JSON.
func (p *Plan) Summary() Summary {
	s := Summary{Source: p.Source.Name, Revision: p.Source.Revision, ClusterID: p.ClusterID, Token: p.Token, Notes: append([]string{}, p.Notes...)}
	for _, m := range p.Members {
		s.Members = append(s.Members, backup.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs})
	}
	for _, t := range p.Targets {
		s.Targets = append(s.Targets, SummaryTarget{t.Member.Name, t.DataDir(), t.WALDir()})
	}
	return s
}
