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
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Stages of taking, verifying and restoring, for progress reports.
const (
	StageReceive = "receive" // from etcd to the spool
	StageStore   = "store"   // from the spool to the store
	StageInspect = "inspect" // reading the database
	StageCompare = "compare" // asking members for HashKV
	StageVerify  = "verify"  // reading the stored object back
)

// Progress is told how far a stage is: done of total bytes. Total is 0 where it
// is not known. It may be called from several goroutines.
type Progress func(stage string, done, total int64)

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
	// Tool is the version recorded in the manifest.
	Tool     string
	Log      *slog.Logger
	Progress Progress
}

// HashPolicy says whether a snapshot's content is compared with the members.
type HashPolicy int

// Hash policies.
const (
	CompareHashes HashPolicy = iota
	SkipHashes
)

func (t *Taker) setDefaults() {
	if t.Spool == "" {
		t.Spool = os.TempDir()
	}
	if t.RetryPause <= 0 {
		t.RetryPause = 2 * time.Second
	}
	if t.Log == nil {
		t.Log = slog.New(slog.DiscardHandler)
	}
	if t.Progress == nil {
		t.Progress = func(string, int64, int64) {}
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
	if _, err := storage.InitRepository(ctx, t.Store); err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	previous, err := newest(ctx, t.Store, t.Cluster)
	if err != nil {
		return nil, err
	}
	started := time.Now().UTC()
	survey, err := t.Source.Survey(ctx)
	if err != nil {
		return nil, err
	}
	LogSurvey(t.Log, survey)
	sp, err := newSpool(t.Spool, survey.DatabaseBytes())
	if err != nil {
		return nil, err
	}
	m, err := t.takeInto(ctx, sp, surveyed{survey, started, previous})
	if rerr := sp.remove(); rerr != nil {
		// The snapshot exists or not whatever becomes of the local copy, but
		// the copy holds the cluster's secrets.
		t.Log.Error("spool is left behind", "path", sp.path, "err", rerr)
	}
	return m, err
}

// surveyed is what is known before the first byte is received.
type surveyed struct {
	*cluster.Survey
	started  time.Time
	previous *backup.Manifest
}

func (t *Taker) takeInto(ctx context.Context, sp *spool, s surveyed) (*backup.Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &upload{taker: t, spool: sp, started: s.started}
	defer up.stop(ctx) // before the spool goes

	// Received at full speed, for while the stream is open etcd cannot reuse
	// freed pages; stored behind it.
	var facts *etcddb.Facts
	var asked *questions
	from := receiver{source: t.Source, log: t.Log, progress: t.stage(StageReceive)}
	from.check = func(ctx context.Context, got received) (err error) {
		facts, asked, err = t.inspect(ctx, s.Survey, got, sp.path)
		return err
	}
	got, err := from.receive(ctx, s.Survey, &spoolSink{sp, up})
	if err != nil {
		return nil, err
	}
	hashes, suspect := t.compare(ctx, s.Survey, facts, sp.path, asked)

	stored, err := up.wait(ctx)
	if err != nil {
		return nil, err
	}
	// What was stored was read from the spool; what etcd's trailer vouched for
	// came over the wire. A spool disk that lies makes the two differ.
	if stored.plain != got.check {
		discard(ctx, t.Store, t.dataKey(stored.name))
		return nil, backup.Corruptf("the spooled copy is damaged: %d bytes with CRC-32C %08x were read back, %d with %08x were received",
			stored.plain.Bytes, stored.plain.CRC32C, got.check.Bytes, got.check.CRC32C)
	}
	m := t.manifest(s, got, facts, stored)
	m.MemberHashes, m.Suspect = hashes, append(suspect, doubts(s.Survey, got, facts)...)
	if err := t.commit(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

// inspect looks into the database, and has the members asked about it meanwhile.
func (t *Taker) inspect(ctx context.Context, s *cluster.Survey, got received, path string) (*etcddb.Facts, *questions, error) {
	t.Progress(StageInspect, 0, got.blob.Bytes)
	var asked *questions
	var asking sync.WaitGroup
	asking.Go(func() { asked = t.askEarly(ctx, s, path) })
	facts, err := etcddb.Inspect(ctx, path)
	asking.Wait()
	if err != nil {
		asked.abandon()
		return nil, nil, fmt.Errorf("inspect the database of %s: %w", got.member.Endpoint, err)
	}
	t.Progress(StageInspect, got.blob.Bytes, got.blob.Bytes)
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
	if found, rerr := readManifest(asking, t.Store, m.Cluster, m.ID); rerr == nil && found.Stored == m.Stored {
		return nil
	}
	return fmt.Errorf("create manifest: %w", err)
}

func (t *Taker) manifest(s surveyed, got received, facts *etcddb.Facts, stored storedBlobs) *backup.Manifest {
	m := &backup.Manifest{
		Format: backup.ManifestFormat, ID: stored.name.WithRevision(facts.Revision), Cluster: t.Cluster,
		ClusterID: s.ClusterID, StartedAt: s.started, Source: s.Member(got.member.MemberID), Endpoint: got.member.Endpoint,
		Members: s.Members, EtcdVersion: got.member.Version, StorageVersion: facts.StorageVersion,
		Revision: facts.Revision, CompactRevision: facts.CompactRevision, HighWaterRevision: max(s.HighWater, facts.Revision),
		HashKV: facts.HashKV, Keys: facts.TotalKeys, Leases: facts.Leases, Alarms: facts.Alarms, AuthEnabled: facts.AuthEnabled,
		RaftTerm: facts.RaftTerm, RaftIndex: facts.ConsistentIndex,
		Plain: got.blob, Stored: stored.stored, Encoding: t.Codec.Encoding(), Tool: t.Tool,
	}
	if len(m.Members) == 0 {
		m.Members = facts.Members
	}
	m.Timeline = timeline(m, s.previous)
	return m
}

// timeline continues that of the snapshot before, unless the cluster was
// replaced or went back in time. The high-water revision tells, not the
// snapshot's own: that of a lagging member may be older than the one before.
func timeline(m, previous *backup.Manifest) string {
	if previous != nil && previous.ClusterID == m.ClusterID && previous.HighWaterRevision <= m.HighWaterRevision {
		return previous.Timeline
	}
	return backup.RandomName(10)
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
func (t *Taker) stage(stage string) func(done, total int64) {
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
