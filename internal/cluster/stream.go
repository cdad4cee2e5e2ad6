package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/wire"
	"github.com/etcd-backupd/backupd/internal/pace"
)

// minRate bounds a whole snapshot: a member that sends a few bytes now and then
// never stalls, yet its read transaction keeps etcd from reusing pages.
const minRate = 1 << 20 // bytes per second

// maxDatabase is the greatest size that is believed: far more than etcd can hold.
const maxDatabase = 1 << 50

// StallError is returned by a [Stream] that made no progress in bytes for too
// long. Messages do not count: an etcd whose disk fails sends empty ones for
// ever.
type StallError struct {
	Endpoint string
	After    int64 // bytes received
	Timeout  time.Duration
}

func (e *StallError) Error() string {
	return fmt.Sprintf("stream snapshot from %s: no progress for %v after %d bytes", e.Endpoint, e.Timeout, e.After)
}

// Stream reads one member's database: the database, then the 32-byte SHA-256 that
// etcd sends last. Read returns io.EOF only after it has compared this trailer with
// the bytes before it; a cut or damaged stream ends in an error that wraps
// [backup.ErrCorrupt] instead.
type Stream struct {
	// Version is the storage version the server names, "" before etcd 3.6.
	Version string
	// Total is the size of the database in bytes, without the trailer.
	Total int64

	endpoint string
	ctx      context.Context
	cancel   context.CancelCauseFunc
	remote   pb.MaintenanceClient
	recv     func() (*pb.SnapshotResponse, error)
	stall    time.Duration
	pace     *pace.Limiter
	timer    *time.Timer

	buf   []byte       // received, not yet read
	last  int          // bytes of the last message
	n     atomic.Int64 // received
	sum   hash.Hash
	tail  []byte // the last 32 bytes received, not yet in sum
	check backup.Checksum
	blob  backup.Blob
	err   error
}

// Stream opens the database of the member behind one endpoint. It returns once
// the first bytes have come. The caller must close the stream.
func (c *Cluster) Stream(ctx context.Context, endpoint string) (s *Stream, err error) {
	asked := false
	err = c.conns.do(ctx, endpoint, func(cl *clientv3.Client) (err error) {
		asked = true
		s, err = openStream(ctx, cl, endpoint, &c.cfg)
		return err
	})
	if err != nil && !asked {
		return nil, fmt.Errorf("stream snapshot from %s: %w", endpoint, err)
	}
	return s, err
}

func openStream(ctx context.Context, cl *clientv3.Client, endpoint string, cfg *Config) (*Stream, error) {
	s := &Stream{endpoint: endpoint, stall: cfg.StallTimeout, pace: pace.New(cfg.MaxRate), sum: sha256.New()}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.timer = time.AfterFunc(s.stall, func() {
		s.cancel(&StallError{Endpoint: endpoint, After: s.n.Load(), Timeout: s.stall})
	})
	s.remote = pb.NewMaintenanceClient(cl.ActiveConnection())
	rpc, err := s.remote.Snapshot(s.ctx, &pb.SnapshotRequest{}, grpc.ForceCodecV2(&wire.Codec{}))
	if err == nil {
		s.recv = rpc.Recv
		err = s.fill()
	} else {
		err = s.explain(err)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Read yields the database and its trailer.
func (s *Stream) Read(p []byte) (int, error) {
	if len(s.buf) == 0 && s.err == nil {
		s.pace.Wait(s.ctx, s.last)
		s.timer.Reset(s.stall)
		s.err = s.fill()
	}
	if len(s.buf) == 0 {
		return 0, s.err
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

// fill receives until there are bytes, the end or an error. The watchdog runs
// only while fill waits: a slow reader is no fault of the member.
func (s *Stream) fill() error {
	defer s.timer.Stop()
	for {
		msg, err := s.recv()
		if err == io.EOF {
			return s.finish()
		}
		if err != nil {
			return s.explain(err)
		}
		if s.n.Load() == 0 {
			s.begin(msg)
		}
		if len(msg.Blob) == 0 {
			continue // the timer goes on
		}
		if n := s.n.Add(int64(len(msg.Blob))); n > s.Total+sha256.Size {
			// Whoever receives it has made room for what was announced.
			return s.odd(n)
		}
		s.hash(msg.Blob)
		_, _ = s.check.Write(msg.Blob) // never fails
		s.buf, s.last = msg.Blob, len(msg.Blob)
		return nil
	}
}

func (s *Stream) begin(msg *pb.SnapshotResponse) {
	if msg.Version != "" {
		s.Version = msg.Version
	}
	if len(msg.Blob) == 0 {
		return
	}
	s.Total = int64(len(msg.Blob)) + int64(min(msg.RemainingBytes, maxDatabase))
	limit := max(5*time.Minute, time.Duration(s.Total/minRate)*time.Second)
	deadline := time.AfterFunc(limit, func() {
		s.cancel(fmt.Errorf("stream snapshot from %s: not complete after %v", s.endpoint, limit))
	})
	context.AfterFunc(s.ctx, func() { deadline.Stop() })
}

// hash adds all but the last 32 bytes to the sum: only at the end is it known
// which bytes are the trailer.
func (s *Stream) hash(p []byte) {
	if len(p) >= sha256.Size {
		s.sum.Write(s.tail)
		s.sum.Write(p[:len(p)-sha256.Size])
		s.tail = append(s.tail[:0], p[len(p)-sha256.Size:]...)
		return
	}
	s.tail = append(s.tail, p...)
	if over := len(s.tail) - sha256.Size; over > 0 {
		s.sum.Write(s.tail[:over])
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
}

// finish returns io.EOF if the stream is complete and intact, or the fault.
func (s *Stream) finish() error {
	n := s.n.Load()
	switch {
	case n < s.Total:
		return backup.Corruptf("stream snapshot from %s: truncated: %d bytes of %d", s.endpoint, n, s.Total)
	case n == s.Total:
		return backup.Corruptf("stream snapshot from %s: %d bytes came without etcd's SHA-256 trailer", s.endpoint, n)
	case n != s.Total+sha256.Size:
		return s.odd(n)
	case n%512 != sha256.Size:
		// etcd's own tools recognize a file with a trailer by this length.
		return backup.Corruptf("stream snapshot from %s: %d bytes are no database and trailer", s.endpoint, n)
	case string(s.sum.Sum(nil)) != string(s.tail):
		return backup.Corruptf("stream snapshot from %s: expected sha256 %x, got %x",
			s.endpoint, s.tail, s.sum.Sum(nil))
	}
	s.sum.Write(s.tail)
	s.blob = backup.Blob{Bytes: n, SHA256: backup.Digest(s.sum.Sum(nil))}
	return io.EOF
}

// odd is the error for a stream of another length than it announced.
func (s *Stream) odd(n int64) error {
	return backup.Corruptf("stream snapshot from %s: %d bytes came, %d and a trailer were announced",
		s.endpoint, n, s.Total)
}

// Checksum returns the checksum of all bytes until now. Copies of them are
// compared by it.
func (s *Stream) Checksum() backup.Checksum { return s.check }

// Blob returns the size and SHA-256 of all bytes, trailer included. It is complete
// once Read has returned io.EOF.
func (s *Stream) Blob() backup.Blob { return s.blob }

func (s *Stream) explain(err error) error {
	cause := context.Cause(s.ctx)
	var stall *StallError
	if errors.As(cause, &stall) || s.ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if s.ctx.Err() != nil {
		return fmt.Errorf("stream snapshot from %s: %w", s.endpoint, cause)
	}
	return fmt.Errorf("stream snapshot from %s: after %d bytes: %w", s.endpoint, s.n.Load(), explain(err))
}

// Status asks the member that sends the stream for its status, over the same
// connection. Unlike a survey it never ends that connection.
func (s *Stream) Status(ctx context.Context) (Candidate, error) {
	st, err := s.remote.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return Candidate{}, explain(err)
	}
	return newCandidate(answer{endpoint: s.endpoint, status: st}), nil
}

// End ends the stream because of err, which Read then returns. It may be called while
// another goroutine reads.
func (s *Stream) End(err error) { s.cancel(err) }

// Close ends the stream, so that etcd can reuse its pages.
func (s *Stream) Close() error {
	s.timer.Stop()
	s.cancel(context.Canceled)
	return nil
}
