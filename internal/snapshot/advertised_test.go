package snapshot_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// ear is a server without TLS that takes every password.
type ear struct {
	pb.UnimplementedAuthServer
	mu        sync.Mutex
	passwords []string
	conns     int
}

func (e *ear) Authenticate(_ context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.passwords = append(e.passwords, r.Password)
	return &pb.AuthenticateResponse{Token: "any"}, nil
}

// counted is a listener whose connections are counted.
type counted struct {
	net.Listener
	*ear
}

// Accept implements net.Listener.
func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.conns++
	}
	return conn, err
}

func startEar(t *testing.T) (*ear, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e, server := &ear{}, grpc.NewServer()
	pb.RegisterAuthServer(server, e)
	done := make(chan error, 1)
	go func() { done <- server.Serve(&counted{l, e}) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return e, "http://" + l.Addr().String()
}

// TestTaker_Advertised: a member that is no endpoint advertises a URL without TLS. The
// password of a cluster with TLS does not go there.
func TestTaker_Advertised(t *testing.T) {
	e, url := startEar(t)
	real := testserver.StartCluster(t, testserver.Options{
		Size: 2, TLS: true, Args: []string{"--advertise-client-urls=" + url}})
	real.EnableAuth(t, "secret")
	for name, endpoint := range map[string]string{
		"Scheme": real.Members[0].ClientURL, "NoScheme": real.Members[0].Endpoint} {
		for _, policy := range []compare.Policy{compare.One, compare.All} {
			t.Run(name+policy.String(), func(t *testing.T) {
				source := testserver.Connect(t, cluster.Config{
					Endpoints: []string{endpoint}, CAFile: real.CAFile, CertFile: real.CertFile, KeyFile: real.KeyFile,
					Username: "root", Password: "secret"})
				taker := newTaker(t, source, mem.New())
				taker.Hashes = policy
				m := take(t, taker)
				var other backup.MemberHash
				for _, h := range m.MemberHashes {
					if h.MemberID != m.Source.ID {
						other = h
					}
				}
				if other.Result != backup.HashUnavailable || !strings.Contains(other.Detail, url+", which has no TLS") {
					t.Errorf("%s: got %+v", m.State(), m.MemberHashes)
				}
			})
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.passwords) > 0 || e.conns > 0 {
		t.Errorf("%d connections in clear text, and on them the passwords %q", e.conns, e.passwords)
	}
}
