package check_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// revision asks etcd without the code under test.
func revision(t *testing.T, c *testserver.Cluster) int64 {
	t.Helper()
	resp, err := c.Client(t).Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func TestCluster_Healthy(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		t.Run(version, func(t *testing.T) {
			options := testserver.Options{Version: version, Size: 3, TLS: true}
			if version == "3.5" {
				options.Args = []string{"--enable-v2=true"}
			}
			c := testserver.StartCluster(t, options)
			testserver.Fill(t, c.Client(t), testserver.FillOptions{})
			before := revision(t, c)
			got := run(t, forCluster(t, c.Endpoints(), tlsOf(c.CAFile, c.CertFile, c.KeyFile)))
			wantNone(t, got, check.SectionCluster, ok)
			want(t, got, check.SectionCluster, ok, "3 of 3 endpoints answer")
			want(t, got, check.SectionCluster, ok, "leader, etcd "+version)
			want(t, got, check.SectionCluster, ok, "a snapshot may be taken")
			if after := revision(t, c); after != before {
				t.Errorf("the revision went from %d to %d", before, after)
			}
			if version == "3.5" {
				putV2(t, c)
				got := run(t, forCluster(t, c.Endpoints(), tlsOf(c.CAFile, c.CertFile, c.KeyFile)))
				want(t, got, check.SectionCluster, warning, "keys of etcd's v2 API")
			}
		})
	}
}

// putV2 writes a key by the v2 API.
func putV2(t *testing.T, c *testserver.Cluster) {
	t.Helper()
	conf, err := c.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, c.Endpoints()[0]+"/v2/keys/old",
		strings.NewReader("value=v"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("put a v2 key: %s", resp.Status)
	}
}

func TestCluster_MemberDown(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3})
	conf := forCluster(t, c.Endpoints(), "")
	c.Members[1].Kill()
	got := run(t, conf)
	wantNone(t, got, check.SectionCluster, warning)
	want(t, got, check.SectionCluster, warning, "no answer: dial tcp")
	want(t, got, check.SectionCluster, ok, "2 of 3 endpoints answer")
	want(t, got, check.SectionCluster, ok, "a snapshot may be taken")
	if strings.Contains(spell(got), "behind no endpoint") {
		t.Errorf("a member that is down is behind an endpoint:\n%s", spell(got))
	}

	c.Members[2].Kill() // and with it the majority
	got = run(t, conf)
	want(t, got, check.SectionCluster, failure, "majority")

	c.Members[0].Kill()
	got = run(t, conf)
	want(t, got, check.SectionCluster, failure, "no endpoint answers")
	want(t, got, check.SectionSpool, ok, "no cluster answered")
}

func TestCluster_MemberHangs(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3})
	conf := forCluster(t, c.Endpoints(), "")
	conf.Clusters[0].Snapshot.RequestTimeout = 3 * time.Second
	c.Members[1].Pause()
	got := run(t, conf)
	want(t, got, check.SectionCluster, warning, "no answer: not in time")
	want(t, got, check.SectionCluster, ok, "a snapshot may be taken")
}

// TestCluster_OnlyGRPC is about members whose client port has no HTTP: their clocks
// are not known, and all else is right.
func TestCluster_OnlyGRPC(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprint(version, " TLS ", tls), func(t *testing.T) {
				http := testserver.FreeURL(t)
				if tls {
					http = strings.Replace(http, "http:", "https:", 1)
				}
				c := testserver.StartCluster(t,
					testserver.Options{Version: version, TLS: tls, Args: []string{"--listen-client-http-urls=" + http}})
				got := run(t, forCluster(t, c.Endpoints(), tlsOf(c.CAFile, c.CertFile, c.KeyFile)))
				wantNone(t, got, check.SectionCluster, ok)
				want(t, got, check.SectionCluster, ok, "a snapshot may be taken")
				if tls {
					got = run(t, forCluster(t, c.Endpoints(), tlsOf(c.CAFile, "", "")))
					want(t, got, check.SectionCluster, failure, "name a client certificate")
				}
			})
		}
	}
}

func TestCluster_Membership(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 2})
	learner := c.AddLearner(t)
	got := run(t, forCluster(t, c.Endpoints()[:1], ""))
	want(t, got, check.SectionCluster, warning, c.Endpoints()[1])
	want(t, got, check.SectionCluster, warning, learner.ClientURL)

	got = run(t, forCluster(t, append(c.Endpoints(), learner.ClientURL), ""))
	wantNone(t, got, check.SectionCluster, ok)
	want(t, got, check.SectionCluster, ok, "it is a learner")

	// Two ways to one member.
	proxy := testserver.StartProxy(t, c.Members[0].Endpoint)
	got = run(t, forCluster(t, append(c.Endpoints(), learner.ClientURL, proxy.URL), ""))
	want(t, got, check.SectionCluster, warning, "are the same member")

	// Endpoints of two clusters.
	other := testserver.StartCluster(t, testserver.Options{Version: "3.5"})
	got = run(t, forCluster(t, append(c.Endpoints(), other.Endpoints()...), ""))
	want(t, got, check.SectionCluster, failure, "one of these belongs to another cluster")
}

func TestCluster_TLS(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		c := testserver.StartCluster(t, testserver.Options{Version: version, TLS: true})
		plain := testserver.StartCluster(t, testserver.Options{Version: version})
		stranger := testserver.NewAuthority(t)
		strangeCert, strangeKey := stranger.Issue(t, "stranger")
		expiredCert, expiredKey := stranger.Issue(t, "expired",
			func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		serverOnly, serverOnlyKey := stranger.Issue(t, "server",
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		for name, test := range map[string]struct {
			endpoints []string
			tls       string
			level     backup.Level
			want      string
		}{
			"WrongCA": {
				c.Endpoints(), tlsOf(stranger.File, c.CertFile, c.KeyFile), failure,
				`was issued by "CN=backupd test CA"`,
			},
			"SystemCAs": {
				c.Endpoints(), tlsOf("", c.CertFile, c.KeyFile), failure, "this host does not trust that authority",
			},
			"NoCertificate": {
				c.Endpoints(), tlsOf(c.CAFile, "", ""), failure, "name a client certificate in tls.cert-file",
			},
			"StrangeClient": {
				c.Endpoints(), tlsOf(c.CAFile, strangeCert, strangeKey), failure,
				"it must be issued by the CA that the members have",
			},
			"ExpiredClient": {c.Endpoints(), tlsOf(c.CAFile, expiredCert, expiredKey), failure, "it expired on"},
			"NotForClients": {
				c.Endpoints(), tlsOf(c.CAFile, serverOnly, serverOnlyKey), failure, "extended key usage clientAuth",
			},
			"SkipVerify": {
				c.Endpoints(),
				fmt.Sprintf("tls: {cert-file: %s, key-file: %s, insecure-skip-verify: true}\n", c.CertFile, c.KeyFile),
				warning, "is not verified",
			},
			"PlainToTLS": {[]string{"http://" + c.Members[0].Endpoint}, "", failure, "the member speaks TLS"},
			"TLSToPlain": {
				[]string{"https://" + plain.Members[0].Endpoint}, tlsOf(c.CAFile, "", ""), failure,
				"does not speak TLS",
			},
			"WithoutScheme": {
				[]string{c.Members[0].Endpoint}, tlsOf(c.CAFile, c.CertFile, c.KeyFile), ok, "answers: leader",
			},
			"NobodyListening": {
				[]string{strings.Replace(testserver.FreeURL(t), "http:", "https:", 1)},
				tlsOf(c.CAFile, c.CertFile, c.KeyFile), failure, "no endpoint answers",
			},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				got := run(t, forCluster(t, test.endpoints, test.tls))
				want(t, got, check.SectionCluster, test.level, test.want)
			})
		}
	}
}

// TestCluster_ServerCertificate uses a server that is no etcd, for no etcd
// starts with an expired certificate of its own.
func TestCluster_ServerCertificate(t *testing.T) {
	ca := testserver.NewAuthority(t)
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		want   backup.Level
		text   string
	}{
		"Expired": {
			func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, failure,
			"the member's certificate expired on",
		},
		"Soon": {
			func(c *x509.Certificate) { c.NotAfter = time.Now().Add(5 * time.Minute) }, warning,
			"the member's certificate expires in",
		},
		"NotYet": {
			func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, failure, "is not valid before",
		},
		"OtherName": {
			func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"m1", "m1.etcd"} }, failure,
			"is for m1, m1.etcd, and not for 127.0.0.1",
		},
		"NoName": {func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, nil }, failure, "is for nobody"},
		"ClientsOnly": {
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, failure,
			"is not accepted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			certFile, keyFile := ca.Issue(t, name, test.change)
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			srv.StartTLS()
			defer srv.Close()
			conf := forCluster(t, []string{srv.URL}, tlsOf(ca.File, "", ""))
			conf.Clusters[0].Snapshot.RequestTimeout = 2 * time.Second // it never answers as etcd does
			want(t, run(t, conf), check.SectionCluster, test.want, test.text)
		})
	}
}

func TestCluster_Auth(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		c := testserver.StartCluster(t, testserver.Options{Version: version})
		c.AddUser(t, "reader", "reader's password", "readers")
		c.EnableAuth(t, "root's password")
		for name, test := range map[string]struct {
			user, password string
			level          backup.Level
			want           string
		}{
			"Root":          {"root", "root's password", ok, "a snapshot may be taken"},
			"NoRole":        {"reader", "reader's password", failure, "etcdctl user grant-role reader root"},
			"WrongPassword": {"root", "wrong password", failure, "wrong user name or password"},
			"NoUser":        {"", "", failure, "give the cluster user and password-file"},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				more := ""
				if test.user != "" {
					more = fmt.Sprintf("user: %s\npassword-file: %s\n", test.user, writeFile(t, test.password))
				}
				got := run(t, forCluster(t, c.Endpoints(), more))
				want(t, got, check.SectionCluster, test.level, test.want)
				if test.level == ok {
					wantNone(t, got, check.SectionCluster, ok)
				}
				if test.password != "" && strings.Contains(spell(got), test.password) {
					t.Errorf("the password is shown:\n%s", spell(got))
				}
			})
		}
	}
}

// TestCluster_Told uses a fake member for what a real one cannot be brought to
// say.
func TestCluster_Told(t *testing.T) {
	status := pb.StatusResponse{
		Header:  &pb.ResponseHeader{ClusterId: 7, MemberId: 1, Revision: 5},
		Version: "3.7.1", Leader: 1, RaftIndex: 9, RaftAppliedIndex: 9,
		DbSize: 20 << 20, DbSizeInUse: 19 << 20, DbSizeQuota: 2 << 30,
	}
	for name, test := range map[string]struct {
		change func(*pb.StatusResponse)
		more   string
		level  backup.Level
		want   string
	}{
		"Corrupting": {func(s *pb.StatusResponse) { s.Version = "3.5.2" }, "", warning, "etcd-io/etcd#13766"},
		"EndOfLife":  {func(s *pb.StatusResponse) { s.Version = "3.4.45" }, "", warning, "no fixes since"},
		"Quota": {
			func(s *pb.StatusResponse) { s.DbSize = 1900 << 20; s.DbSizeInUse = s.DbSize }, "", warning,
			"93% of its quota of 2.0 GiB",
		},
		"QuotaNotTold": {
			func(s *pb.StatusResponse) { s.DbSize, s.DbSizeQuota = 1900<<20, 0 }, "", warning,
			"unless --quota-backend-bytes is set",
		},
		"Fragmented": {func(s *pb.StatusResponse) { s.DbSize = 400 << 20 }, "", warning, "are free pages"},
		"Defragmented": {
			func(s *pb.StatusResponse) { s.DbSize = 400 << 20 }, "defragment: {schedule: '@daily'}\n", ok,
			"database of 400 MiB",
		},
		"NoSpace": {
			func(s *pb.StatusResponse) { s.Errors = []string{"memberID:1 alarm:NOSPACE "} }, "", failure,
			"alarm NOSPACE is active on member 1",
		},
		"Corrupt": {
			func(s *pb.StatusResponse) { s.Errors = []string{"memberID:1 alarm:CORRUPT "} }, "", failure,
			"endpoint hashkv",
		},
		"NoLeader":        {func(s *pb.StatusResponse) { s.Leader = 0 }, "", failure, "no majority"},
		"OnlyOneIsVoting": {func(*pb.StatusResponse) {}, "", ok, "one voting member"},
		"LargeAlone": {
			func(s *pb.StatusResponse) { s.DbSize, s.DbSizeInUse = 600<<20, 550<<20 }, "", warning,
			"no snapshot will be verified: HashKV is not asked of a leader with more than 512 MiB in use, and it has 550 MiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ep := testserver.StartFakeMember(t, testserver.FakeMember{
				Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
					s := pb.StatusResponse{
						Header: status.Header, Version: status.Version, Leader: status.Leader,
						RaftIndex: status.RaftIndex, RaftAppliedIndex: status.RaftAppliedIndex,
						DbSize: status.DbSize, DbSizeInUse: status.DbSizeInUse, DbSizeQuota: status.DbSizeQuota,
					}
					test.change(&s)
					return &s, nil
				},
			})
			got := run(t, forCluster(t, []string{ep}, test.more))
			want(t, got, check.SectionCluster, test.level, test.want)
			if test.level == ok {
				wantNone(t, got, check.SectionCluster, ok)
			}
		})
	}
}

func TestCluster_PasswordFileMissing(t *testing.T) {
	file := writeFile(t, "x")
	conf := forCluster(t, []string{"127.0.0.1:1"}, "user: root\npassword-file: "+file+"\n")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	got := run(t, conf)
	want(t, got, check.SectionConfiguration, failure, "no such file")
	want(t, got, check.SectionCluster, failure, "no such file")
}

// TestCluster_Proxy: snapshots through etcd's own proxy are never verified, so check names
// the proxy, and what to write instead.
func TestCluster_Proxy(t *testing.T) {
	for _, version := range []string{"3.5", "3.6"} {
		c := testserver.StartCluster(t, testserver.Options{Version: version})
		proxy := c.StartGRPCProxy(t)
		got := run(t, forCluster(t, []string{proxy}, ""))
		wantNone(t, got, check.SectionCluster, warning)
		want(t, got, check.SectionCluster, warning, "a proxy answers there")
		want(t, got, check.SectionCluster, warning, "name the client URLs of the members themselves in endpoints")
		if text := spell(got); strings.Count(text, "a proxy answers there") != 1 || !strings.Contains(text, "prod "+proxy) {
			t.Errorf("want the proxy named once:\n%s", text)
		}
		got = run(t, forCluster(t, append([]string{proxy}, c.Endpoints()...), ""))
		want(t, got, check.SectionCluster, warning, "a proxy answers there")
		if text := spell(got); strings.Contains(text, "are the same member") || strings.Contains(text, "no configured") {
			t.Errorf("the proxy counts as a member:\n%s", text)
		}
	}
}

// TestCluster_Discovered: the members that SRV records name are checked as if they were
// listed.
func TestCluster_Discovered(t *testing.T) {
	dns := testserver.StartDNS(t)
	c := testserver.StartCluster(t, testserver.Options{})
	conf := forCluster(t, c.Endpoints(), "")
	conf.Clusters[0].Endpoints, conf.Clusters[0].DiscoverySRV = nil, "example.test"
	got := run(t, conf)
	want(t, got, check.SectionCluster, failure, "dig SRV _etcd-client-ssl._tcp.example.test")
	_, text, _ := net.SplitHostPort(c.Members[0].Endpoint)
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	dns.Set("_etcd-client._tcp.example.test", uint16(port))
	got = run(t, conf)
	wantNone(t, got, check.SectionCluster, warning)
	want(t, got, check.SectionCluster, ok, "1 of 1 endpoints answer")
	want(t, got, check.SectionCluster, ok, "a snapshot may be taken")
}

// TestCluster_Token: a token that etcd refuses is no matter of users and passwords.
func TestCluster_Token(t *testing.T) {
	url := testserver.StartFakeMember(t, testserver.FakeMember{
		Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
			return nil, rpctypes.ErrGRPCInvalidAuthToken
		}})
	got := run(t, forCluster(t, []string{url}, "token-file: "+writeFile(t, "any\n")+"\n"))
	want(t, got, check.SectionCluster, failure, "get a new token, and write it to ")
}
