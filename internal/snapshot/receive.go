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
	"github.com/etcd-backupd/backupd/internal/disk"
)

// sink takes a database that may have to be sent again from the beginning,
// when the member that sent it is lost.
type sink interface {
	// begin is called before the first byte of each try, which will bring total
	// bytes and a trailer.
	begin(ctx context.Context, total int64) error
	io.Writer
	// end is called after each begun try: io.EOF when the database is complete
	// and its trailer checked, else why it is not.
	end(err error)
}

// received is what is known of a database once it has come.
type received struct {
	member  cluster.Candidate
	version string // storage version, "" before etcd 3.6
	blob    backup.Blob
	check   backup.Checksum
}

// sinkError is an error of our own side: another member would not help.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

// receiver brings databases from the members of one cluster.
type receiver struct {
	source   *cluster.Cluster
	log      *slog.Logger
	progress func(done, total int64)
	// check, if not nil, looks into a database that has come whole. Damage that
	// it finds is the member's, whose disk may be bad; other errors are ours.
	check func(context.Context, received) error
}

// receive brings the database of the best candidate into dst, and moves on to
// the next when a member fails.
func (r receiver) receive(ctx context.Context, s *cluster.Survey, dst sink) (received, error) {
	lost := &cluster.NoMemberError{Refusals: slices.Clone(s.Refused)}
	for _, c := range s.Candidates {
		got, err := r.receiveFrom(ctx, c, dst)
		var own *sinkError
		switch {
		case err == nil:
			return got, nil
		case ctx.Err() != nil:
			return received{}, fmt.Errorf("receive snapshot: %w", context.Cause(ctx))
		case errors.As(err, &own):
			return received{}, own.err
		}
		r.log.Warn("lost member", "endpoint", c.Endpoint, "member", c.MemberID, "err", err)
		lost.Refusals = append(lost.Refusals, cluster.Refusal{Endpoint: c.Endpoint, Err: err})
	}
	return received{}, lost
}

func (r receiver) receiveFrom(ctx context.Context, c cluster.Candidate, dst sink) (received, error) {
	stream, err := r.source.Stream(ctx, c.Endpoint)
	if err != nil {
		return received{}, err
	}
	defer stream.Close()
	if err := dst.begin(ctx, stream.Total); err != nil {
		return received{}, &sinkError{err}
	}
	if err := copyStream(dst, stream, r.progress); err != nil {
		dst.end(err)
		return received{}, err
	}
	dst.end(io.EOF)
	got := received{member: c, version: stream.Version, blob: stream.Blob(), check: stream.Checksum()}
	if r.check == nil {
		return got, nil
	}
	if err := r.check(ctx, got); errors.Is(err, backup.ErrCorrupt) {
		return received{}, err
	} else if err != nil {
		return received{}, &sinkError{err}
	}
	return got, nil
}

// copyStream writes in large pieces: a page cache made of large folios is quicker
// to fill, to read and to let go. A small database comes in several all the same.
func copyStream(dst io.Writer, stream *cluster.Stream, progress func(done, total int64)) error {
	buf := make([]byte, min(max(4<<10, stream.Total/16), 256<<10))
	done := int64(0)
	for {
		n, err := fill(stream, buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return &sinkError{werr}
			}
			done += int64(n)
			progress(min(done, stream.Total), stream.Total)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill is [io.ReadFull], but the end keeps its error: io.EOF is a good one.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// spoolSink brings a database into the spool and has it stored behind.
type spoolSink struct {
	*spool
	up *upload
}

func (s *spoolSink) begin(ctx context.Context, total int64) error {
	s.up.stop(ctx)
	if err := s.reset(); err != nil {
		return err
	}
	// It may have grown since the survey.
	if err := s.up.taker.reserve(s.spool, total); err != nil {
		return err
	}
	// Writing into blocks that are there already is quicker than finding them
	// when the kernel writes back.
	disk.Allocate(s.f, total)
	s.expect = total
	s.up.start(ctx)
	return nil
}

func (s *spoolSink) end(err error) { s.finish(err) }
