// Package replace replaces one dead member of a healthy cluster: it removes the member, moves
// its old data aside, adds it again as a learner, lets somebody start it, promotes it when it
// has caught up, and compares its data with another member's. It is the only package that
// changes a cluster, and only a person's command may call it.
//
// It has no plan that could be lost: before each step it asks the cluster and looks into the
// folder, and what they say is what comes next. So the same call goes on from wherever an
// earlier one was killed. What the cluster forgets with a removed member, its peer URLs, is
// in a small file beside the folder meanwhile.
package replace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// Step is what is done next.
type Step string

// The steps, in their order. A replacement that goes on begins with any of them.
const (
	Remove  Step = "remove"  // the dead member from the cluster
	Aside   Step = "aside"   // move the old data
	Add     Step = "add"     // a learner with the peer URLs
	Start   Step = "start"   // wait until the new member answers
	Promote Step = "promote" // wait until it has caught up; make it a voting member
	Compare Step = "compare" // its HashKV with that of another member
)

var order = []Step{Remove, Aside, Add, Start, Promote, Compare}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Options say which member is replaced, and what is allowed.
type Options struct {
	Name    string
	DataDir string // of the member, on this host
	WALDir  string // empty means <data dir>/member/wal
	// PeerURLs are those of the new member; empty means those of the old one.
	PeerURLs []string
	// Advertised are those that the member's own settings have; empty means that they are not
	// known. Without PeerURLs it is a [*URLsError] if the old member has others.
	Advertised []string
	// Owner is who the new member runs as: its empty folders are made for that user, and given
	// to it. Nil leaves them to their owner, and missing ones to etcd.
	Owner *Owner
	// FromFiles says that WALDir is what the member's own settings say, also if it is empty.
	FromFiles bool
	// Removed says that the old member was removed from the cluster by somebody: it needs
	// PeerURLs.
	Removed bool
	// AllowRunning replaces a member that answers, or whose peer URL does.
	AllowRunning bool
	// AllowMoreDown replaces the member although others do not answer either.
	AllowMoreDown bool
	// DryRun checks everything, and changes nothing.
	DryRun bool
	// Wait is how long the new member may make no progress: until it is started, and until
	// it has caught up. Zero means 30 minutes.
	Wait time.Duration
	// Ready is asked once, before anything is changed and in a dry run, too, unless the new member
	// has begun already. Its error, such as a refusal, ends the call. Nil agrees.
	Ready func(Settings) error
	// Waiting is called each minute of a wait, with who answers. Nil does nothing.
	Waiting func(text string)
	// Starter is asked once to start the member, or to let somebody do so. The channel
	// tells how the start has failed, or nil if that was all and a server may run; it may be nil.
	Starter func(context.Context, Settings) (failed <-chan error, err error)
	// Tell is called with each step, before it is done, and with what it is about.
	Tell func(step Step, text string)
	// Done is called when all is done, before that is forgotten: a call that is killed in it
	// is followed by one that calls it again. Nil does nothing.
	Done func(*Report) error
	Log  *slog.Logger // nil discards

	// before is called before each change. If it returns an error, the change is not made.
	before func(change string) error
	pause  time.Duration // between two looks
	every  time.Duration // between two calls of Waiting
}

// Settings are what the new member must be started with; all others are as they were.
type Settings struct {
	Name     string
	DataDir  string
	WALDir   string // empty: in the data directory
	PeerURLs []string
	// InitialCluster is the present list of members. The state of it is "existing".
	InitialCluster string
}

// Report says what was done, or would be.
type Report struct {
	Member    string          `json:"member"`
	ClusterID backup.MemberID `json:"clusterID"`
	// ReplacedID is the member that was removed, 0 if an earlier call did that.
	ReplacedID backup.MemberID `json:"replacedID,omitzero"`
	// MemberID is the new member, 0 while there is none.
	MemberID backup.MemberID `json:"memberID,omitzero"`
	PeerURLs []string        `json:"peerURLs"`
	DataDir  string          `json:"dataDir"`
	WALDir   string          `json:"walDir,omitempty"`
	OldData  []string        `json:"oldData"` // where data is that this call moved aside
	Steps    []Step          `json:"steps"`   // those that this call did, or that are left
	Notes    []string        `json:"notes"`
	// HashKV is what the new member and another one agree on.
	HashKV *backup.HashKV `json:"hashKV,omitempty"`
	// ComparedWith is that one's name.
	ComparedWith string   `json:"comparedWith,omitempty"`
	Settings     Settings `json:"-"`
}

// note adds a fact, once.
func (r *Report) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// run is one call of Run.
type run struct {
	cluster *cluster.Cluster
	o       Options
	folders *folders
	report  *Report
	asker   *asker
	judge   *judge

	took     time.Time // the last progress
	begun    Step      // that was told of
	failed   <-chan error
	goal     uint64    // the raft index that the learner must reach
	reached  uint64    // the one it had at the last look
	broken   error     // how the start has failed
	unready  time.Time // since when the cluster refuses
	finished bool
	quiet    bool      // the start has just ended without an error
	warned   bool      // that there is no data of the member that is removed
	ready    bool      // Ready has agreed
	waited   time.Time // when Waiting was called last
}

// Run replaces a member, or does what is left of it. It returns a [*backup.RefusedError], and
// has changed nothing, if the member is not dead, the others are not healthy or something else
// is being changed, and if the folder must not be moved. After any other error the same call
// goes on.
func Run(ctx context.Context, c *cluster.Cluster, o Options) (*Report, error) {
	o.setDefaults()
	if o.Removed && len(o.PeerURLs) == 0 {
		return nil, errors.New("the peer URLs of a removed member must be given")
	}
	folders, err := newFolders(o.DataDir, o.WALDir)
	if err != nil {
		return nil, ofMember(o.Name, err)
	}
	folders.owner, folders.known = o.Owner, o.FromFiles
	r := &run{cluster: c, o: o, folders: folders, took: time.Now(), report: &Report{
		Member: o.Name, DataDir: folders.dataDir, WALDir: folders.walDir,
		OldData: []string{}, Steps: []Step{}, Notes: []string{}, PeerURLs: []string{},
	}}
	r.asker = &asker{cluster: c, o: &r.o, folders: folders}
	r.judge = &judge{o: &r.o, folders: folders, report: r.report}
	if o.DryRun {
		if err := r.plan(ctx); err != nil {
			return nil, ofMember(o.Name, err)
		}
		return r.report, o.Done(r.report)
	}
	unlock, err := r.folders.lock()
	if err != nil {
		return nil, ofMember(o.Name, err)
	}
	err = r.all(ctx)
	if err != nil && ctx.Err() != nil && r.begun != "" {
		err = backup.WithHint(err, "%s. The same command goes on from here", standing(r))
	}
	return r.report, ofMember(o.Name, errors.Join(err, unlock()))
}

func (o *Options) setDefaults() {
	if o.Wait <= 0 {
		o.Wait = 30 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(Step, string) {}
	}
	if o.Starter == nil {
		o.Starter = func(context.Context, Settings) (<-chan error, error) { return nil, nil }
	}
	if o.Ready == nil {
		o.Ready = func(Settings) error { return nil }
	}
	if o.Waiting == nil {
		o.Waiting = func(string) {}
	}
	if o.Done == nil {
		o.Done = func(*Report) error { return nil }
	}
	if o.before == nil {
		o.before = func(string) error { return nil }
	}
	if o.pause <= 0 {
		o.pause = time.Second
	}
	if o.every <= 0 {
		o.every = time.Minute
	}
}

// ofMember says whose replacement an error is of, but for a refusal, which says it itself.
func ofMember(name string, err error) error {
	if err == nil || errors.As(err, new(*backup.RefusedError)) {
		return err
	}
	return fmt.Errorf("replace member %s: %w", name, err)
}

// all does step after step. What the cluster refuses for a moment, in an election, is tried
// again.
func (r *run) all(ctx context.Context) error {
	for {
		s, step, err := r.look(ctx)
		if err == nil {
			err = askReady(r, s, step)
		}
		if err == nil {
			r.begin(s, step)
			err = r.do(ctx, s, step)
			r.judge.doubtful = time.Time{}
		}
		if r.finished {
			return err
		}
		var unsettled *unsettledError
		switch {
		case err == nil:
			r.unready = time.Time{}
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &unsettled):
			return err
		case r.unready.IsZero():
			r.unready = time.Now()
		case time.Since(r.unready) > patience:
			return unsettled.err
		}
		r.o.Log.Info("trying again", "step", string(step), "err", err)
		if err := r.sleep(ctx); err != nil {
			return err
		}
	}
}

// patience is how long a cluster may refuse a change, or have no leader, in a row.
const patience = 20 * time.Second

// unsettledError is an error that may be over in a moment.
type unsettledError struct{ err error }

func (e *unsettledError) Error() string { return e.err.Error() }
func (e *unsettledError) Unwrap() error { return e.err }

// look finds out how things stand, and which step comes next.
func (r *run) look(ctx context.Context) (*state, Step, error) {
	s, err := r.asker.look(ctx)
	if err != nil {
		return nil, "", err
	}
	r.report.ClusterID, r.report.PeerURLs = s.clusterID, secret.Without(s.wanted)
	if t := s.target; t != nil && s.isNew(t) {
		r.report.MemberID = t.ID
	}
	step, err := r.judge.next(ctx, s)
	return s, step, err
}

func (r *run) sleep(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(r.o.pause):
		return nil
	}
}

// begin tells of a step once.
func (r *run) begin(s *state, step Step) {
	if step == r.begun {
		return
	}
	r.begun, r.took, r.waited = step, time.Now(), time.Now()
	r.report.Steps = append(r.report.Steps, step)
	r.o.Tell(step, describe(r.o.Name, r.folders, s, step)+afresh(r.folders, s, step))
}

func describe(name string, f *folders, s *state, step Step) string {
	switch step {
	case Remove:
		text := fmt.Sprintf("remove member %s (%s) from the cluster", name, s.target.ID)
		if beware := f.missing(s); beware != "" {
			text += ". BEWARE: " + beware
		}
		return text
	case Aside:
		text := fmt.Sprintf("move the old data in %s aside", f)
		if len(f.strays) > 0 {
			text += ", and what is not etcd's: " + strings.Join(f.strays, ", ")
		}
		return text
	case Add:
		return fmt.Sprintf("add member %s with %s as a learner", name, join(s.wanted))
	case Start:
		return fmt.Sprintf("start member %s", name)
	case Promote:
		return fmt.Sprintf("promote member %s when it has caught up", name)
	case Compare:
		return fmt.Sprintf("compare HashKV of member %s with another member's", name)
	}
	return ""
}

// afresh says, where the next step is the start of a member that votes already, that it is a new
// one, and how it is replaced all the same.
func afresh(f *folders, s *state, step Step) string {
	t := s.target
	if step != Start || t == nil || t.Learner || s.note == nil {
		return ""
	}
	return fmt.Sprintf(": it is the new one, %s, of a replacement %s, and votes; to replace it afresh instead, remove "+
		"%s, and run the same command", t.ID, s.note.age(), f.notePath())
}

// standing says how an interrupted call leaves the cluster, as far as it knows.
func standing(r *run) string {
	id := r.report.MemberID
	switch r.begun {
	case Remove:
		return fmt.Sprintf("the dead member %s is in the cluster, unless its removal was under way just now", r.o.Name)
	case Aside, Add:
		return fmt.Sprintf("the dead member %s was removed from the cluster, and the new one is not yet added: the cluster "+
			"has one member less", r.o.Name)
	case Start:
		return fmt.Sprintf("the new member %s (%s) was added to the cluster, and does not answer yet; what was started runs "+
			"on%s", r.o.Name, id, r.folders.oldWAL())
	case Promote:
		return fmt.Sprintf("the new member %s (%s) runs as a learner, and does not vote yet", r.o.Name, id)
	}
	return fmt.Sprintf("the new member %s (%s) votes; its data was not compared with another member's", r.o.Name, id)
}

// plan finds what Run would do.
func (r *run) plan(ctx context.Context) error {
	s, step, err := r.look(ctx)
	var unsettled *unsettledError
	for began := time.Now(); errors.As(err, &unsettled); s, step, err = r.look(ctx) {
		if time.Since(began) > patience {
			return unsettled.err
		}
		if err := r.sleep(ctx); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := askReady(r, s, step); err != nil {
		return err
	}
	if beware := r.folders.missing(s); step == Remove && beware != "" {
		r.report.note("%s", beware)
	}
	for _, next := range order[max(0, slices.Index(order, step)):] {
		if next == Aside && !s.held.any() {
			continue
		}
		if s.target == nil && next == Remove {
			continue
		}
		r.report.Steps = append(r.report.Steps, next)
		text, _, _ := strings.Cut(describe(r.o.Name, r.folders, s, next), ". BEWARE: ") // it is a note here
		if next == step {
			text += afresh(r.folders, s, step)
		}
		r.o.Tell(next, text)
	}
	r.report.Settings = settings(r.o.Name, r.folders, s)
	return nil
}

// settings are what the new member is started with, as the list of members is then.
func settings(name string, f *folders, s *state) Settings {
	list := slices.DeleteFunc(slices.Clone(s.members), func(m backup.Member) bool {
		return s.target != nil && m.ID == s.target.ID
	})
	list = append(list, backup.Member{Name: name, PeerURLs: s.wanted})
	slices.SortFunc(list, func(a, b backup.Member) int { return strings.Compare(a.Name, b.Name) })
	return Settings{
		Name: name, DataDir: f.dataDir, WALDir: f.walDir, PeerURLs: s.wanted,
		InitialCluster: members.Format(list),
	}
}

// lock keeps a second call for the same folder out.
func (f *folders) lock() (unlock func() error, err error) {
	at := f.notePath() + ".lock"
	file, err := disk.LockFile(at)
	if errors.Is(err, disk.ErrInUse) {
		return nil, &backup.RefusedError{Reason: fmt.Sprintf(
			"another 'member replace' that uses %s is running", f.dataDir)}
	}
	if err != nil {
		return nil, backup.WithHint(fmt.Errorf("lock the folder: %w", err),
			"is its disk mounted? %s must be there, and this user must be able to write in it", filepath.Dir(at))
	}
	return func() error { return errors.Join(disk.Remove(at), file.Close()) }, nil
}
