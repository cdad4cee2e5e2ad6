//go:build long

package e2e_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// call is one call of a member.
type call struct {
	member, method string
	leader         bool // the member was the leader when the call began; of HashKV only
	calm           bool // nothing was done to the cluster then
	begin, end     time.Time
}

// recorder stands between the daemon and the members of a cluster. It passes every call on as it
// is, remembers it, and can hold the streams of snapshots.
type recorder struct {
	mu    sync.Mutex // guards what follows
	calls []*call
	calm  bool
	hold  chan struct{} // not nil: streams wait in their middle until it is closed
	held  int           // streams that wait
}

// front listens in front of a member and returns its URL.
func (r *recorder) front(t *testing.T, m *testserver.Member) string {
	t.Helper()
	conn, err := grpc.NewClient(m.ClientURL[len("http://"):], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(frames{}), grpc.MaxRecvMsgSize(1<<30),
		grpc.UnknownServiceHandler(func(_ any, in grpc.ServerStream) error { return r.pass(m.Name, conn, in) }))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
		_ = conn.Close()
	})
	return "http://" + listener.Addr().String()
}

// pass passes one call on.
func (r *recorder) pass(member string, conn *grpc.ClientConn, in grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(in)
	c := r.begin(in.Context(), member, path.Base(full), conn)
	defer r.end(c)
	md, _ := metadata.FromIncomingContext(in.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(in.Context(), md))
	defer cancel()
	out, err := grpc.NewClientStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, conn, full,
		grpc.ForceCodec(frames{}))
	if err != nil {
		return err
	}
	go func() {
		for {
			f := &frame{}
			if err := in.RecvMsg(f); err != nil {
				_ = out.CloseSend() // it has asked all that it asks
				return
			}
			if out.SendMsg(f) != nil {
				return
			}
		}
	}()
	for n := 0; ; n++ {
		f := &frame{}
		err := out.RecvMsg(f)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && n == 3 && c.method == "Snapshot" {
			err = r.wait(ctx)
		}
		if err == nil {
			err = in.SendMsg(f)
		}
		if err != nil {
			return err
		}
	}
}

func (r *recorder) begin(ctx context.Context, member, method string, conn *grpc.ClientConn) *call {
	c := &call{member: member, method: method}
	if method == "HashKV" {
		s, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		c.leader = err == nil && s.Leader == s.Header.MemberId
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.begin, c.calm = time.Now(), r.calm
	r.calls = append(r.calls, c)
	return c
}

func (r *recorder) end(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.end = time.Now()
}

// wait waits while streams are held.
func (r *recorder) wait(ctx context.Context) error {
	r.mu.Lock()
	hold := r.hold
	if hold == nil {
		r.mu.Unlock()
		return nil
	}
	r.held++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.held--
		r.mu.Unlock()
	}()
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// holdStreams holds the streams of snapshots that begin from now on in their middle. It returns when
// one waits there.
func (r *recorder) holdStreams(t *testing.T) (release func()) {
	t.Helper()
	hold := make(chan struct{})
	r.mu.Lock()
	r.hold = hold
	r.mu.Unlock()
	waitFor(t, "a stream to be held", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.held > 0
	})
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hold = nil
		close(hold)
	}
}

// during says whether nothing is done to the cluster from now on.
func (r *recorder) during(calm bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm = calm
}

// of returns the calls of a method.
func (r *recorder) of(method string) (out []call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c.method == method {
			done := *c
			if done.end.IsZero() {
				done.end = time.Now()
			}
			out = append(out, done)
		}
	}
	return out
}

// together returns the pairs of calls, one of each list, that were under way at the same time.
func together(a, b []call, ok func(x, y call) bool) (out [][2]call) {
	for i, x := range a {
		for k, y := range b {
			same := slices.Equal(a, b) && k <= i
			if !same && x.begin.Before(y.end) && y.begin.Before(x.end) && ok(x, y) {
				out = append(out, [2]call{x, y})
			}
		}
	}
	return out
}

// frame is a message that nobody decodes.
type frame struct{ bytes []byte }

// frames is the codec of frames.
type frames struct{}

func (frames) Marshal(v any) ([]byte, error) { return v.(*frame).bytes, nil }

func (frames) Unmarshal(raw []byte, v any) error {
	v.(*frame).bytes = slices.Clone(raw)
	return nil
}

func (frames) Name() string { return "proto" }
