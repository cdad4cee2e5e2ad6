package testserver

import (
	"bytes"
	"crypto/sha256"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

type snapshotStream = grpc.ServerStreamingServer[pb.SnapshotResponse]

// chunk is how much etcd puts into one message of a snapshot.
const chunk = 32 << 10

// FakeDB returns bytes in the size of a small database, which no database
// library can open. To send a real one, take it from a real member.
func FakeDB() []byte { return bytes.Repeat([]byte("not a database. "), 8<<10) }

// GoodSnapshot sends db as etcd does: chunks that count down to zero, then the
// SHA-256 of all of them in a message of its own.
func GoodSnapshot(db []byte) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		sum := sha256.Sum256(db)
		return errors.Join(sendDB(stream, db, len(db)), sendTrailer(stream, sum))
	}
}

// NoTrailer sends db and ends the stream in good order without the SHA-256,
// with no byte announced as missing.
func NoTrailer(db []byte) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		return sendDB(stream, db, len(db))
	}
}

// WrongTrailer sends db with the SHA-256 of something else.
func WrongTrailer(db []byte) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		sum := sha256.Sum256(db)
		sum[0] ^= 1
		return errors.Join(sendDB(stream, db, len(db)), sendTrailer(stream, sum))
	}
}

// Truncated announces the whole of db but ends the stream in good order after
// its first n bytes.
func Truncated(db []byte, n int) SnapshotFunc { return FailAfter(db, n, nil) }

// FailAfter sends the first n bytes of db and then ends the stream with err.
func FailAfter(db []byte, n int, err error) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		if err := sendDB(stream, db, n); err != nil {
			return err
		}
		return err
	}
}

// StallAfter sends the first n bytes of db and then nothing, on an open
// stream.
func StallAfter(db []byte, n int) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		if err := sendDB(stream, db, n); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}
}

// EmptyAfter sends the first n bytes of db and then messages without bytes for
// ever, as etcd does when it cannot read its own disk.
func EmptyAfter(db []byte, n int) SnapshotFunc {
	return func(_ *pb.SnapshotRequest, stream snapshotStream) error {
		if err := sendDB(stream, db, n); err != nil {
			return err
		}
		for {
			// Send blocks when the client stops reading, and fails when it goes.
			if err := stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(len(db) - n)}); err != nil {
				return err
			}
		}
	}
}

// sendDB sends the first n bytes of db in chunks, each with the number of
// bytes of db that follow it. The trailer is not counted, as etcd does.
func sendDB(stream snapshotStream, db []byte, n int) error {
	for sent := 0; sent < n; {
		blob := db[sent:min(sent+chunk, n)]
		sent += len(blob)
		msg := &pb.SnapshotResponse{Blob: blob, RemainingBytes: uint64(len(db) - sent), Version: "3.7.0"}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
	return nil
}

func sendTrailer(stream snapshotStream, sum [sha256.Size]byte) error {
	return stream.Send(&pb.SnapshotResponse{Blob: sum[:], Version: "3.7.0"})
}
