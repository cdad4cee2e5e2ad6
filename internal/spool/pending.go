package spool

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

const (
	// maxAge is how old a pending snapshot may get that is not the newest of its cluster.
	maxAge = 7 * 24 * time.Hour
	// maxPending is how many may wait of one cluster for one repository.
	maxPending = 3

	format          = "backupd/pending/v1"
	maxPendingBytes = 2 * backup.MaxManifestBytes // of the file
	pendingSuffix   = ".pending.json"
)

var pendingPattern = regexp.MustCompile(`^(backupd-[a-z2-7]{12})\.pending\.json(\.tmp)?$`)

// Pending is a snapshot that waits in a spool: its database was received,
// inspected and compared, but not stored.
type Pending struct {
	Path string `json:"-"` // of the spool
	// Repository is the id of the repository that it is for. It must go to no other.
	Repository string `json:"repository"`
	// Capture is what is known of it. A manifest says more: how the data is
	// stored, and the timeline, which depends on the snapshots that are stored by
	// then.
	Capture backup.Capture `json:"capture"`
	Tries   int            `json:"tries"` // that failed
	Reason  string         `json:"reason,omitempty"`
}

// Why returns why the snapshot is not stored yet, as far as that is known.
func (p *Pending) Why() string {
	if p.Tries == 0 {
		return "the process that received it ended before it was stored"
	}
	return p.Reason
}

// owner is a cluster and the repository that its snapshots go to.
type owner struct{ cluster, repository string }

func (p *Pending) owner() owner { return owner{p.Capture.Cluster, p.Repository} }

func (p *Pending) expired(now time.Time) bool { return now.Sub(p.Capture.StartedAt) > maxAge }

// check returns why it cannot become a snapshot, or nil.
func (p *Pending) check() error {
	if p.Repository == "" {
		return errors.New("no repository")
	}
	return p.Capture.Validate()
}

// document is a [Pending] as it is written. It has a checksum, so that no byte
// changes unseen: its content becomes a manifest.
type document struct {
	Format  string          `json:"format"`
	SHA256  backup.Digest   `json:"sha256"` // of Pending, as its bytes are in the file
	Pending json.RawMessage `json:"pending"`
}

// unknownFormatError is returned for a file that another version wrote.
type unknownFormatError struct{ format string }

func (e *unknownFormatError) Error() string {
	return fmt.Sprintf("format %q is not known to this version (it reads %q)", e.format, format)
}

func pendingPath(spool string) string { return strings.TrimSuffix(spool, spoolSuffix) + pendingSuffix }

// Remember writes the file beside the spool, with which another process can store
// it.
func (s *File) Remember(repository string, c backup.Capture) error {
	if err := s.GaveWay(); err != nil {
		return err
	}
	p := &Pending{Path: s.path, Repository: repository, Capture: c}
	if err := p.write(); err != nil {
		return err
	}
	s.pending = p
	return nil
}

// Leave leaves a spool that could not be stored in the folder for another try, and
// closes it. Remember must have been called. It returns what is pending. An error
// says that it may not survive a power cut.
func (s *File) Leave(reason error) (Pending, error) {
	s.pending.Tries, s.pending.Reason = s.pending.Tries+1, reason.Error()
	// If the write fails, the file that was written before is still there. The
	// sync comes only now: while all goes well nothing has to reach the disk,
	// which may be the one that an etcd waits for.
	return *s.pending, errors.Join(s.pending.write(), disk.SyncFile(s.f), s.f.Close())
}

// write writes the file beside the spool durably and as a whole. The caller holds the spool's lock.
func (p *Pending) write() error {
	if err := p.check(); err != nil {
		return fmt.Errorf("remember pending spool: %w", err)
	}
	raw, err := json.Marshal(p)
	if err == nil {
		raw, err = json.Marshal(document{format, sha256.Sum256(raw), raw})
	}
	if err != nil {
		return fmt.Errorf("encode pending spool: %w", err)
	}
	if err := disk.WriteFile(pendingPath(p.Path), append(raw, '\n')); err != nil {
		return fmt.Errorf("remember pending spool: %w", err)
	}
	return nil
}

// readPending reads the file beside a spool. It does not check who wrote it: see
// [checkOurs].
func readPending(spool string) (*Pending, error) {
	f, err := disk.OpenRegular(pendingPath(spool), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxPendingBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	p, err := parsePending(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", pendingPath(spool), err)
	}
	p.Path = spool
	return p, nil
}

func parsePending(raw []byte) (*Pending, error) {
	if len(raw) > maxPendingBytes {
		return nil, backup.Corruptf("more than %d bytes", maxPendingBytes)
	}
	// The format is checked first: in another format the rest may mean anything.
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if head.Format != format {
		return nil, &unknownFormatError{head.Format}
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if got := backup.Digest(sha256.Sum256(d.Pending)); got != d.SHA256 {
		return nil, backup.Corruptf("its sha256 is %s, its bytes make %s", d.SHA256, got)
	}
	var p Pending
	if err := json.Unmarshal(d.Pending, &p); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	return &p, nil
}

// checkOurs returns an error if another user may have written a spool or the file
// beside it. Otherwise somebody who may write to a shared temporary folder could
// have any database stored as a backup.
func checkOurs(spool string) error {
	for _, path := range []string{spool, pendingPath(spool)} {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
			return fmt.Errorf("%s has mode %v: "+
				"want a file that belongs to this process's user and that nobody else may read or "+
				"write", path, info.Mode())
		}
	}
	return nil
}

// entry is one pending spool, or the error of reading the file beside it.
type entry struct {
	path    string
	pending *Pending
	err     error
}

// entries lists the pending spools, the oldest first, and after them those that
// cannot be used.
func (f *Folder) entries() ([]entry, error) {
	files, err := os.ReadDir(f.Path())
	if err != nil {
		return nil, fmt.Errorf("look for pending spools: %w", err)
	}
	var out []entry
	for _, file := range files {
		name := pendingPattern.FindStringSubmatch(file.Name())
		if name == nil || name[2] != "" {
			continue
		}
		e := entry{path: filepath.Join(f.Path(), name[1]+spoolSuffix)}
		if e.err = checkOurs(e.path); e.err == nil {
			e.pending, e.err = readPending(e.path)
		}
		if errors.Is(e.err, os.ErrNotExist) {
			continue // stored or dropped a moment ago
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b entry) int { return a.since().Compare(b.since()) })
	return out, nil
}

// since returns when the snapshot was begun. A snapshot that cannot be read sorts
// last.
func (e entry) since() time.Time {
	if e.err != nil {
		return time.Unix(1<<40, 0)
	}
	return e.pending.Capture.StartedAt
}

// newestOf returns the paths of the spools that hold the newest data of their owner.
// Of the entries of one cluster id that is the one with the highest raft index: a clock
// that ran ahead gave another one a later time.
func newestOf(all []entry) map[string]bool {
	newest := map[owner]entry{}
	for _, e := range slices.Backward(all) { // the one that was begun last comes first
		if e.err != nil {
			continue
		}
		of, here := e.pending.owner(), e.pending.Capture
		best, ok := newest[of]
		if !ok || best.pending.Capture.ClusterID == here.ClusterID && best.pending.Capture.RaftIndex < here.RaftIndex {
			newest[of] = e
		}
	}
	out := map[string]bool{}
	for _, e := range newest {
		out[e.path] = true
	}
	return out
}

// All lists the pending snapshots in the folder, of all clusters, the oldest
// first.
func (f *Folder) All() ([]Pending, error) {
	all, err := f.entries()
	if err != nil {
		return nil, err
	}
	var out []Pending
	for _, e := range all {
		if e.err == nil {
			out = append(out, *e.pending)
		}
	}
	return out, nil
}

// Waiting lists the pending snapshots, except those that a process is storing for
// the first time.
func (f *Folder) Waiting() ([]Pending, error) {
	all, err := f.All()
	return slices.DeleteFunc(all, func(p Pending) bool { return p.Tries == 0 && disk.InUse(p.Path) }), err
}
