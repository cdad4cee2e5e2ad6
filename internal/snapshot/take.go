// Package snapshot takes and verifies snapshots. A snapshot is one verified copy
// of the database of one member. [Taker.Take] shows its life, from the stream to
// the manifest.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Taker takes snapshots of one cluster, one at a time.
type Taker struct {
	Source *cluster.Cluster
	Codec  codec.Options
	// Spool is where the local copy is made.
	Spool spool.Folder
	// Hashes says whether members are asked for HashKV.
	Hashes HashPolicy
	// Tool is the version recorded in the manifest.
	Tool     string
	Log      *slog.Logger
	Progress backup.Progress

	// retryPause is the pause before a store that failed is offered the spool
	// again. Each further pause is longer. Zero means 2 s.
	retryPause time.Duration
}

// HashPolicy says whether a snapshot's content is compared with the members.
type HashPolicy int

// Hash policies.
const (
	CompareHashes HashPolicy = iota
	SkipHashes
)

// Target is where a snapshot goes.
type Target struct {
	*repository.Cluster
	// Timelines are the histories that the new snapshot may continue. They are empty
	// if there are none, or if they are not known.
	Timelines repository.Timelines
	// Down is why the repository cannot be reached now. If the folder of the spool
	// keeps pending snapshots, the database is received all the same and waits
	// there.
	Down error
}

// Take takes one snapshot of the best member of a survey: whole or not at all. A
// snapshot whose content is in doubt is stored and returned all the same, as
// suspect: on the worst day it may be the only one. If the snapshot was received
// but could not be stored, and the folder of the spool keeps it, the error is a
// [*PendingError].
func (t *Taker) Take(ctx context.Context, s *cluster.Survey, to Target) (*backup.Manifest, error) {
	if err := backup.CheckClusterName(to.Name()); err != nil {
		return nil, err
	}
	if to.Down != nil && !t.Spool.Keep {
		return nil, to.Down // etcd must not stream for nothing
	}
	file, err := t.Spool.New(s.DatabaseBytes())
	if err != nil {
		return nil, err
	}
	m, err := t.takeInto(ctx, file, s, to)
	return m, t.release(file, withCause(ctx, err))
}

// withCause adds to an error why the context has ended. The store was stopped at the
// same moment, and may have answered with no more than that it was.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

func (t *Taker) takeInto(
	ctx context.Context, file *spool.File, s *cluster.Survey, to Target,
) (*backup.Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &upload{
		storer: t.storer(to.Cluster, s.Began), spool: file, log: t.log(), pause: t.retryPause, refused: to.Down,
	}
	defer up.stop(ctx) // before the spool is removed

	quorum, s := committed(ctx, t, s, to)
	// The stream is received at full speed, for while it is open etcd cannot reuse
	// freed pages. The upload follows behind it.
	got, err := t.receive(ctx, s, file, up)
	if err != nil {
		return nil, err
	}
	c := capture(t.Tool, to.Name(), s, got)
	judge(&c, t.compare(ctx, s, got), s, got)
	before, err := hashBefore(ctx, got, to.Timelines)
	if err != nil {
		c.Suspect = append(c.Suspect, err.Error())
	}
	c.CommittedIndex = quorum.Index
	if len(to.Timelines) > 0 {
		c.NewestTimeline = to.Timelines[0].Name
	}
	t.remember(ctx, file, to, c)

	stored, err := up.wait(ctx)
	if err != nil {
		return nil, err
	}
	m, err := complete(ctx, to.Cluster, c, stored, got.check)
	if err != nil {
		return nil, err
	}
	if err := place(ctx, to.Cluster, m, to.Timelines, before); err != nil {
		to.Data().Discard(ctx, m.DataKey())
		return nil, err
	}
	if err := to.Commit(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

// judge records what the members say of the database, and every reason for doubt.
func judge(c *backup.Capture, v verdict, s *cluster.Survey, got *received) {
	c.MemberHashes, c.Unconfirmed = v.answers, v.unconfirmed
	c.Suspect = append(v.suspect, doubts(s, got)...)
	if got.member.Learner {
		c.Unconfirmed = append(c.Unconfirmed, "the snapshot is of a learner, which may be behind the voting members")
	}
}

// capture returns all that is known of a snapshot before it is compared and
// stored.
func capture(tool, name string, s *cluster.Survey, got *received) backup.Capture {
	facts := got.facts
	c := backup.Capture{
		Cluster: name, ClusterID: s.ClusterID, StartedAt: s.Began, Source: s.Member(got.member.MemberID),
		Endpoint: got.member.Endpoint, Members: s.Members, EtcdVersion: got.member.Version,
		StorageVersion: facts.StorageVersion, Revision: facts.Revision, CompactRevision: facts.CompactRevision,
		HighWaterRevision: max(s.HighWater, facts.Revision), HighWaterIndex: s.Index, HighWaterTerm: s.Term,
		SourceIndex: got.member.AppliedIndex, SourceTerm: got.member.RaftTerm, HashKV: facts.HashKV, Keys: facts.TotalKeys,
		Leases: facts.Leases, Alarms: facts.Alarms, AuthEnabled: facts.AuthEnabled, Sketch: facts.Sketch,
		RaftTerm: facts.RaftTerm, RaftIndex: facts.ConsistentIndex, Plain: got.blob, Tool: tool,
	}
	if len(c.Members) == 0 {
		c.Members = facts.Members
	}
	return c
}

// complete makes the manifest of a snapshot that was stored. received is the
// checksum of the bytes from the wire, which the trailer of etcd has proved. The
// stored bytes were read from the spool: if its disk is bad, the two differ, and
// the stored data is discarded.
func complete(
	ctx context.Context, to *repository.Cluster, c backup.Capture, stored storedData, received backup.Checksum,
) (*backup.Manifest, error) {
	if stored.plain != received {
		to.Data().Discard(ctx, stored.key)
		return nil, &spool.DamagedError{Err: backup.Corruptf(
			"%d bytes with CRC-32C %08x were read back, %d with %08x were received",
			stored.plain.Bytes, stored.plain.CRC32C, received.Bytes, received.CRC32C)}
	}
	return &backup.Manifest{
		Format: backup.ManifestFormat, ID: stored.name.WithRevision(c.Revision), Capture: c,
		FinishedAt: time.Now().UTC(), Stored: stored.stored, Encoding: stored.encoding,
	}, nil
}

// doubts returns the reasons to suspect the content, besides the hashes.
func doubts(s *cluster.Survey, got *received) []string {
	var out []string
	live := s.Corrupt()
	for _, id := range live {
		out = append(out, fmt.Sprintf("a CORRUPT alarm is active for member %s", id))
	}
	for _, id := range backup.CorruptMembers(got.facts.Alarms) {
		if !slices.Contains(live, id) {
			out = append(out, fmt.Sprintf("the database holds a CORRUPT alarm for member %s", id))
		}
	}
	if got.facts.Revision < got.member.Revision {
		out = append(out, fmt.Sprintf("member %s served revision %d before, its database ends at %d",
			got.member.MemberID, got.member.Revision, got.facts.Revision))
	}
	return out
}

// remember writes the file beside the spool with which another process can store
// it, if the folder keeps pending snapshots. It does so before the store has
// answered, because after a kill -9 it is too late.
func (t *Taker) remember(ctx context.Context, file *spool.File, to Target, c backup.Capture) {
	if !t.Spool.Keep || ctx.Err() != nil {
		return
	}
	if err := file.Remember(to.Repository().ID(), c); err != nil {
		// The backup may still succeed.
		t.log().Warn("the snapshot will be lost if the store fails: it cannot wait in the spool", "err", err)
	}
}

// release removes a spool, or leaves it pending if another try can store it. It
// returns err, or the error that says that the snapshot is pending.
func (t *Taker) release(file *spool.File, err error) error {
	var damaged *spool.DamagedError
	if err != nil && file.Pending() != nil && !errors.As(err, &damaged) {
		return t.leave(file, err)
	}
	if rerr := file.Remove(); rerr != nil {
		// The result does not depend on the local copy. But the copy holds the
		// secrets of the cluster.
		t.log().Error("cannot remove the spool", "path", file.Path(), "err", rerr)
	}
	return err
}

func (t *Taker) log() *slog.Logger {
	if t.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Log
}

func (t *Taker) progress() backup.Progress {
	if t.Progress == nil {
		return func(backup.Stage, int64, int64) {}
	}
	return t.Progress
}
