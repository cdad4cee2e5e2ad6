package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const stall = 500 * time.Millisecond

// read reads the snapshot of a member that answers with f.
func read(t *testing.T, f testserver.SnapshotFunc) ([]byte, *cluster.Stream, error) {
	t.Helper()
	url := testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: f})
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, StallTimeout: stall})
	s, err := c.Stream(t.Context(), url)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	raw, err := io.ReadAll(s)
	return raw, s, err
}

func TestStream_OK(t *testing.T) {
	db := testserver.FakeDB()
	sum := sha256.Sum256(db)
	want := append(bytes.Clone(db), sum[:]...)
	for name, f := range map[string]testserver.SnapshotFunc{
		"AsEtcd":   testserver.GoodSnapshot(db),
		"OddSizes": inChunks(want, len(db), 1, 31, 32, 33, 100_000, 7, 1<<20),
		"TrailerInDrops": func(r *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
			return errors.Join(inChunks(db, len(db), 1<<20)(r, s), inChunks(sum[:], 0, 5)(r, s))
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, s, err := read(t, f)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, error %v", len(got), err)
			}
			if b := s.Blob(); b.Bytes != int64(len(want)) || b.SHA256 != sha256.Sum256(want) ||
				s.Total != int64(len(db)) {
				t.Errorf("got blob %+v, total %d", b, s.Total)
			}
		})
	}
}

// inChunks sends raw in pieces of the sizes, over and over, as parts of a
// database of total bytes.
func inChunks(raw []byte, total int, sizes ...int) testserver.SnapshotFunc {
	return func(_ *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
		for i, sent := 0, 0; sent < len(raw); i++ {
			blob := raw[sent:min(sent+sizes[i%len(sizes)], len(raw))]
			sent += len(blob)
			if err := s.Send(&pb.SnapshotResponse{Blob: blob, RemainingBytes: uint64(max(0, total-sent))}); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestStream_Faults(t *testing.T) {
	db := testserver.FakeDB()
	sum := sha256.Sum256(db)
	const n = 50_000
	lost := status.Error(codes.Internal, "disk on fire")
	for name, c := range map[string]struct {
		f    testserver.SnapshotFunc
		want string
		is   error // nil: neither corrupt nor stalled
	}{
		"NoTrailer":    {testserver.NoTrailer(db), "without etcd's SHA-256 trailer", backup.ErrCorrupt},
		"WrongTrailer": {testserver.WrongTrailer(db), "expected sha256", backup.ErrCorrupt},
		"Truncated":    {testserver.Truncated(db, n), "truncated: 50000 bytes of 131072", backup.ErrCorrupt},
		"CutTo512":     {testserver.Truncated(db, 512*100), "truncated", backup.ErrCorrupt},
		"HalfTrailer": {
			inChunks(append(bytes.Clone(db), sum[:16]...), len(db), 4096), "were announced", backup.ErrCorrupt,
		},
		"TooLong": {
			inChunks(append(append(bytes.Clone(db), sum[:]...), sum[:]...), len(db), 4096), "were announced",
			backup.ErrCorrupt,
		},
		"Nothing":       {testserver.Truncated(db, 0), "trailer", backup.ErrCorrupt},
		"FailsAtOnce":   {testserver.FailAfter(db, 0, lost), "disk on fire", nil},
		"FailsMidway":   {testserver.FailAfter(db, n, lost), "after 50000 bytes", nil},
		"StallsAtOnce":  {testserver.StallAfter(db, 0), "no progress", errStalled},
		"StallsMidway":  {testserver.StallAfter(db, n), "no progress for 500ms after 50000 bytes", errStalled},
		"StallsAtEnd":   {testserver.StallAfter(db, len(db)), "no progress", errStalled},
		"EmptyForEver":  {testserver.EmptyAfter(db, n), "no progress for 500ms after 50000 bytes", errStalled},
		"EmptyAtOnce":   {testserver.EmptyAfter(db, 0), "no progress", errStalled},
		"EmptyAfterAll": {testserver.EmptyAfter(db, len(db)), "no progress", errStalled},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(t, c.f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			var stalled *cluster.StallError
			if errors.As(err, &stalled) != (c.is == errStalled) ||
				errors.Is(err, backup.ErrCorrupt) != (c.is == backup.ErrCorrupt) {
				t.Errorf("got %v (%T)", err, err)
			}
		})
	}
}

// TestStream_Endless: a stream that goes on after the bytes that it announced is cut, and
// nothing of what is too much is passed on.
func TestStream_Endless(t *testing.T) {
	for name, announced := range map[string]int{"Bytes": 64 << 10, "None": 0} {
		db := testserver.FakeDB()[:max(announced, 512)]
		raw, _, err := read(t, func(r *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
			for { // until the client leaves
				if err := inChunks(db, announced, 8<<10)(r, s); err != nil {
					return err
				}
			}
		})
		if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "were announced") ||
			len(raw) > len(db)+sha256.Size {
			t.Errorf("%s: %d bytes were passed on, error %v", name, len(raw), err)
		}
	}
}

var errStalled = errors.New("a StallError is expected")

// TestStream_Slow: neither a slow reader nor a slow member that makes progress
// is taken for a stall.
func TestStream_Slow(t *testing.T) {
	db := testserver.FakeDB()
	pause := func(d time.Duration) { <-time.After(d) } // what is tested is time itself
	t.Run("Reader", func(t *testing.T) {
		db := bytes.Repeat(db, 128) // more than is received ahead
		url := testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: testserver.GoodSnapshot(db)})
		c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, StallTimeout: stall})
		s, err := c.Stream(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		pause(3 * stall)
		if n, err := io.Copy(io.Discard, s); err != nil || n != int64(len(db))+32-100 {
			t.Errorf("got %d bytes, error %v", n, err)
		}
	})
	t.Run("Member", func(t *testing.T) {
		_, _, err := read(t, func(r *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
			sum := sha256.Sum256(db)
			for i := range 8 { // 0.8 s in all, more than a stall
				if err := inChunks(db[i<<14:(i+1)<<14], len(db)-i<<14, 1<<14)(r, s); err != nil {
					return err
				}
				pause(stall / 5)
			}
			return inChunks(sum[:], 0, 32)(r, s)
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestStream_MaxRate: a stream is not faster than its bound. Its first message, and what
// a tenth of a second may make up for, are free.
func TestStream_MaxRate(t *testing.T) {
	const rate = cluster.MinMaxRate
	db := bytes.Repeat(testserver.FakeDB(), 16)
	url := testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: testserver.GoodSnapshot(db)})
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, MaxRate: rate})
	began := time.Now()
	s, err := c.Stream(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n, err := io.Copy(io.Discard, s)
	if took := time.Since(began); err != nil || n != int64(len(db))+32 || took < 300*time.Millisecond {
		t.Errorf("%d bytes in %v, error %v: more than %d a second", n, took, err, rate)
	}
}

func TestStream_Cancelled(t *testing.T) {
	for name, f := range map[string]testserver.SnapshotFunc{
		"AtOnce": testserver.StallAfter(testserver.FakeDB(), 0),
		"Midway": testserver.StallAfter(testserver.FakeDB(), 1000),
		"Empty":  testserver.EmptyAfter(testserver.FakeDB(), 1000),
	} {
		t.Run(name, func(t *testing.T) {
			url := testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: f})
			c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, StallTimeout: time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			s, err := c.Stream(ctx, url)
			if err == nil {
				_, err = io.Copy(io.Discard, s)
				s.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}
