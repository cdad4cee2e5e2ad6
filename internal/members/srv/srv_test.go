package srv_test

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/srv"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const (
	plain  = "_etcd-server._tcp.example.test"
	secure = "_etcd-server-ssl._tcp.example.test"
)

func discovery(peerURLs ...string) srv.Discovery {
	return srv.Discovery{
		Domain: members.Word{Text: "example.test", At: members.Position{File: "f", Line: 7}}, Name: "m1",
		PeerURLs: peerURLs,
	}
}

// etcd is what etcd's own server makes of a discovery.
func etcd(t *testing.T, d srv.Discovery) (types.URLsMap, error) {
	t.Helper()
	conf := embed.NewConfig()
	conf.Name, conf.DNSCluster, conf.DNSClusterServiceName = d.Name, d.Domain.Text, d.Service
	conf.InitialCluster, conf.ZapLoggerBuilder = "", embed.NewZapLoggerBuilder(zap.NewNop())
	conf.AdvertisePeerUrls = nil
	for _, text := range d.PeerURLs {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		conf.AdvertisePeerUrls = append(conf.AdvertisePeerUrls, *u)
	}
	if err := conf.Validate(); err != nil {
		t.Fatal(err)
	}
	got, _, err := conf.PeerURLsMapAndToken("etcd")
	return got, err
}

// TestLookup: the members are those that etcd finds, or it finds none, or there is a reason
// to find none.
func TestLookup(t *testing.T) {
	dns := testserver.StartDNS(t)
	tests := map[string]struct {
		records map[string][]uint16
		d       srv.Discovery
		want    string // the members, or the error
		etcd    bool   // etcd would go on where this does not
	}{
		"three": {
			records: map[string][]uint16{plain: {2380, 2381, 2382}}, d: discovery("http://127.0.0.1:2381"),
			want: "0=http://localhost:2380,1=http://localhost:2382,m1=http://localhost:2381",
		},
		"two URLs": {
			records: map[string][]uint16{secure: {2380, 2381, 2382}},
			d:       discovery("https://127.0.0.1:2381", "https://127.0.0.1:2382"),
			want:    "0=https://localhost:2380,m1=https://localhost:2381,m1=https://localhost:2382",
		},
		"not among them": {
			records: map[string][]uint16{plain: {2380}}, d: discovery("http://127.0.0.1:2381"),
			want: "f:7: m1 is not among the members of example.test in DNS (http://localhost:2380): its own peer URLs are " +
				"http://127.0.0.1:2381",
		},
		"no records": {d: discovery("http://127.0.0.1:2380"), want: "f:7: no members of example.test in DNS: error"},
		"another service": {
			records: map[string][]uint16{plain: {2380}, "_etcd-server-blue._tcp.example.test": {2381}},
			d: srv.Discovery{Domain: members.Word{Text: "example.test"}, Service: "blue", Name: "m1",
				PeerURLs: []string{"http://127.0.0.1:2381"}},
			want: "m1=http://localhost:2381",
		},
		"the scheme of its own": {
			records: map[string][]uint16{secure: {2380, 2381}}, d: discovery("http://127.0.0.1:2381"),
			want: "f:7: _etcd-server-ssl._tcp.example.test has 2 records (localhost:2380, localhost:2381), of which 1 can",
		},
		"both kinds": {
			records: map[string][]uint16{secure: {2380, 2381}, plain: {2382}}, d: discovery("https://127.0.0.1:2381"),
			want: "f:7: example.test has records of _etcd-server-ssl._tcp and of _etcd-server._tcp", etcd: true,
		},
		"a record of the other kind": {
			records: map[string][]uint16{secure: {2381}, plain: {2381}}, d: discovery("http://127.0.0.1:2381"),
			want: "f:7: error querying DNS SRV records for _etcd-server-ssl bootstrap at https://localhost:2381", etcd: true,
		},
		"a number for a name": {
			records: map[string][]uint16{plain: {2380, 2381}},
			d: srv.Discovery{Domain: members.Word{Text: "example.test"}, Name: "0",
				PeerURLs: []string{"http://127.0.0.1:2381"}},
			want: "etcd gives numbers to the members", etcd: true,
		},
		"no name that can be looked up": {
			records: map[string][]uint16{plain: {2380}}, d: discovery("http://127.0.0.1:x"), want: "f:7: the peer URLs of m1",
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			for _, r := range []string{plain, secure, "_etcd-server-blue._tcp.example.test"} {
				dns.Set(r, c.records[r]...)
			}
			got, err := c.d.Lookup()
			if err != nil {
				var at *members.FileError
				if !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if name != "no name that can be looked up" {
					if list, err := etcd(t, c.d); (err == nil) != c.etcd {
						t.Errorf("etcd finds %v, %v", list, err)
					}
				}
				return
			}
			if s := members.Format(got.Members); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			list, err := etcd(t, c.d)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]string{}
			for name, urls := range list {
				want[name] = urls.StringSlice()
			}
			have := map[string][]string{}
			for _, m := range got.Members {
				have[m.Name] = m.PeerURLs
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("etcd -, got +:\n%s", diff)
			}
			if diff := cmp.Diff(want["m1"], got.Self.PeerURLs); diff != "" {
				t.Errorf("the member itself: etcd -, got +:\n%s", diff)
			}
		})
	}
	dns.Set(plain)
	dns.Set(secure)
	var hint *backup.HintError
	if _, err := discovery("http://127.0.0.1:1").Lookup(); !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, "dig SRV _etcd-server-ssl._tcp.example.test") {
		t.Errorf("the hint: got %v", err)
	}
}

// TestLookup_Server: a server that was started with the records is the member that was
// found.
func TestLookup_Server(t *testing.T) {
	dns := testserver.StartDNS(t)
	peer, client := testserver.FreeURL(t), testserver.FreeURL(t)
	u, err := url.Parse(peer)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	dns.Set(plain, uint16(port))
	c, err := url.Parse(client)
	if err != nil {
		t.Fatal(err)
	}
	conf := embed.NewConfig()
	conf.Dir, conf.Name, conf.DNSCluster, conf.InitialCluster = t.TempDir(), "m1", "example.test", ""
	conf.InitialClusterToken = "token"
	advertised := url.URL{Scheme: "http", Host: "localhost:" + u.Port()}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{*u}, []url.URL{advertised}
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{*c}, []url.URL{*c}
	conf.ZapLoggerBuilder, conf.UnsafeNoFsync = embed.NewZapLoggerBuilder(zap.NewNop()), true
	server, err := embed.StartEtcd(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	<-server.Server.ReadyNotify()
	found, err := discovery(advertised.String()).Lookup()
	if err != nil {
		t.Fatal(err)
	}
	id, err := members.Identify(found.Members, "token")
	if err != nil {
		t.Fatal(err)
	}
	if got := backup.MemberID(server.Server.Cluster().ID()); got != id {
		t.Errorf("the cluster has the id %s, want %s of %v", got, id, found.Members)
	}
	if got := backup.MemberID(server.Server.MemberID()); len(found.Members) != 1 || got != found.Members[0].ID {
		t.Errorf("the member has the id %s, want %v", got, found.Members)
	}
}
