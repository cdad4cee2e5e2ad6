// Package again says what a restore finds that runs at every start of its pod, a year later
// too: whose data is in the folder already. It asks the data itself, by the WAL, which is what
// etcd goes by: a file beside it could stay when the data is changed for other data. It reads
// two files and changes nothing.
package again

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// Cluster is the cluster that a restore makes, or has made.
type Cluster struct {
	// ID follows from the token and so, if a plan has sealed that, from all of the plan.
	ID      backup.MemberID
	Members []backup.Member
}

// Planned returns the cluster of a plan.
func Planned(p *restore.Plan) Cluster { return Cluster{p.ClusterID, p.Members} }

// Named returns the cluster with these members, in the form of --initial-cluster, and a token.
func Named(initialCluster, token string) (c Cluster, err error) {
	if c.Members, err = members.Parse(initialCluster); err == nil {
		c.ID, err = members.Identify(c.Members, token)
	}
	return c, err
}

// Member returns the member of that name.
func (c Cluster) Member(name string) (backup.Member, bool) {
	i := slices.IndexFunc(c.Members, func(m backup.Member) bool { return m.Name == name })
	if i < 0 {
		return backup.Member{}, false
	}
	return c.Members[i], true
}

// State is why nothing is restored.
type State string

// States.
const (
	// Restored: the restore that is asked for has made the member.
	Restored State = "restored"
	// Joined: the member has joined the cluster of that restore later.
	Joined State = "joined"
	// Joins: the member has no data. The running cluster has added it, and fills it.
	Joins State = "joins"
	// OtherHistory: the member is of a cluster that this restore has not made.
	OtherHistory State = "other-history"
	// AboveSize: the restore has fewer members than the StatefulSet has pods.
	AboveSize State = "above-size"
)

// Found is why nothing is restored.
type Found struct {
	State   State  `json:"state"`
	Member  string `json:"member"`
	DataDir string `json:"dataDir"`
	// ClusterID and MemberID are those of the data there; 0 if there is none.
	ClusterID backup.MemberID `json:"clusterID,omitempty"`
	MemberID  backup.MemberID `json:"memberID,omitempty"`
	// Text is the same for people.
	Text string `json:"text"`
}

// ErrNoWAL is a data directory with a member and without its WAL.
var ErrNoWAL = errors.New("no WAL")

// Look says whose data is in the folders of the named member, or nil if there is none and it is
// to be restored. It returns a [*backup.RefusedError] if the data is that of another member of
// the same cluster, or if nobody can say whose it is; that is an [ErrNoWAL] if there is no WAL.
func (c Cluster) Look(name, dataDir, walDir string) (*Found, error) {
	f := &Found{Member: name, DataDir: dataDir}
	m, in := c.Member(name)
	if !in && !c.above(name) {
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %q is not in the plan, and its name is not that of a pod above its size: etcd would begin a new, empty "+
				"cluster", name)}, "--name must be one of: %s", members.Names(c.Members))
	}
	at, err := look(dataDir, walDir)
	switch {
	case err != nil && in:
		return nil, err
	case err != nil || at == nil && !in:
		return f.is(AboveSize, "%s is a pod above the %d members of the plan: it joins by etcd's own means, and nothing "+
			"is restored", name, len(c.Members)), nil
	case at == nil:
		return nil, nil
	}
	f.ClusterID, f.MemberID = at.cluster, at.member
	other := slices.IndexFunc(c.Members, func(o backup.Member) bool { return o.ID == at.member })
	switch {
	case at.cluster != c.ID:
		return f.is(OtherHistory, "the member in %s is of another history (cluster %s, and this restore makes %s): it is "+
			"left alone", dataDir, at.cluster, c.ID), nil
	case in && at.member == m.ID:
		return f.is(Restored, "member %s in %s was made by this restore: nothing is to be done", name, dataDir), nil
	case other >= 0:
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s holds member %s of this restore, and not %s: if both run, there are two of it", dataDir,
			c.Members[other].Name, name)}, "is it the volume of the other member? give each pod its own")
	}
	return f.is(Joined, "the member in %s has joined the cluster of this restore later: nothing is to be done",
		dataDir), nil
}

// Joins says that the running cluster fills the named member.
func (c Cluster) Joins(name, dataDir string) *Found {
	f := &Found{Member: name, DataDir: dataDir}
	return f.is(Joins, "the running cluster has added %s anew, and fills it: nothing is restored", name)
}

func (f *Found) is(s State, format string, args ...any) *Found {
	f.State, f.Text = s, fmt.Sprintf(format, args...)
	return f
}

// RefuseOther returns a [*backup.RefusedError] if the data is of another history.
func (f *Found) RefuseOther() error {
	if f.State != OtherHistory {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: f.Text + ", and --require-this wants this one"},
		"to put this restore in its place: the same command without --if-empty, with --replace; to keep it: leave "+
			"--require-this out")
}

var ordinal = regexp.MustCompile(`^(.+)-(0|[1-9][0-9]{0,5})$`)

// above reports whether name is that of a pod of the StatefulSet whose first pods are the
// members.
func (c Cluster) above(name string) bool {
	is := ordinal.FindStringSubmatch(name)
	if is == nil {
		return false
	}
	n, _ := strconv.Atoi(is[2])
	for _, m := range c.Members {
		of := ordinal.FindStringSubmatch(m.Name)
		if of == nil || of[1] != is[1] {
			return false
		}
		if k, _ := strconv.Atoi(of[2]); k >= n {
			return false
		}
	}
	return true
}

// leastDatabase is how many bytes every database of etcd has: four pages.
const leastDatabase = 4 * 4096

// look returns the member in the folders, or nil if there is none.
func look(dataDir, walDir string) (*identity, error) {
	member := filepath.Join(dataDir, "member")
	st, err := os.Stat(member)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("look for a member: %w", err)
	case err == nil && !st.IsDir():
		return nil, &backup.RefusedError{Reason: fmt.Sprintf("%s is not a directory", member)}
	}
	wal := cmp.Or(walDir, filepath.Join(member, "wal"))
	segment, werr := newest(wal)
	if werr != nil {
		return nil, werr
	}
	switch {
	case err != nil && segment == "":
		return nil, nil
	case err != nil:
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s has the WAL of a member, and %s has no data of one: half of it is lost, or a volume is not mounted", wal,
			dataDir)}, "mount it; if the data is lost, move the WAL away and replace the member: backupd member replace")
	case segment == "":
		return nil, &noWALError{dataDir, wal}
	}
	// Without its database etcd starts with nothing, or with what its log has; if it is damaged
	// in another way, etcd says so itself.
	db := filepath.Join(member, "snap", "db")
	st, err = os.Stat(db)
	if err == nil && (!st.Mode().IsRegular() || st.Size() < leastDatabase) || errors.Is(err, fs.ErrNotExist) {
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s has the WAL of a member, and its database %s is lost: half of it is lost, and etcd would start without "+
				"the data", wal, db)}, "if the cluster runs, replace the member: backupd member replace; if all is lost, "+
			"move the folder away, and it is restored")
	}
	if err != nil {
		return nil, fmt.Errorf("look for the database: %w", err)
	}
	return read(segment)
}

// noWALError is a [ErrNoWAL]. It is a refusal.
type noWALError struct{ dataDir, wal string }

func (e *noWALError) refusal() *backup.RefusedError {
	return &backup.RefusedError{Reason: fmt.Sprintf(
		"%s has the data of a member, and %s has no WAL, which says whose it is", e.dataDir, e.wal)}
}

// Error implements error.
func (e *noWALError) Error() string { return e.refusal().Error() }

// Unwrap makes it a refusal, with what can be done.
func (e *noWALError) Unwrap() []error {
	return []error{ErrNoWAL, backup.WithHint(e.refusal(),
		"give the server's --wal-dir, if it has one, and mount it; if etcd was ended "+
			"in its first moment in an empty folder, or the WAL is lost for good, "+
			"move the folder away")}
}
