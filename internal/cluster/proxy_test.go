package cluster_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestProxy: etcd's own proxy lists itself as the only member, or passes the list of the
// members on. In neither case it is one of them.
func TestProxy(t *testing.T) {
	for _, version := range []string{"3.5", "3.6"} {
		t.Run(version, func(t *testing.T) {
			real := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
			filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 20})
			lists, passes := real.StartGRPCProxy(t), real.StartGRPCProxy(t, "--advertise-client-url=")
			for name, endpoint := range map[string]string{"Lists": lists, "Passes": passes} {
				t.Run(name, func(t *testing.T) {
					c := testserver.Connect(t, cluster.Config{Endpoints: []string{endpoint}})
					testProxy(t, c, endpoint, backup.Revision(filled.Revision))
				})
			}
			t.Run("BesideMembers", func(t *testing.T) { testBesideProxy(t, real, lists, passes) })
		})
	}
}

func testProxy(t *testing.T, c *cluster.Cluster, endpoint string, rev backup.Revision) {
	s := survey(t, c)
	if len(s.Members) != 0 || !errors.As(s.MembersErr, new(*cluster.ProxyError)) {
		t.Errorf("got members %v, %v", s.Members, s.MembersErr)
	}
	var hint *backup.HintError
	if !errors.As(s.MembersErr, &hint) || !strings.Contains(hint.Hint, "--endpoints") {
		t.Errorf("got hint %v", hint)
	}
	p := s.Candidates[0]
	if len(s.Candidates) != 1 || !p.Proxy || !strings.Contains(p.String(), "proxy") || s.Endpoint(p.MemberID) != "" {
		t.Errorf("got %v", s.Candidates)
	}
	if len(s.Sound().Candidates) != 0 || cluster.Worker(s, 0) != 0 {
		t.Errorf("the proxy counts as a healthy member: %v", s.Candidates)
	}
	if _, _, err := c.Probe(t.Context(), endpoint); !errors.As(err, new(*cluster.ProxyError)) {
		t.Errorf("probe: got %v", err)
	}
	// Of three members that answer in turn two are not the one that is asked.
	wrong := 0
	for range 3 {
		if _, err := c.HashKV(t.Context(), p, rev); errors.As(err, new(*cluster.ProxyError)) {
			wrong++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if wrong != 2 {
		t.Errorf("%d of 3 answers were known to be another member's, want 2", wrong)
	}
	if _, err := c.HashKVNow(t.Context(), p, rev); !errors.As(err, new(*cluster.ProxyError)) {
		t.Errorf("HashKV now: got %v", err)
	}
	readAll(t, c, endpoint)
}

// testBesideProxy: what a member says at its own endpoint counts, whatever comes first.
func testBesideProxy(t *testing.T, real *testserver.Cluster, proxies ...string) {
	s := survey(t, testserver.Connect(t, cluster.Config{Endpoints: slices.Concat(proxies, real.Endpoints())}))
	if len(s.Members) != 3 || s.MembersErr != nil {
		t.Errorf("got members %v, %v", s.Members, s.MembersErr)
	}
	if len(s.Candidates) != 3 || slices.ContainsFunc(s.Candidates, func(c cluster.Candidate) bool { return c.Proxy }) {
		t.Errorf("got %v", s.Candidates)
	}
	one := real.Endpoints()[:1]
	s = survey(t, testserver.Connect(t, cluster.Config{Endpoints: slices.Concat(proxies, one)}))
	if first := s.Candidates[0]; first.Proxy || first.Endpoint != one[0] || len(s.Members) != 3 {
		t.Errorf("got %v, members %v", s.Candidates, s.Members)
	}
}

// TestProxy_One: a proxy before a single member is a proxy, too. A member that lists
// itself is none, also if it names the others wrongly.
func TestProxy_One(t *testing.T) {
	header := &pb.ResponseHeader{ClusterId: 5, MemberId: 7}
	for name, c := range map[string]struct {
		list  []*pb.Member
		proxy bool
	}{
		"Itself":   {[]*pb.Member{{ID: 7}}, false},
		"Others":   {[]*pb.Member{{ID: 1}, {ID: 7}, {ID: 0}}, false},
		"Nobody":   {nil, true},
		"NotIt":    {[]*pb.Member{{ID: 1}, {ID: 2}}, true},
		"NoNumber": {[]*pb.Member{{Name: "host", ClientURLs: []string{"127.0.0.1:23790"}}}, true},
	} {
		url := testserver.StartFakeMember(t, testserver.FakeMember{ID: 7,
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				return &pb.StatusResponse{Header: header, Leader: 7, RaftAppliedIndex: 4}, nil
			},
			MemberList: func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
				return &pb.MemberListResponse{Header: header, Members: c.list}, nil
			}})
		s := survey(t, testserver.Connect(t, cluster.Config{Endpoints: []string{url}}))
		if got := s.Candidates[0].Proxy; got != c.proxy || (len(s.Members) == 0) != c.proxy {
			t.Errorf("%s: proxy %v, members %v, %v", name, got, s.Members, s.MembersErr)
		}
	}
}

// TestDoubtful_Proxy: at a proxy the revision may be one member's and the index another's.
func TestDoubtful_Proxy(t *testing.T) {
	a, b := cluster.Candidate{Revision: 5, AppliedIndex: 9}, cluster.Candidate{Revision: 6, AppliedIndex: 9}
	if !cluster.Doubtful([]cluster.Candidate{a, b}) {
		t.Error("two members: not doubtful")
	}
	b.Proxy = true
	if cluster.Doubtful([]cluster.Candidate{a, b}) {
		t.Error("a member and a proxy: doubtful")
	}
}
