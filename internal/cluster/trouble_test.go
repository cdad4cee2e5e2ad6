package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTrouble: whoever cannot talk to a member learns who refuses whom and what to do,
// each time and in no words of gRPC.
func TestTrouble(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{TLS: true})
	authority := real.Authority()
	between := authority.Between(t)
	pair, err := certs.ReadPair(between.Issue(t, "server"))
	if err != nil {
		t.Fatal(err)
	}
	alone := httptest.NewUnstartedServer(http.NotFoundHandler())
	alone.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}, MinVersion: tls.VersionTLS12}
	alone.Config.ErrorLog = log.New(io.Discard, "", 0)
	alone.StartTLS()
	defer alone.Close()
	plain := testserver.StartFakeMember(t, testserver.FakeMember{})
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	url, host := real.Members[0].ClientURL, real.Members[0].Endpoint
	with := func(a *testserver.Authority, cn string, change ...func(*x509.Certificate)) cluster.Config {
		cert, key := a.Issue(t, cn, change...)
		return cluster.Config{Endpoints: []string{url}, CAFile: real.CAFile, CertFile: cert, KeyFile: key}
	}
	for name, c := range map[string]struct {
		conf       cluster.Config
		text, hint string
	}{
		"PlainToTLS": {cluster.Config{Endpoints: []string{"http://" + host}}, "speaks TLS", "with https://"},
		"NoScheme":   {cluster.Config{Endpoints: []string{host}}, "speaks TLS", "with https://"},
		"TLSToPlain": {cluster.Config{Endpoints: []string{strings.Replace(plain, "http", "https", 1)}},
			"does not speak TLS", "with http://"},
		"NoCertificate": {cluster.Config{Endpoints: []string{url}, CAFile: real.CAFile},
			"the member refuses this client: remote error: tls: certificate required", "--cert and --key"},
		"OtherCA": {with(testserver.NewAuthority(t), "x"), "the member refuses this client", "--trusted-ca-file"},
		"Intermediate": {with(between, "leaf"), "the member refuses this client",
			`"CN=backupd test intermediate CA" and holds no other certificate`},
		"Expired": {with(authority, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
			"the member refuses this client", "old.pem: it expired on"},
		"ForServers": {with(authority, "server", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "the member refuses this client", "clientAuth"},
		"WrongCA": {cluster.Config{Endpoints: []string{url}, CAFile: testserver.NewAuthority(t).File},
			`does not trust the member's certificate, which "CN=backupd test CA" has issued`, "--cacert"},
		"ServerAlone": {cluster.Config{Endpoints: []string{alone.URL}, CAFile: real.CAFile},
			`does not trust the member's certificate, which "CN=backupd test intermediate CA" has issued`,
			"append its certificate to the member's --cert-file"},
		"NoEtcd": {cluster.Config{Endpoints: []string{web.URL}}, "no etcd answers there", "--advertise-client-urls"},
		"Nobody": {cluster.Config{Endpoints: []string{"http://127.0.0.1:1"}},
			"http://127.0.0.1:1: unreachable: dial tcp 127.0.0.1:1: connect: connection refused", ""},
		"NoName": {cluster.Config{Endpoints: []string{"http://nowhere.invalid:2379"}}, "lookup nowhere.invalid", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a refusal may show as another error each time
				cl := testserver.Connect(t, c.conf)
				_, err := cl.Survey(t.Context())
				wantTrouble(t, err, c.text, c.hint)
				_, err = cl.Stream(t.Context(), cl.Endpoints()[0])
				wantTrouble(t, err, c.text[strings.LastIndex(c.text, "unreachable")+1:], c.hint)
			}
		})
	}
}

// TestTrouble_Said: what a server says itself is told as such, and that it is too old.
func TestTrouble_Said(t *testing.T) {
	for _, c := range []struct {
		err        error
		text, hint string
	}{
		{status.Error(codes.Unimplemented, "unknown method Status"), "does not know the request", "at least 3.4"},
		{rpctypes.ErrGRPCNoLeader, "etcd says: etcdserver: no leader", ""},
		{status.Error(codes.ResourceExhausted, "too many requests"), "etcd says: too many requests", ""},
	} {
		url := testserver.StartFakeMember(t, testserver.FakeMember{
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) { return nil, c.err }})
		_, err := testserver.Connect(t, cluster.Config{Endpoints: []string{url}}).Survey(t.Context())
		wantTrouble(t, err, c.text, c.hint)
	}
}

func wantTrouble(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want %q", err, text)
	}
	var given *backup.HintError
	if errors.As(err, &given) != (hint != "") || hint != "" && !strings.Contains(given.Hint, hint) {
		t.Errorf("got hint %+v, want %q", given, hint)
	}
	for _, word := range []string{"rpc error", "desc =", "transport:", "broken pipe", "preface", "handshake"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("%q is in %v", word, err)
		}
	}
}
