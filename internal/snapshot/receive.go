package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// received is what is known of a database after it was received.
type received struct {
	member  cluster.Candidate
	version string // storage version, "" before etcd 3.6
	blob    backup.Blob
	check   backup.Checksum
	// What follows is set by the inspection.
	path       string
	facts      *etcddb.Facts
	comparison *compare.Comparison
}

// source returns the member that sent the database, or 0 if a proxy stood between.
func (r *received) source() backup.MemberID {
	if r.member.Proxy {
		return 0
	}
	return r.member.MemberID
}

// sink receives a database. If the member that sends it is lost, another member
// sends it from the beginning.
type sink interface {
	// begin is called before the first byte of each try. The try will bring total
	// bytes and a trailer.
	begin(ctx context.Context, total int64) error
	io.Writer
	// end is called after each try that began: with io.EOF if the database is
	// complete and its trailer is right, else with the error.
	end(err error)
}

// ownError is an error on our own side, which another member would not help
// against.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// receive receives the database of the best member into the spool, while up stores
// it, and then inspects it. If the inspection finds damage, the disk of the member
// may be bad: then the next member is tried.
func (t *Taker) receive(
	ctx context.Context, s *cluster.Survey, file *spool.File, up *upload, with *compare.Comparer,
) (got *received, err error) {
	dst := &spoolSink{&t.Spool, file, up}
	report := func(done, total int64) { t.progress()(backup.StageReceive, done, total) }
	quota := newQuotaGuard(s, t.AllowNearQuota, t.log())
	err = firstMember(ctx, s, t.log(), func(c cluster.Candidate) error {
		if got, err = stream(ctx, t.Source, quota, c, dst, report); err != nil {
			return err
		}
		got.path = file.Path()
		return t.inspect(ctx, s, got, with)
	})
	return got, err
}

// inspect inspects the database, and asks a member about it meanwhile.
func (t *Taker) inspect(ctx context.Context, s *cluster.Survey, got *received, with *compare.Comparer) error {
	progress := t.progress()
	progress(backup.StageInspect, 0, got.blob.Bytes)
	got.comparison = with.Begin(ctx, s, got.source(), got.path)
	facts, err := etcddb.Inspect(ctx, got.path)
	if err != nil {
		got.comparison.Abandon()
		err = fmt.Errorf("inspect the database of %s: %w", got.member.Endpoint, err)
		if errors.Is(err, backup.ErrCorrupt) {
			return err
		}
		return &ownError{err}
	}
	progress(backup.StageInspect, got.blob.Bytes, got.blob.Bytes)
	got.facts = facts
	if why := etcddb.NewerWarning(facts.StorageVersion, facts.ClusterVersion); why != "" {
		t.log().Warn("the database was not verified as a whole", "endpoint", got.member.Endpoint, "reason", why)
	}
	for _, why := range facts.Cautions {
		t.log().Warn("caution", "endpoint", got.member.Endpoint, "reason", why)
	}
	return nil
}

// warnOfV2 warns of keys that the member serves and that are in no snapshot of it.
func warnOfV2(ctx context.Context, source *cluster.Cluster, member cluster.Candidate, log *slog.Logger) bool {
	has := source.HasV2Keys(ctx, member)
	if has {
		log.Warn("the member also serves keys of etcd's v2 API: no snapshot holds them", "endpoint", member.Endpoint,
			"member", member.MemberID)
	}
	return has
}

// firstMember calls try with one candidate after the other, until one succeeds.
func firstMember(ctx context.Context, s *cluster.Survey, log *slog.Logger, try func(cluster.Candidate) error) error {
	lost := &cluster.NoMemberError{Refusals: slices.Clone(s.Refused)}
	for _, c := range s.Candidates {
		err := try(c)
		var own *ownError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("receive snapshot: %w", context.Cause(ctx))
		case errors.As(err, &own):
			return own.err
		}
		log.Warn("lost member", "endpoint", c.Endpoint, "member", c.MemberID, "err", err)
		lost.Refusals = append(lost.Refusals, cluster.Refusal{Endpoint: c.Endpoint, Err: err})
	}
	return lost
}

// stream receives the database of one member into dst.
func stream(
	ctx context.Context, source *cluster.Cluster, quota *quotaGuard, c cluster.Candidate, dst sink,
	report func(done, total int64),
) (*received, error) {
	if err := quota.mayBegin(c); err != nil {
		return nil, err
	}
	in, err := source.Stream(ctx, c.Endpoint)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	defer quota.watch(ctx, in, c)()
	if err := dst.begin(ctx, in.Total); err != nil {
		return nil, &ownError{err}
	}
	report(0, in.Total)
	if err := copyStream(dst, in, report); err != nil {
		dst.end(err)
		return nil, err
	}
	dst.end(io.EOF)
	return &received{member: c, version: in.Version, blob: in.Blob(), check: in.Checksum()}, nil
}

// copyStream writes in large pieces: large folios make the page cache quicker to
// fill, to read and to drop. A small database still comes in several pieces.
func copyStream(dst io.Writer, in *cluster.Stream, report func(done, total int64)) error {
	buf := make([]byte, min(max(4<<10, in.Total/16), 256<<10))
	done := int64(0)
	for {
		n, err := fill(in, buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return &ownError{werr}
			}
			done += int64(n)
			report(min(done, in.Total), in.Total)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill is [io.ReadFull], but returns the error of the reader at the end: io.EOF
// means that all is well.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// spoolSink writes a database into the spool, while up stores it.
type spoolSink struct {
	folder *spool.Folder
	*spool.File
	up *upload
}

func (s *spoolSink) begin(ctx context.Context, total int64) error {
	s.up.stop(ctx)
	if err := s.folder.Begin(s.File, total); err != nil {
		return err
	}
	s.up.start(ctx)
	return nil
}

func (s *spoolSink) end(err error) { s.Finish(err) }

// LogSurvey logs which member was chosen and why others were not.
func LogSurvey(log *slog.Logger, s *cluster.Survey) {
	for _, r := range s.Refused {
		log.Warn("passed over endpoint", "endpoint", r.Endpoint, "reason", r.Err)
	}
	for i, c := range s.Candidates {
		message := "next choice"
		if i == 0 {
			message = "chose member"
		}
		log.Info(message, "endpoint", c.Endpoint, "member", c.MemberID, "leader", c.Leader,
			"revision", int64(c.Revision), "concerns", c.Concerns)
	}
	if s.MembersErr != nil {
		log.Warn("no member lists the members of the cluster", "err", s.MembersErr)
	}
	for _, a := range s.Alarms {
		log.Warn("alarm is active", "member", a.MemberID, "alarm", a.Type)
	}
}
