package replace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kballard/go-shellquote"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// folders are the data directory of the member, and the WAL directory if that is elsewhere.
type folders struct {
	dataDir, walDir string // walDir is empty if the WAL is in the usual place
	// usual says that the operator has named the usual place. Of data without a WAL it says nothing.
	usual bool
	// known says that the member's own settings say where the WAL is.
	known bool
	// keeps is an entry of the data directory that is not moved with it: the mount point of
	// the WAL. below is one that is: the WAL at an unusual place.
	keeps, below string
	apart        bool // the WAL directory is moved on its own
	// strays are entries that are moved, and are not etcd's. They are few, and named: the server
	// may need them.
	strays []string
	// owner is that of the new, empty folders; nil leaves them as they are.
	owner *Owner
}

var usualWAL = filepath.Join("member", "wal")

func newFolders(dataDir, walDir string) (*folders, error) {
	f := &folders{}
	var err error
	if f.dataDir, err = publish.Resolve(dataDir); err != nil {
		return nil, err
	}
	if walDir == "" {
		return f, nil
	}
	if f.walDir, err = publish.Resolve(walDir); err != nil {
		return nil, err
	}
	snap := filepath.Join(f.dataDir, "member", "snap")
	if disk.Within(f.dataDir, f.walDir) || disk.Within(f.walDir, snap) || disk.Within(snap, f.walDir) {
		return nil, fmt.Errorf("--wal-dir %s and --data-dir %s do not go together", f.walDir, f.dataDir)
	}
	if !disk.Within(f.walDir, f.dataDir) {
		f.apart = true
		return f, nil
	}
	rel, err := filepath.Rel(f.dataDir, f.walDir)
	if err != nil {
		return nil, err
	}
	if rel == usualWAL {
		f.walDir, f.usual = "", true
		return f, nil
	}
	mounts, err := disk.Mounts()
	if err != nil {
		return nil, err
	}
	mounted := slices.ContainsFunc(mounts, func(m disk.Mount) bool { return m.Point == f.walDir })
	if mounted && filepath.Dir(rel) == "." { // another disk is mounted in the data directory
		f.apart, f.keeps = true, rel
	} else {
		f.below, _, _ = strings.Cut(rel, string(filepath.Separator))
	}
	return f, nil
}

func (f *folders) String() string {
	if f.apart {
		return f.dataDir + " and " + f.walDir
	}
	return f.dataDir
}

// wal is where the WAL is.
func (f *folders) wal() string {
	if f.walDir != "" {
		return f.walDir
	}
	return filepath.Join(f.dataDir, usualWAL)
}

// oldWAL says, of a member that was started, that its WAL is elsewhere.
func (f *folders) oldWAL() string { return inuse.OldWAL(f.dataDir, f.wal()) }

// places are the folders as they are now, the data directory first.
func (f *folders) places() ([]*publish.Folder, error) {
	mounts, err := disk.Mounts()
	if err != nil {
		return nil, err
	}
	data, err := publish.NewFolder(publish.Place{Dir: f.dataDir, Heart: "member", Keep: f.keeps}, mounts)
	if err != nil || !f.apart {
		return []*publish.Folder{data}, err
	}
	wal, err := publish.NewFolder(publish.Place{Dir: f.walDir}, mounts)
	return []*publish.Folder{data, wal}, err
}

// contents is what a folder holds.
type contents struct {
	entries []string        // that would be moved
	member  backup.MemberID // whose data it is, by its WAL; 0 if that does not tell
	cluster backup.MemberID
	used    bool // a server runs on it
}

func (c contents) any() bool { return len(c.entries) > 0 }

// missing says that there is no data of the member: its disk is lost, or its folder is another
// one, which nobody but the operator can tell.
func (f *folders) missing(s *state) string {
	if s.held.any() {
		return ""
	}
	how := "is empty"
	if _, err := os.Stat(f.dataDir); errors.Is(err, fs.ErrNotExist) {
		how = "does not exist"
	}
	text := fmt.Sprintf("%s %s. If the member's disk was lost, that is right. If it is a typo, stop now: the old data, "+
		"wherever it is, is not moved aside, and the new member is expected in %s", f.dataDir, how, f.dataDir)
	if f.walDir == "" && !f.usual && !f.known {
		text += ". No --wal-dir was given: if the server has one (--wal-dir, ETCD_WAL_DIR, wal-dir in its configuration), " +
			"stop now, too, and give it: an old WAL there is not moved aside, and the new member would not start with it"
	}
	return text
}

func (f *folders) look() (c contents, err error) {
	places, err := f.places()
	if err != nil {
		return c, err
	}
	for _, p := range places {
		c.entries = append(c.entries, p.Old...)
	}
	for _, dir := range []string{f.dataDir, f.wal()} {
		used, err := inuse.Server(dir)
		if err != nil {
			return c, err
		}
		c.used = c.used || used
	}
	c.member, c.cluster = owner(f.wal())
	return c, nil
}

// owner reads from a WAL which member of which cluster has written it. What cannot be read
// tells nothing: a broken WAL is why members are replaced.
func owner(dir string) (member, cluster backup.MemberID) {
	segments, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	slices.Sort(segments)
	for _, path := range slices.Backward(segments) { // each begins with it
		if m := metadata(path); m != nil {
			return backup.MemberID(m.GetNodeID()), backup.MemberID(m.GetClusterID())
		}
	}
	return 0, 0
}

func metadata(path string) *pb.Metadata {
	file, err := disk.OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer file.Close() // only read
	decoder := wal.NewDecoder(fileutil.NewFileReader(file))
	for range 4 { // the checksum of the segment before stands first
		var rec walpb.Record
		if err := decoder.Decode(&rec); err != nil {
			return nil
		}
		var m pb.Metadata
		if rec.GetType() == wal.MetadataType && proto.Unmarshal(rec.Data, &m) == nil {
			return &m
		}
	}
	return nil
}

// check refuses folders that must not be moved, or cannot be.
func (f *folders) check(ctx context.Context, s *state) error {
	places, err := f.places()
	if err != nil {
		return err
	}
	if err := errors.Join(checkGive(f, Owner{os.Geteuid(), os.Getegid()}), checkWALMount(places)); err != nil {
		return err
	}
	f.strays = nil
	for i, p := range places {
		if err := f.checkPlace(ctx, p, i == 1); err != nil {
			return err
		}
	}
	_, snap := os.Stat(filepath.Join(f.dataDir, "member", "snap"))
	segments, _ := filepath.Glob(filepath.Join(f.dataDir, usualWAL, "*.wal"))
	if snap == nil && len(segments) == 0 && f.walDir == "" { // also if the usual place is named
		return backup.WithHint(&backup.RefusedError{Override: "--wal-dir", Reason: fmt.Sprintf(
			"%s has the data of a server and no WAL in member/wal: its WAL is elsewhere, and the new member would find it",
			f.dataDir)}, "give the server's --wal-dir (ETCD_WAL_DIR, wal-dir in its configuration), and the WAL there is "+
			"moved aside, too; if it has none, its WAL is lost: move the data away yourself (%s), and run the same command",
			away(f))
	}
	return f.checkOwner(s)
}

func (f *folders) checkPlace(ctx context.Context, p *publish.Folder, isWAL bool) error {
	if err := p.CheckJournal(); err != nil {
		return err
	}
	if err := inuse.Above(p.Dir); err != nil {
		return err
	}
	if p.Nested != "" {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s is a mount point in %s, which would have to be moved", p.Nested, p.Dir)}, "unmount it")
	}
	stays := func(name string) bool { return p.Inside && (publish.IsOurs(name) || name == p.Keep) }
	if err := inuse.Below(ctx, p.Dir, stays); err != nil {
		return err
	}
	foreign := inuse.ForeignData(p.Dir, p.Old, f.below)
	if isWAL {
		foreign = inuse.ForeignWAL(p.Dir, p.Old)
	}
	if foreign != nil && !foreign.Few() {
		return foreign.Refusal()
	}
	if foreign != nil {
		f.strays = append(f.strays, foreign.Names()...)
	}
	return p.Try(nil)
}

// checkOwner refuses a folder that holds the data of a member that is not replaced.
func (f *folders) checkOwner(s *state) error {
	h := s.held
	if h.cluster != 0 && h.cluster != s.clusterID {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s has data of another cluster: of member %s of cluster %s, and this is cluster %s", f.wal(), h.member,
			h.cluster, s.clusterID)},
			"%s right, and --endpoints? If it is old data that nobody needs, move it away yourself: %s", asked(f), away(f))
	}
	for _, m := range s.members {
		if h.member == m.ID && (s.target == nil || m.ID != s.target.ID) {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s has the data of member %s, which is not replaced", f.dataDir, nameOf(m))},
				"give the data directory of the dead member with --data-dir, and run this on its host")
		}
	}
	return nil
}

// asked is the question whether the flags that name the folders are right.
func asked(f *folders) string {
	if f.apart {
		return "are --data-dir and --wal-dir"
	}
	return "is --data-dir"
}

// away is the command that moves by hand what there is: the WAL may be all that is left.
func away(f *folders) string {
	var commands []string
	for _, dir := range []string{f.dataDir, f.walDir} {
		if _, err := os.Lstat(dir); err == nil && (dir == f.dataDir || f.apart) {
			commands = append(commands, shellquote.Join("mv", dir, dir+".old"))
		}
	}
	return strings.Join(commands, " && ")
}

// note is what a replacement leaves beside the folder while it is under way: what the cluster
// forgets when it removes the member.
type note struct {
	ClusterID  backup.MemberID `json:"clusterID"`
	Member     string          `json:"member"`
	ReplacedID backup.MemberID `json:"replacedID"`
	PeerURLs   []string        `json:"peerURLs"` // of the new member
	Begun      time.Time       `json:"startedAt"`
	// Differs names the member whose data the new one did not have when it was complete: if the
	// new one is stopped, it is to be replaced again.
	Differs string `json:"differs,omitempty"`
}

// age says when the replacement was begun.
func (n *note) age() string {
	return fmt.Sprintf("begun on %s UTC, %v ago", n.Begun.UTC().Format(time.DateTime),
		time.Since(n.Begun).Round(time.Second))
}

// notePaths are where a note can be: in the folder where that stays, or else beside it. A name
// in the folder is one of those that a restore leaves there.
func (f *folders) notePaths() [2]string {
	return [2]string{
		filepath.Join(f.dataDir, ".backupd-restore-member-replace.json"),
		filepath.Join(filepath.Dir(f.dataDir), "."+filepath.Base(f.dataDir)+".backupd-member-replace.json"),
	}
}

func (f *folders) notePath() string {
	places, err := f.places()
	if err == nil && places[0].Inside {
		return f.notePaths()[0]
	}
	return f.notePaths()[1]
}

func (f *folders) readNote() (*note, error) {
	for _, path := range f.notePaths() {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read what an earlier call has left: %w", err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			return nil, fmt.Errorf("read what an earlier call has left: %w", err)
		}
		if own := info.Sys().(*syscall.Stat_t); int(own.Uid) != os.Geteuid() {
			return nil, &backup.RefusedError{Reason: fmt.Sprintf("%s belongs to user %d", path, own.Uid)}
		}
		var n note
		if err := json.Unmarshal(raw, &n); err != nil {
			return nil, fmt.Errorf("read what an earlier call has left: decode %s: %w", path, err)
		}
		return &n, nil
	}
	return nil, nil
}

func (f *folders) writeNote(n note) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode note: %w", err)
	}
	if err := disk.WriteFile(f.notePath(), append(raw, '\n')); err != nil {
		return fmt.Errorf("note the peer URLs: %w", err)
	}
	return nil
}

// removeNote removes the note, and what killed calls have left.
func (f *folders) removeNote() error {
	places, err := f.places()
	errs := []error{err}
	for _, p := range places {
		errs = append(errs, p.Sweep())
	}
	for _, path := range f.notePaths() {
		if err := disk.Remove(path); err != nil && !errors.Is(err, syscall.ENOTDIR) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
