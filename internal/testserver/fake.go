package testserver

import (
	"context"
	"errors"
	"net"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// FakeMember is an etcd server with answers from the test, for behaviour that no
// real one can be brought to. Nil functions answer like the healthy leader
// of a cluster of one; a nil Snapshot sends a good snapshot of [FakeDB].
type FakeMember struct {
	Status     func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error)
	Alarm      func(context.Context, *pb.AlarmRequest) (*pb.AlarmResponse, error)
	HashKV     func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error)
	MemberList func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error)
	Defragment func(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error)
	Range      func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error)
	Snapshot   SnapshotFunc

	// ID is the member's id in the default answers; 1 if it is 0.
	ID uint64
}

// SnapshotFunc answers one Snapshot call. It must return when the stream's
// context ends.
type SnapshotFunc func(*pb.SnapshotRequest, grpc.ServerStreamingServer[pb.SnapshotResponse]) error

// StartFakeMember serves f on a loopback port until the test ends and returns
// its client URL.
func StartFakeMember(t testing.TB, f FakeMember) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "start a fake member", err)
	url := "http://" + l.Addr().String()
	if f.ID == 0 {
		f.ID = 1
	}
	server := grpc.NewServer()
	pb.RegisterMaintenanceServer(server, &fakeMaintenance{fake: f})
	pb.RegisterKVServer(server, &fakeKV{fake: f})
	pb.RegisterClusterServer(server, &fakeCluster{fake: f, url: url})
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		// A test may be over before the server has begun.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("testserver: serve fake member: %v", err)
		}
	})
	return url
}

const fakeClusterID = 0xfa4e

func (f FakeMember) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: fakeClusterID, MemberId: f.ID, Revision: 1, RaftTerm: 2}
}

type fakeMaintenance struct {
	pb.UnimplementedMaintenanceServer
	fake FakeMember
}

func (m *fakeMaintenance) Status(ctx context.Context, r *pb.StatusRequest) (*pb.StatusResponse, error) {
	if m.fake.Status != nil {
		st, err := m.fake.Status(ctx, r)
		if err == nil && st.RaftIndex == 0 { // what is applied was committed
			st.RaftIndex = max(st.RaftAppliedIndex, 1)
		}
		return st, err
	}
	size := int64(len(FakeDB()))
	return &pb.StatusResponse{
		Header: m.fake.header(), Version: "3.7.3", StorageVersion: "3.7.0", Leader: m.fake.ID,
		DbSize: size, DbSizeInUse: size, RaftIndex: 4, RaftAppliedIndex: 4, RaftTerm: 2,
	}, nil
}

func (m *fakeMaintenance) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if m.fake.Alarm != nil {
		return m.fake.Alarm(ctx, r)
	}
	return &pb.AlarmResponse{Header: m.fake.header()}, nil
}

func (m *fakeMaintenance) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if m.fake.HashKV != nil {
		return m.fake.HashKV(ctx, r)
	}
	return &pb.HashKVResponse{Header: m.fake.header(), Hash: 1, CompactRevision: -1, HashRevision: r.Revision}, nil
}

func (m *fakeMaintenance) Defragment(ctx context.Context, r *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if m.fake.Defragment != nil {
		return m.fake.Defragment(ctx, r)
	}
	return &pb.DefragmentResponse{Header: m.fake.header()}, nil
}

func (m *fakeMaintenance) Snapshot(r *pb.SnapshotRequest, stream snapshotStream) error {
	if m.fake.Snapshot != nil {
		return m.fake.Snapshot(r, stream)
	}
	return GoodSnapshot(FakeDB())(r, stream)
}

type fakeKV struct {
	pb.UnimplementedKVServer
	fake FakeMember
}

func (k *fakeKV) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if k.fake.Range != nil {
		return k.fake.Range(ctx, r)
	}
	return &pb.RangeResponse{Header: k.fake.header()}, nil
}

type fakeCluster struct {
	pb.UnimplementedClusterServer
	fake FakeMember
	url  string
}

func (c *fakeCluster) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if c.fake.MemberList != nil {
		return c.fake.MemberList(ctx, r)
	}
	return &pb.MemberListResponse{
		Header: c.fake.header(),
		Members: []*pb.Member{{
			ID: c.fake.ID, Name: "fake", PeerURLs: []string{"http://127.0.0.1:1"}, ClientURLs: []string{c.url},
		}},
	}, nil
}
