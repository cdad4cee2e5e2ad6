package cluster_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// portOf is the port of a client URL.
func portOf(t *testing.T, m *testserver.Member) uint16 {
	t.Helper()
	_, text, err := net.SplitHostPort(m.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

// TestDiscover: the members are those that the records name at each survey.
func TestDiscover(t *testing.T) {
	dns := testserver.StartDNS(t)
	real := testserver.StartCluster(t, testserver.Options{Size: 2})
	const plain, secure = "_etcd-client._tcp.example.test", "_etcd-client-ssl._tcp.example.test"
	conf := cluster.Config{DiscoverySRV: "example.test", InsecureDiscovery: true, InsecureTransport: true}
	var hint *backup.HintError
	if _, err := cluster.New(conf); !errors.As(err, &hint) || !strings.Contains(hint.Hint, "dig SRV") {
		t.Errorf("without records: got %v", err)
	}
	dns.Set(plain, portOf(t, real.Members[0]))
	c := testserver.Connect(t, conf)
	if s := survey(t, c); len(s.Candidates) != 1 {
		t.Errorf("one record: got %v", s.Candidates)
	}
	dns.Set(plain, portOf(t, real.Members[0]), portOf(t, real.Members[1]))
	if s := survey(t, c); len(s.Candidates) != 2 || len(c.Endpoints()) != 2 {
		t.Errorf("two records: got %v", s.Candidates)
	}
	dns.Set(plain)
	if _, err := c.Survey(t.Context()); !errors.As(err, &hint) {
		t.Errorf("the records are gone: got %v", err)
	}
	// Who has TLS follows no record without.
	dns.Set(plain, portOf(t, real.Members[0]))
	conf.InsecureDiscovery = false
	if _, err := cluster.New(conf); err == nil || !strings.Contains(err.Error(), "without TLS only") {
		t.Errorf("records without TLS: got %v", err)
	}
	dns.Set(secure, portOf(t, real.Members[1]))
	got, err := conf.Discover()
	if err != nil || len(got.Endpoints) != 1 || !strings.HasPrefix(got.Endpoints[0], "https://") ||
		got.ServerName != "example.test" || got.DiscoverySRV != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestDiscover_TLS: the certificates of members that records name must be for the domain.
func TestDiscover_TLS(t *testing.T) {
	dns := testserver.StartDNS(t)
	real := testserver.StartCluster(t, testserver.Options{TLS: true})
	for domain, ok := range map[string]bool{"localhost": true, "example.test": false} {
		dns.Set("_etcd-client-ssl._tcp."+domain, portOf(t, real.Members[0]))
		c := testserver.Connect(t, cluster.Config{
			DiscoverySRV: domain, CAFile: real.CAFile, CertFile: real.CertFile, KeyFile: real.KeyFile})
		_, err := c.Survey(t.Context())
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "not "+domain) {
			t.Errorf("%s: got %v", domain, err)
		}
	}
}
