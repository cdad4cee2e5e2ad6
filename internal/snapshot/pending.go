package snapshot

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

// PendingSpool is a database that was received, inspected and compared, but not
// stored. It lies in a spool until [Taker.StorePending] stores it.
type PendingSpool struct {
	Path       string // of the spool
	Cluster    string
	Repository string    // id of the only repository it may go to
	Since      time.Time // when the snapshot was begun
	Bytes      int64
	Tries      int    // that failed
	Reason     string // why the last try failed, as far as anybody could tell
}

// PendingError is returned by [Taker.Take] when the snapshot was received but
// not stored, and is kept. Another Take would ask etcd for another stream;
// [Taker.StorePending] will not.
type PendingError struct {
	Spool PendingSpool
	Err   error // why it could not be stored
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("%v (what was received is kept in %s)", e.Err, e.Spool.Path)
}

func (e *PendingError) Unwrap() error { return e.Err }

const (
	// maxPendingAge is how old a pending snapshot may get.
	maxPendingAge = 7 * 24 * time.Hour
	// maxPending is how many are kept of one cluster for one repository.
	maxPending = 3

	pendingFormat   = "backupd/pending/v1"
	maxPendingBytes = 2 * backup.MaxManifestBytes // of a record's file

	spoolSuffix  = ".spool"
	recordSuffix = ".pending.json"
)

var recordPattern = regexp.MustCompile(`^(backupd-[a-z2-7]{12})\.pending\.json(\.tmp)?$`)

// pendingRecord lies beside a spool whose database only has to be stored. It is
// written before the store has answered: nobody can write it after a kill -9.
type pendingRecord struct {
	Repository string `json:"repository"`
	// Manifest lacks what storing will tell, and the timeline: that depends on
	// what else is stored by then.
	Manifest *backup.Manifest `json:"manifest"`
	Tries    int              `json:"tries"`
	Reason   string           `json:"reason,omitempty"`
}

// pendingFile is a record as it is written. No byte of it may change unseen:
// it becomes a manifest.
type pendingFile struct {
	Format string          `json:"format"`
	SHA256 backup.Digest   `json:"sha256"` // of Record, as its bytes stand there
	Record json.RawMessage `json:"record"`
}

// unknownRecordError is returned for a record that another version wrote.
type unknownRecordError struct{ format string }

func (e *unknownRecordError) Error() string {
	return fmt.Sprintf("format %q is not known to this version (it reads %q)", e.format, pendingFormat)
}

func recordPath(spool string) string { return strings.TrimSuffix(spool, spoolSuffix) + recordSuffix }

// describe tells what is pending in the spool at path.
func (r *pendingRecord) describe(path string) PendingSpool {
	reason := r.Reason
	if r.Tries == 0 {
		reason = "the process that received it ended before it was stored"
	}
	m := r.Manifest
	return PendingSpool{path, m.Cluster, r.Repository, m.StartedAt, m.Plain.Bytes, r.Tries, reason}
}

func (r *pendingRecord) expired(now time.Time) bool {
	return now.Sub(r.Manifest.StartedAt) > maxPendingAge
}

// check reports why the record could not become a manifest.
func (r *pendingRecord) check() error {
	if r.Repository == "" || r.Manifest == nil {
		return errors.New("no repository or no manifest")
	}
	m := *r.Manifest
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	m.Timeline, m.FinishedAt, m.Stored, m.Encoding = "any", m.StartedAt, m.Plain, backup.Encoding{}
	return m.Validate()
}

// writeRecord writes the record of a spool, durably and as a whole. The caller
// holds the spool's lock.
func writeRecord(spool string, r *pendingRecord) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("record pending spool: %w", err)
	}
	record, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of pending spool: %w", err)
	}
	raw, err := json.Marshal(pendingFile{pendingFormat, sha256.Sum256(record), record})
	if err != nil {
		return fmt.Errorf("encode record of pending spool: %w", err)
	}
	if err := disk.WriteFile(recordPath(spool), append(raw, '\n')); err != nil {
		return fmt.Errorf("write record of pending spool: %w", err)
	}
	return nil
}

// readRecord reads the record of a spool. It does not say whose it is: see
// [checkOurs].
func readRecord(spool string) (*pendingRecord, error) {
	f, err := disk.OpenRegular(recordPath(spool), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxPendingBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	r, err := parseRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("read record of pending spool %s: %w", spool, err)
	}
	return r, nil
}

func parseRecord(raw []byte) (*pendingRecord, error) {
	if len(raw) > maxPendingBytes {
		return nil, backup.Corruptf("more than %d bytes", maxPendingBytes)
	}
	// The format first: another one may mean anything by the rest.
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if head.Format != pendingFormat {
		return nil, &unknownRecordError{head.Format}
	}
	var f pendingFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if got := backup.Digest(sha256.Sum256(f.Record)); got != f.SHA256 {
		return nil, backup.Corruptf("its sha256 is %s, its bytes make %s", f.SHA256, got)
	}
	var r pendingRecord
	if err := json.Unmarshal(f.Record, &r); err != nil {
		return nil, backup.Corruptf("decode: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	return &r, nil
}

// checkOurs reports why a spool and its record cannot be what this user's
// process wrote. Whoever may write a shared temporary folder could otherwise
// have any database stored as a backup.
func checkOurs(spool string) error {
	for _, path := range []string{spool, recordPath(spool)} {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
			return fmt.Errorf("%s has mode %v: want a file that belongs to this process's user and that nobody else may read or write", path, info.Mode())
		}
	}
	return nil
}

// pendingSpool is one spool with a record, or with why that cannot be used.
type pendingSpool struct {
	path   string
	record *pendingRecord
	err    error
}

// pendings lists the spools of dir that have a record, the oldest first, and
// those whose record cannot be used after them.
func pendings(dir string) ([]pendingSpool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for pending spools: %w", err)
	}
	var out []pendingSpool
	for _, e := range entries {
		name := recordPattern.FindStringSubmatch(e.Name())
		if name == nil || name[2] != "" {
			continue
		}
		p := pendingSpool{path: filepath.Join(dir, name[1]+spoolSuffix)}
		if p.err = checkOurs(p.path); p.err == nil {
			p.record, p.err = readRecord(p.path)
		}
		if errors.Is(p.err, os.ErrNotExist) {
			continue // stored or dropped a moment ago
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b pendingSpool) int { return a.since().Compare(b.since()) })
	return out, nil
}

// since is when the snapshot was begun; what cannot be told sorts last.
func (p pendingSpool) since() time.Time {
	if p.err != nil {
		return time.Unix(1<<40, 0)
	}
	return p.record.Manifest.StartedAt
}

// Pending lists the snapshots that wait in a spool folder to be stored, the
// oldest first: of all clusters, but not those that are being stored for the
// first time. dir is as in [Taker].
func Pending(dir string) ([]PendingSpool, error) {
	all, err := pendings(spoolFolder(dir))
	if err != nil {
		return nil, err
	}
	var out []PendingSpool
	for _, p := range all {
		if p.err == nil && (p.record.Tries > 0 || !disk.InUse(p.path)) {
			out = append(out, p.record.describe(p.path))
		}
	}
	return out, nil
}
