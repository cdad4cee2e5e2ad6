// Package snapshot takes, lists, opens, verifies and deletes snapshots: one
// verified copy of a member's database each, with the manifest that makes it
// exist.
//
// A snapshot exists when its manifest does. The manifest is created last, after
// everything else was checked, and deleted first.
package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Taker takes snapshots of one cluster into one repository, one at a time.
type Taker struct {
	Source  *cluster.Cluster
	Store   storage.Store
	Cluster string // the cluster's name in the repository
	Codec   codec.Options
	// Spool is the folder for the local copy; empty means the system's folder
	// for temporary files.
	Spool string
	// Hashes says whether members are asked for HashKV.
	Hashes HashPolicy
	// RetryPause is how long a store that failed is left alone before it is
	// offered the spool again; the pause after that is longer. Zero means 2 s.
	RetryPause time.Duration
	// KeepPending says whether what was received stays in the spool when it
	// cannot be stored. Then Take begins with [Taker.StorePending], and returns a
	// [*PendingError] where it kept something.
	KeepPending bool
	// Repository is the id of the repository, if it is known. With it and
	// KeepPending a database is received, and kept, even while the repository
	// cannot be reached.
	Repository string
	// SpoolLimit is how many bytes the spools in the folder may take together,
	// those of other clusters included. Pending ones give way to it. Zero means
	// no limit.
	SpoolLimit int64
	// Tool is the version recorded in the manifest.
	Tool     string
	Log      *slog.Logger
	Progress backup.Progress
}

// HashPolicy says whether a snapshot's content is compared with the members.
type HashPolicy int

// Hash policies.
const (
	CompareHashes HashPolicy = iota
	SkipHashes
)

func (t *Taker) setDefaults() {
	t.Spool = spoolFolder(t.Spool)
	if t.RetryPause <= 0 {
		t.RetryPause = 2 * time.Second
	}
	if t.Log == nil {
		t.Log = slog.New(slog.DiscardHandler)
	}
	if t.Progress == nil {
		t.Progress = func(backup.Stage, int64, int64) {}
	}
}

// Take takes one snapshot: whole or absent, never in part. A snapshot whose
// content is in doubt is stored and returned all the same, marked suspect: on
// the worst day it may be the only one.
func (t *Taker) Take(ctx context.Context) (*backup.Manifest, error) {
	t.setDefaults()
	if err := backup.CheckClusterName(t.Cluster); err != nil {
		return nil, err
	}
	// The repository comes first: a store that refuses us should say so before
	// etcd is asked for anything.
	repo, err := t.reach(ctx)
	if err != nil {
		return nil, err
	}
	started := time.Now().UTC()
	survey, err := t.Source.Survey(ctx)
	if err != nil {
		return nil, err
	}
	LogSurvey(t.Log, survey)
	sp, err := t.makeSpool(survey.DatabaseBytes())
	if err != nil {
		return nil, errors.Join(err, repo.pending) // which may be why there is no room
	}
	m, err := t.takeInto(ctx, sp, surveyed{survey, started, repo})
	var damaged *damagedSpoolError
	if err != nil && sp.record != nil && !errors.As(err, &damaged) {
		return nil, t.keep(sp, err)
	}
	if rerr := sp.remove(); rerr != nil {
		// The snapshot exists or not whatever becomes of the local copy, but
		// the copy holds the cluster's secrets.
		t.Log.Error("spool is left behind", "path", sp.path, "err", rerr)
	}
	return m, err
}

// repository is what is known of where the snapshot goes.
type repository struct {
	id       string
	previous *backup.Manifest // the newest; nil: none, or not known
	down     error            // why it cannot be reached now
	pending  error            // why something in the spool is still pending
}

// reach opens the repository, stores what waits for it, and looks for the newest
// snapshot. Where a database may wait for it, one that is down is no error.
func (t *Taker) reach(ctx context.Context) (r repository, err error) {
	r.id = t.Repository
	marker, err := t.open(ctx)
	if err != nil {
		err = fmt.Errorf("open repository: %w", err)
	} else {
		r.id = marker.ID
		if t.KeepPending {
			if _, r.pending = t.storePending(ctx, r.id); r.pending != nil {
				t.Log.Warn("what is pending cannot be stored yet", "err", r.pending)
			}
		}
		r.previous, err = newest(ctx, t.Store, t.Cluster)
	}
	switch {
	case err == nil:
		return r, nil
	case !t.KeepPending || r.id == "" || ctx.Err() != nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, backup.ErrCorrupt):
		return r, err
	}
	t.Log.Warn("the repository is down, the snapshot will be kept in the spool", "err", err)
	r.down = err
	return r, nil
}

// reachTime bounds the wait for a repository that a snapshot need not wait for.
// A store tries again for a minute and more before it gives up.
const reachTime = 15 * time.Second

// open makes the repository unless there is one. One that a snapshot may wait
// for is not made anew: where it is not any more, its disk is not mounted.
func (t *Taker) open(ctx context.Context) (storage.Marker, error) {
	if !t.KeepPending || t.Repository == "" {
		return storage.InitRepository(ctx, t.Store)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reachTime, fmt.Errorf("no answer within %v", reachTime))
	defer cancel()
	marker, err := storage.OpenRepository(ctx, t.Store)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return marker, fmt.Errorf("repository %s is not at its address any more: %v", t.Repository, err) // down, and not absent
	case err == nil && marker.ID != t.Repository:
		return marker, fmt.Errorf("another repository (%s) is at the address of repository %s", marker.ID, t.Repository)
	}
	return marker, err
}

// surveyed is what is known before the first byte is received.
type surveyed struct {
	*cluster.Survey
	started time.Time
	repo    repository
}

func (t *Taker) takeInto(ctx context.Context, sp *spool, s surveyed) (*backup.Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &upload{taker: t, spool: sp, started: s.started, refused: s.repo.down}
	defer up.stop(ctx) // before the spool goes

	// Received at full speed, for while the stream is open etcd cannot reuse
	// freed pages; stored behind it.
	var facts *etcddb.Facts
	var asked *questions
	from := receiver{source: t.Source, log: t.Log, progress: t.stage(backup.StageReceive)}
	from.check = func(ctx context.Context, got received) (err error) {
		facts, asked, err = t.inspect(ctx, s.Survey, got, sp.path)
		return err
	}
	got, err := from.receive(ctx, s.Survey, &spoolSink{sp, up})
	if err != nil {
		return nil, err
	}
	m := t.manifest(s, got, facts)
	m.MemberHashes, m.Suspect = t.compare(ctx, s.Survey, facts, sp.path, asked)
	m.Suspect = append(m.Suspect, doubts(s.Survey, got, facts)...)
	if t.KeepPending && ctx.Err() == nil {
		t.remember(sp, s.repo.id, m)
	}
	stored, err := up.wait(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.finish(ctx, m, stored, got.check); err != nil {
		return nil, err
	}
	return m, nil
}

// finish completes the manifest of what was stored and creates it. received is
// what came over the wire, where etcd's trailer vouched for it. What was stored
// was read from the spool, and a spool disk that lies makes the two differ.
func (t *Taker) finish(ctx context.Context, m *backup.Manifest, stored storedBlobs, received backup.Checksum) error {
	if stored.plain != received {
		discard(ctx, t.Store, t.dataKey(stored.name))
		return &damagedSpoolError{backup.Corruptf("%d bytes with CRC-32C %08x were read back, %d with %08x were received",
			stored.plain.Bytes, stored.plain.CRC32C, received.Bytes, received.CRC32C)}
	}
	m.ID, m.Stored, m.Encoding = stored.name.WithRevision(m.Revision), stored.stored, t.Codec.Encoding()
	return t.commit(ctx, m)
}

// inspect looks into the database, and has the members asked about it meanwhile.
func (t *Taker) inspect(ctx context.Context, s *cluster.Survey, got received, path string) (*etcddb.Facts, *questions, error) {
	t.Progress(backup.StageInspect, 0, got.blob.Bytes)
	var asked *questions
	var asking sync.WaitGroup
	asking.Go(func() { asked = t.askEarly(ctx, s, path) })
	facts, err := etcddb.Inspect(ctx, path)
	asking.Wait()
	if err != nil {
		asked.abandon()
		return nil, nil, fmt.Errorf("inspect the database of %s: %w", got.member.Endpoint, err)
	}
	t.Progress(backup.StageInspect, got.blob.Bytes, got.blob.Bytes)
	return facts, asked, nil
}

// commit creates the manifest. Until it is there the data object is litter, and
// after it is there the data must be too: so the manifest goes last.
func (t *Taker) commit(ctx context.Context, m *backup.Manifest) error {
	// Up to here nobody can have seen the data; from here on it must stay.
	if ctx.Err() != nil {
		discard(ctx, t.Store, m.DataKey())
		return fmt.Errorf("create manifest: %w", context.Cause(ctx))
	}
	m.FinishedAt = time.Now().UTC()
	raw, err := m.Marshal()
	if err != nil {
		discard(ctx, t.Store, m.DataKey())
		return err
	}
	err = t.Store.Create(ctx, m.Key(), bytes.NewReader(raw))
	if err == nil {
		return nil
	}
	// The answer may have been lost on its way, not the manifest. Only the
	// object itself can tell. The data stays: if the manifest does turn up
	// later it must find it, and if not it is litter, which prune collects.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if found, rerr := readManifest(asking, t.Store, Entry{m.Cluster, m.ID, !m.Verified()}); rerr == nil && found.Stored == m.Stored {
		return nil
	}
	return fmt.Errorf("create manifest: %w", err)
}

// manifest tells all that is known of a snapshot before it is stored.
func (t *Taker) manifest(s surveyed, got received, facts *etcddb.Facts) *backup.Manifest {
	m := &backup.Manifest{
		Format: backup.ManifestFormat, Cluster: t.Cluster,
		ClusterID: s.ClusterID, StartedAt: s.started, Source: s.Member(got.member.MemberID), Endpoint: got.member.Endpoint,
		Members: s.Members, EtcdVersion: got.member.Version, StorageVersion: facts.StorageVersion,
		Revision: facts.Revision, CompactRevision: facts.CompactRevision, HighWaterRevision: max(s.HighWater, facts.Revision),
		HashKV: facts.HashKV, Keys: facts.TotalKeys, Leases: facts.Leases, Alarms: facts.Alarms, AuthEnabled: facts.AuthEnabled,
		RaftTerm: facts.RaftTerm, RaftIndex: facts.ConsistentIndex,
		Plain: got.blob, Tool: t.Tool,
	}
	if len(m.Members) == 0 {
		m.Members = facts.Members
	}
	m.Timeline = history.Timeline(m, s.repo.previous, nil)
	return m
}

// doubts tells what speaks against the content besides the hashes.
func doubts(s *cluster.Survey, got received, facts *etcddb.Facts) []string {
	var out []string
	for _, a := range s.Alarms {
		if a.Type == "CORRUPT" {
			out = append(out, fmt.Sprintf("a CORRUPT alarm is up for member %s", a.MemberID))
		}
	}
	if facts.Revision < got.member.Revision {
		out = append(out, fmt.Sprintf("member %s served revision %d before, its database ends at %d", got.member.MemberID, got.member.Revision, facts.Revision))
	}
	return out
}

func (t *Taker) dataKey(name backup.DataName) string {
	return backup.Key{Cluster: t.Cluster, Kind: backup.KindData, Data: name, Suffix: t.Codec.Encoding().Suffix()}.String()
}

// stage returns the progress of one stage.
func (t *Taker) stage(stage backup.Stage) func(done, total int64) {
	return func(done, total int64) { t.Progress(stage, done, total) }
}

// LogSurvey logs which member was chosen and why others were not.
func LogSurvey(log *slog.Logger, s *cluster.Survey) {
	for _, r := range s.Refused {
		log.Warn("passed over endpoint", "endpoint", r.Endpoint, "reason", r.Err)
	}
	for i, c := range s.Candidates {
		if i == 0 {
			log.Info("chose member", "endpoint", c.Endpoint, "member", c.MemberID, "leader", c.Leader, "revision", int64(c.Revision), "concerns", c.Concerns)
			continue
		}
		log.Info("next choice", "endpoint", c.Endpoint, "member", c.MemberID, "leader", c.Leader, "revision", int64(c.Revision), "concerns", c.Concerns)
	}
	if s.MembersErr != nil {
		log.Warn("no member tells who the members are", "err", s.MembersErr)
	}
	for _, a := range s.Alarms {
		log.Warn("alarm is up", "member", a.MemberID, "alarm", a.Type)
	}
}
