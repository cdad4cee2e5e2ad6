package defrag_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestRun_Stream: somebody has a snapshot stream open and does not read it. The member
// hangs, that is told while it does, and it is given up.
func TestRun_Stream(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		t.Run(version, func(t *testing.T) {
			real := testserver.StartCluster(t, testserver.Options{Version: version})
			c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
			fragment(t, real, c)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			stream, err := pb.NewMaintenanceClient(real.Client(t).ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil { // and no more
				t.Fatal(err)
			}
			told, done := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := defrag.Run(t.Context(), c, defrag.Options{
					Patience: time.Second, Trouble: func(err error) { told <- err },
				})
				done <- err
			}()
			hung := func(when string, err error) {
				t.Helper()
				var hung *defrag.HungError
				if !errors.As(err, &hung) || hung.Endpoint != real.Endpoints()[0] || !errors.As(err, new(*backup.HintError)) {
					t.Errorf("%s: got %v", when, err)
				}
			}
			select {
			case err := <-told:
				hung("while it hangs", err)
			case err := <-done:
				t.Fatalf("it ended, and nobody was told: %v", err)
			}
			hung("at last", <-done)
			end()
			testserver.Eventually(t, "the member to answer again", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := real.Client(t).Get(ctx, "any", clientv3.WithSerializable())
				return err == nil
			})
		})
	}
}

// TestRun_Unfit: a member that is slow already, and one that may be streaming, are left
// alone.
func TestRun_Unfit(t *testing.T) {
	busy := errors.New("somebody streams")
	for want, o := range map[string]defrag.Options{
		"it is slow":       {},
		"somebody streams": {Streams: func(context.Context) error { return busy }},
	} {
		url := testserver.StartFakeMember(t, testserver.FakeMember{
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				return &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: 3, MemberId: 1, Revision: 1},
					Leader: 1, DbSize: 1000, DbSizeInUse: 100}, nil
			},
			Range: func(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
				if o.Streams == nil {
					select {
					case <-ctx.Done():
					case <-time.After(1500 * time.Millisecond):
					}
				}
				return &pb.RangeResponse{}, nil
			},
			Defragment: func(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
				t.Errorf("%s: it was defragmented", want)
				return &pb.DefragmentResponse{}, nil
			},
		})
		c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}})
		if _, err := defrag.Run(t.Context(), c, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
