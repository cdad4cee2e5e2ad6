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
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Taker takes snapshots of one cluster, one at a time.
type Taker struct {
	Source *cluster.Cluster
	Codec  codec.Options
	// Spool is where the local copy is made.
	Spool spool.Folder
	// Hashes says how many members are asked for HashKV.
	Hashes compare.Policy
	// AllowNearQuota begins a stream although the member is near its quota.
	AllowNearQuota bool
	// Tool is the version recorded in the manifest.
	Tool string
	// Companions are files of this host that are stored with each snapshot.
	Companions companion.Files
	Log        *slog.Logger
	Progress   backup.Progress

	// retryPause is the pause before a store that failed is offered the spool
	// again. Each further pause is longer. Zero means 2 s.
	retryPause time.Duration
}

// Target is where a snapshot goes.
type Target struct {
	*repository.Cluster
	// Timelines are the histories that the new snapshot may continue. They are empty
	// if there are none, or if they are not known.
	Timelines repository.Timelines
	// Turns are the comparisons before, as far as they are known. Where none is, the
	// newest of the timelines counts.
	Turns compare.Turns
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
	guarded, stop := file.Guard(ctx)
	m, err := t.takeInto(guarded, file, s, to)
	err = withCause(guarded, err)
	stop()
	err = t.release(file, err)
	if pending := (*PendingError)(nil); errors.As(err, &pending) && ctx.Err() == nil {
		t.Spool.Tidy(to.Name(), pending.Pending.Repository)
	}
	return m, err
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

	comparer := t.comparer(to)
	s = t.arrange(s, comparer)
	quorum, s := committed(ctx, t, s)
	// The stream is received at full speed, for while it is open etcd cannot reuse
	// freed pages. The upload follows behind it.
	got, err := t.receive(ctx, s, file, up, comparer)
	if err != nil {
		return nil, err
	}
	c := capture(t.Tool, to.Name(), s, got)
	c.V2Keys = warnOfV2(ctx, t.Source, got.member, t.log())
	judge(&c, got.comparison.Verdict(ctx, got.facts), s, got)
	before, err := hashBefore(ctx, got, to.Timelines)
	if err != nil {
		c.Suspect = append(c.Suspect, err.Error())
	}
	c.CommittedIndex = quorum.Index
	c.Unconfirmed = append(notCurrent(&c), c.Unconfirmed...)
	if len(to.Timelines) > 0 {
		c.NewestTimeline = to.Timelines[0].Name
	}
	t.remember(ctx, file, to, c)

	if err := file.GaveWay(); err != nil {
		return nil, err // what was just found in it says nothing
	}
	stored, err := up.wait(ctx)
	if err != nil {
		return nil, err
	}
	m, err := complete(ctx, to.Cluster, c, stored, got.check)
	if err != nil {
		return nil, err
	}
	attach(ctx, t, to.Cluster, m)
	if err := place(ctx, to.Cluster, m, to.Timelines, before); err != nil {
		to.Data().Discard(ctx, m.DataKeys()...)
		return nil, err
	}
	if err := to.Commit(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

// judge records what the members say of the database, and every reason for doubt.
func judge(c *backup.Capture, v compare.Verdict, s *cluster.Survey, got *received) {
	c.MemberHashes, c.Unconfirmed = v.Answers, v.Unconfirmed
	c.Suspect = append(v.Suspect, doubts(s, got)...)
	if got.member.Learner {
		c.Unconfirmed = append(c.Unconfirmed, "the snapshot is of a learner, which may be behind the voting members")
	}
	if got.member.Proxy {
		c.Unconfirmed = append(c.Unconfirmed, fmt.Sprintf(
			"a proxy answers at %s: which member sent the database, and whom the cluster lists, is not known "+
				"(name the members' own client URLs as endpoints)", got.member.Endpoint))
	}
}

// capture returns all that is known of a snapshot before it is compared and
// stored.
func capture(tool, name string, s *cluster.Survey, got *received) backup.Capture {
	facts := got.facts
	c := backup.Capture{
		Cluster: name, ClusterID: s.ClusterID, StartedAt: s.Began, Source: s.Member(got.source()),
		Endpoint: got.member.Endpoint, Members: s.Members, EtcdVersion: got.member.Version,
		StorageVersion: facts.StorageVersion, Revision: facts.Revision, CompactRevision: facts.CompactRevision,
		HighWaterRevision: max(s.HighWater, facts.Revision), HighWaterIndex: s.Index, HighWaterTerm: s.Term,
		SourceIndex: got.member.AppliedIndex, SourceTerm: got.member.RaftTerm, HashKV: facts.HashKV,
		LiveHash: &facts.LiveHash, Kubernetes: facts.Kubernetes, Keys: facts.Keys(), Leases: facts.Leases,
		Alarms:      facts.Alarms,
		AuthEnabled: facts.AuthEnabled, AuthRevision: facts.AuthRevision, Sketch: facts.Sketch, Cautions: facts.Cautions,
		RaftTerm: facts.RaftTerm, RaftIndex: facts.ConsistentIndex, Plain: got.blob, Tool: tool,
	}
	c.QuotaBytes = got.member.QuotaBytes
	if len(c.Members) == 0 {
		c.Members = facts.Members
	}
	if got.member.Proxy { // another member's answer says nothing of the one that sent the database
		c.SourceIndex, c.SourceTerm = facts.ConsistentIndex, facts.RaftTerm
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
		FinishedAt: time.Now().UTC(), Stored: stored.stored, Table: stored.table, Encoding: stored.encoding,
	}, nil
}

// doubts returns the reasons to suspect the content, besides the hashes.
func doubts(s *cluster.Survey, got *received) []string {
	out := slices.Clone(got.facts.Doubts)
	live := s.Corrupt()
	for _, id := range live {
		out = append(out, fmt.Sprintf("a CORRUPT alarm is active for member %s", id))
	}
	for _, id := range backup.CorruptMembers(got.facts.Alarms) {
		if !slices.Contains(live, id) {
			out = append(out, fmt.Sprintf("the database holds a CORRUPT alarm for member %s", id))
		}
	}
	if got.facts.Revision < got.member.Revision && !got.member.Proxy {
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
	if err != nil && file.Pending() != nil && !errors.As(err, &damaged) && file.GaveWay() == nil {
		return t.leave(file, err)
	}
	if rerr := file.Remove(); rerr != nil {
		// The result does not depend on the local copy. But the copy holds the
		// secrets of the cluster.
		t.log().Error("cannot remove the spool", "path", file.Path(), "err", rerr)
	}
	return err
}

// comparer returns what compares the next snapshot. While the furthest snapshot of the
// present history is suspect, all members are asked: one that was compared first, and is
// right, would hide the others.
func (t *Taker) comparer(to Target) *compare.Comparer {
	c := &compare.Comparer{Source: t.Source, Policy: t.Hashes, Turns: to.Turns, Log: t.log(), Progress: t.progress()}
	if len(to.Timelines) == 0 {
		return c
	}
	newest := to.Timelines[0]
	if len(c.Turns) == 0 && newest.Manifest != nil {
		c.Turns = c.Turns.Learn(&newest.Manifest.Capture)
	}
	if c.Policy == compare.One && newest.Head.Taken == backup.Suspect {
		c.Policy = compare.All
	}
	return c
}

// arrange puts the leader first if it is its turn to be compared.
func (t *Taker) arrange(s *cluster.Survey, by *compare.Comparer) *cluster.Survey {
	if by.Policy != compare.One {
		return s
	}
	out := by.Turns.Arrange(s)
	if c := out.Candidates[0]; c.Endpoint != s.Candidates[0].Endpoint {
		t.log().Info("chose the leader, because it is its turn to be compared with another member",
			"endpoint", c.Endpoint, "member", c.MemberID)
	}
	return out
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
