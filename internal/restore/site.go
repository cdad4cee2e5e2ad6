package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// Site describes one host of a restore: the members that it gets, their folders,
// and the risks that the operator allows. It has the fields of etcdutl's flags of
// the same names, and a few more.
type Site struct {
	Name    string
	DataDir string // empty means <name>.etcd
	WALDir  string // empty means <data dir>/member/wal
	// PeerURLs are this member's advertised URLs; empty means those that the
	// plan has for it.
	PeerURLs []string
	// OutputDir, if set, is the folder that gets the data directories of all
	// members, one folder each. Name and DataDir are then not used.
	OutputDir string
	// Places, if there are any, are where all members go that are restored here. The fields
	// above are then not used.
	Places []LocalPlace

	// Kept are files and folders that must stay where they are.
	Kept []inuse.Kept

	// Owner is the owner of everything restored; nil means the owner of the folder
	// that is replaced, or the user of this process.
	Owner *Owner
	// Replace moves data that is in the way aside. Without it such data is a
	// refusal.
	Replace bool
	// Notes are facts on this host that the operator should know before the restore, and
	// Start is the command that starts the member here, if the caller knows it.
	Notes []string
	Start string
	// AllowRunning restores even if something listens on a peer URL.
	AllowRunning bool
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Target is one member's data directory.
type Target struct {
	Member backup.Member
	// DataDir is where the member's data directory will be.
	DataDir string
	// WALDir is where the member's WAL will be, if not in its usual place in
	// the data directory.
	WALDir string

	data  *folder
	wal   *folder // nil when the WAL is built with the data directory
	owner *Owner  // of its place

	givenWAL bool // somebody has said where its WAL is
}

// Check checks whether p can be done on this host. It changes nothing. It returns
// a [*backup.RefusedError] if that would put data at risk.
func (s *Site) Check(ctx context.Context, p *Plan) (*Work, error) {
	for _, g := range s.given() {
		if err := inuse.Apart(g.flag, g.dir, s.Kept); err != nil {
			return nil, err
		}
	}
	w := &Work{Plan: p, site: *s, notes: slices.Clone(s.Notes)}
	var err error
	if w.Targets, err = s.targets(p); err != nil {
		return nil, err
	}
	for _, t := range w.Targets {
		// A link in an output directory leads out of it.
		if err := inuse.Apart("the data directory of "+t.Member.Name+":", t.DataDir, s.Kept); err != nil {
			return nil, err
		}
		if err := s.checkTarget(ctx, t); err != nil {
			return nil, err
		}
		t.noteStrays(w)
		if err := w.checkOldWAL(t); err != nil {
			return nil, err
		}
	}
	w.notes = append(w.notes, s.ownerNotes(w.Targets)...)
	return w, checkSpace(w.Targets, p.Source.Bytes)
}

// targets returns the members that are restored here, with their folders as they
// are now.
func (s *Site) targets(p *Plan) ([]Target, error) {
	mounts, err := disk.Mounts()
	if err != nil {
		return nil, err
	}
	if len(s.Places) > 0 {
		return s.placed(p, mounts)
	}
	if s.OutputDir == "" {
		m, err := s.member(p)
		if err != nil {
			return nil, err
		}
		t, err := newTarget(m, s.dataDir(), s.WALDir, mounts)
		t.givenWAL = s.WALDir != ""
		return []Target{t}, err
	}
	var out []Target
	for _, m := range p.Members {
		if m.Name != filepath.Base(m.Name) || m.Name == "." || m.Name == ".." {
			return nil, fmt.Errorf("member name %q cannot be a folder's name", m.Name)
		}
		t, err := newTarget(m, filepath.Join(s.OutputDir, m.Name), "", mounts)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// given returns the folders of s with the flags that gave them.
func (s *Site) given() (out []struct{ flag, dir string }) {
	for _, at := range s.Places {
		out = append(out, struct{ flag, dir string }{"the data directory of " + at.Member + ":", at.DataDir},
			struct{ flag, dir string }{"the WAL directory of " + at.Member + ":", at.WALDir})
	}
	if out != nil {
		return out
	}
	if s.OutputDir != "" {
		return []struct{ flag, dir string }{{"--output-dir", s.OutputDir}}
	}
	return []struct{ flag, dir string }{{"--data-dir", s.dataDir()}, {"--wal-dir", s.WALDir}}
}

func (s *Site) dataDir() string {
	if s.DataDir == "" {
		return s.Name + ".etcd"
	}
	return s.DataDir
}

// member returns the one member that is restored here.
func (s *Site) member(p *Plan) (backup.Member, error) {
	i := slices.IndexFunc(p.Members, func(m backup.Member) bool { return m.Name == s.Name })
	if i < 0 {
		all := members.Names(p.Members)
		return backup.Member{}, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %q is not in the initial cluster (%s): couldn't find local name in it", s.Name, all)},
			"--name must be one of: %s", all)
	}
	return p.Members[i], members.CheckAdvertised(p.Members[i], s.PeerURLs)
}

// newTarget decides which folders make up the member's data directory and WAL.
func newTarget(m backup.Member, dataDir, walDir string, mounts []disk.Mount) (t Target, err error) {
	t.Member = m
	if t.DataDir, err = publish.Resolve(dataDir); err != nil {
		return t, err
	}
	data := place{kind: dataFolder, dir: t.DataDir, wal: usualWAL}
	if walDir == "" {
		t.data, err = newFolder(data, mounts)
		return t, err
	}
	if t.WALDir, err = publish.Resolve(walDir); err != nil {
		return t, err
	}
	if err := checkApart(t.DataDir, t.WALDir); err != nil {
		return t, err
	}
	wal, err := newFolder(place{kind: walFolder, dir: t.WALDir, wal: "."}, mounts)
	if err != nil {
		return t, err
	}
	rel, err := filepath.Rel(t.DataDir, t.WALDir)
	if err != nil {
		return t, err
	}
	switch {
	case !disk.Within(t.WALDir, t.DataDir):
		t.wal = wal
	case wal.Inside && filepath.Dir(rel) == ".":
		// Another disk is mounted in the data directory.
		t.wal = wal
		data.stays = rel
	case rel == usualWAL:
		t.WALDir = ""
	default:
		data.wal = rel
	}
	t.data, err = newFolder(data, mounts)
	return t, err
}

// checkApart refuses a WAL directory whose path collides with the data directory.
func checkApart(dataDir, walDir string) error {
	snap := filepath.Join(dataDir, "member", "snap")
	if disk.Within(dataDir, walDir) || disk.Within(walDir, snap) || disk.Within(snap, walDir) {
		return fmt.Errorf("--wal-dir %s and --data-dir %s do not go together", walDir, dataDir)
	}
	return nil
}

func (t Target) folders() []*folder {
	if t.wal == nil {
		return []*folder{t.data}
	}
	return []*folder{t.data, t.wal}
}

// ownerOf returns the future owner of everything in f.
func (s *Site) ownerOf(t Target, f *folder) Owner {
	switch {
	case s.Owner != nil:
		return *s.Owner
	case t.owner != nil:
		return *t.owner
	case f.owner != nil:
		return *f.owner
	}
	// One server uses both.
	for _, other := range t.folders() {
		if other.owner != nil {
			return *other.owner
		}
	}
	return Owner{os.Geteuid(), os.Getegid()}
}

// ownerNotes say that data will be root's only because nobody has said whose it is.
func (s *Site) ownerNotes(targets []Target) (notes []string) {
	if s.Owner != nil || os.Geteuid() != 0 {
		return nil
	}
	for _, t := range targets {
		if t.owner == nil && !slices.ContainsFunc(t.folders(), func(f *folder) bool { return f.owner != nil }) {
			notes = append(notes, fmt.Sprintf("%s will belong to root: if etcd runs as another user, it cannot read it: "+
				"give --chown USER:GROUP, or afterwards: %s", t.DataDir, "chown -R USER:GROUP "+t.DataDir))
		}
	}
	return notes
}

// Dirs lists all folders to which a restore on this site may have been
// interrupted. It needs no plan: the output directory shows which members it has.
func (s *Site) Dirs() ([]string, error) {
	if s.OutputDir != "" {
		return publish.Targets(s.OutputDir)
	}
	all := []string{s.dataDir(), s.WALDir}
	if len(s.Places) > 0 {
		all = nil
	}
	for _, at := range s.Places {
		all = append(all, at.DataDir, at.WALDir)
	}
	var out []string
	for _, dir := range all {
		if dir == "" {
			continue
		}
		abs, err := publish.Resolve(dir)
		if err != nil {
			return nil, err
		}
		out = append(out, abs)
	}
	return out, nil
}
