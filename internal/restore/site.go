package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
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

	// Owner is the owner of everything restored; nil means the owner of the folder
	// that is replaced, or the user of this process.
	Owner *Owner
	// Replace moves data that is in the way aside. Without it such data is a
	// refusal.
	Replace bool
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

	data *folder
	wal  *folder // nil when the WAL is built with the data directory
}

// Check checks whether p can be done on this host. It changes nothing. It returns
// a [*backup.RefusedError] if that would put data at risk.
func (s *Site) Check(ctx context.Context, p *Plan) (*Work, error) {
	w := &Work{Plan: p, site: *s}
	var err error
	if w.Targets, err = s.targets(p); err != nil {
		return nil, err
	}
	for _, t := range w.Targets {
		if err := s.checkTarget(ctx, t); err != nil {
			return nil, err
		}
	}
	return w, checkSpace(w.Targets, p.Source.Bytes)
}

// targets returns the members that are restored here, with their folders as they
// are now.
func (s *Site) targets(p *Plan) ([]Target, error) {
	mounts, err := publish.MountPoints()
	if err != nil {
		return nil, err
	}
	if s.OutputDir == "" {
		m, err := s.member(p)
		if err != nil {
			return nil, err
		}
		t, err := newTarget(m, s.dataDir(), s.WALDir, mounts)
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
		all := names(p.Members)
		return backup.Member{}, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %q is not in the initial cluster (%s): couldn't find local name in it", s.Name, all)},
			"--name must be one of: %s", all)
	}
	return p.Members[i], sameURLs(p.Members[i], s.PeerURLs)
}

// sameURLs refuses advertised URLs that are not those of the initial cluster:
// the member would not find itself in it.
func sameURLs(m backup.Member, advertised []string) error {
	if len(advertised) == 0 {
		return nil
	}
	a, b := slices.Sorted(slices.Values(advertised)), slices.Sorted(slices.Values(m.PeerURLs))
	if slices.Equal(a, b) {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"--initial-advertise-peer-urls=%s, but --initial-cluster has %s for member %s",
		strings.Join(a, ","), strings.Join(b, ","), m.Name)},
		"make the two agree, or leave --initial-advertise-peer-urls out")
}

// newTarget decides which folders make up the member's data directory and WAL.
func newTarget(m backup.Member, dataDir, walDir string, mounts []string) (t Target, err error) {
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
	case !publish.Within(t.WALDir, t.DataDir):
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
	if publish.Within(dataDir, walDir) || publish.Within(walDir, snap) || publish.Within(snap, walDir) {
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

// dirs lists all folders to which a restore on this site may have been
// interrupted. It needs no plan: the output directory shows which members it has.
func (s *Site) dirs() ([]string, error) {
	if s.OutputDir != "" {
		return publish.Targets(s.OutputDir)
	}
	var out []string
	for _, dir := range []string{s.dataDir(), s.WALDir} {
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
