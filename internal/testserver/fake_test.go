package testserver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestStartFakeMember(t *testing.T) {
	url := testserver.StartFakeMember(t, testserver.FakeMember{
		ID: 7,
		Alarm: func(context.Context, *pb.AlarmRequest) (*pb.AlarmResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "no alarms today")
		},
	})
	client := fakeClient(t, url)
	got, err := client.Status(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if got.Leader != 7 || got.Header.MemberId != 7 {
		t.Errorf("got leader %d of member %d, want 7 and 7", got.Leader, got.Header.MemberId)
	}
	members, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(members.Members) != 1 || members.Members[0].ID != 7 {
		t.Errorf("got members %v, want one with id 7", members.Members)
	}
	if _, err := client.HashKV(t.Context(), url, 1); err != nil {
		t.Error(err)
	}
	if _, err := client.AlarmList(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v from the test's own function, want permission denied", err)
	}
}

func TestFakeMember_Snapshot(t *testing.T) {
	db := testserver.FakeDB()
	sum := sha256.Sum256(db)
	whole := append(bytes.Clone(db), sum[:]...)
	const n = 50000
	lost := status.Error(codes.DataLoss, "lost")

	for name, c := range map[string]struct {
		send    testserver.SnapshotFunc
		want    []byte // nil where the caller looks for itself
		wantErr codes.Code
	}{
		"Good":         {send: nil, want: whole},
		"NoTrailer":    {send: testserver.NoTrailer(db), want: db},
		"WrongTrailer": {send: testserver.WrongTrailer(db), want: append(bytes.Clone(db), flipped(sum)...)},
		"Truncated":    {send: testserver.Truncated(db, n), want: db[:n]},
		"FailAfter":    {send: testserver.FailAfter(db, n, lost), want: db[:n], wantErr: codes.DataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			client := fakeClient(t, testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: c.send}))
			got, _, err := receive(t, client, -1)
			if !bytes.Equal(got, c.want) {
				t.Errorf("got %d bytes, want %d and equal", len(got), len(c.want))
			}
			if status.Code(err) != c.wantErr {
				t.Errorf("got error %v, want %v", err, c.wantErr)
			}
		})
	}
}

func TestFakeMember_EmptyAfter(t *testing.T) {
	send := testserver.EmptyAfter(testserver.FakeDB(), 100)
	client := fakeClient(t, testserver.StartFakeMember(t, testserver.FakeMember{Snapshot: send}))
	got, messages, err := receive(t, client, 1000)
	if len(got) != 100 || messages != 1000 || err != nil {
		t.Errorf("got %d bytes in %d messages (%v), want 100 in as many as were asked for", len(got), messages, err)
	}
}

func TestFakeMember_StallAfter(t *testing.T) {
	send := testserver.StallAfter(testserver.FakeDB(), 100)
	stalled := make(chan struct{})
	client := fakeClient(t, testserver.StartFakeMember(t, testserver.FakeMember{
		Snapshot: func(r *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
			defer close(stalled)
			return send(r, stream)
		},
	}))
	got, messages, err := receive(t, client, 1)
	if len(got) != 100 || messages != 1 || err != nil {
		t.Errorf("got %d bytes in %d messages (%v), want 100 in one", len(got), messages, err)
	}
	// receive has gone away, which must end the server's side.
	select {
	case <-stalled:
	case <-t.Context().Done():
	}
}

// receive reads up to limit messages of a snapshot, or to its end.
func receive(t *testing.T, client *clientv3.Client, limit int) (data []byte, messages int, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	remote := clientv3.RetryMaintenanceClient(client, client.ActiveConnection())
	stream, err := remote.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for messages != limit {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, messages, nil
		}
		if err != nil {
			return data, messages, err
		}
		data = append(data, msg.Blob...)
		messages++
	}
	return data, messages, nil
}

func flipped(sum [sha256.Size]byte) []byte {
	sum[0] ^= 1
	return sum[:]
}

func fakeClient(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}
