package cluster_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSurvey walks one cluster of three downhill, from healthy to one survivor.
func TestSurvey(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 20})

	t.Run("FollowerFirst", func(t *testing.T) {
		c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
		s := survey(t, c)
		if len(s.Candidates) != 3 {
			t.Fatalf("got %v, refused %v", s.Candidates, s.Refused)
		}
		testserver.Lead(t, s) // or chance might make the right order
		testserver.Eventually(t, "the member with the lowest id leads", func() bool {
			s = survey(t, c)
			ids := s.Candidates
			first := testserver.Lowest(ids).MemberID
			return slices.ContainsFunc(ids, func(c cluster.Candidate) bool { return c.Leader && c.MemberID == first })
		})
		if len(s.Candidates) != 3 || len(s.Refused) != 0 || len(s.Members) != 3 || len(s.Alarms) != 0 {
			t.Fatalf("got %+v", s)
		}
		a, b, last := s.Candidates[0], s.Candidates[1], s.Candidates[2]
		if a.Leader || b.Leader || !last.Leader || a.MemberID >= b.MemberID {
			t.Errorf("got order %v, want the followers by id and then the leader", s.Candidates)
		}
		if s.HighWater < backup.Revision(filled.Revision) {
			t.Errorf("got high water %d, want at least %d", s.HighWater, filled.Revision)
		}
		if m := s.Member(a.MemberID); !strings.HasPrefix(m.Name, "m") || len(m.PeerURLs) != 1 {
			t.Errorf("got member %+v", m)
		}
	})
	t.Run("SameMemberTwice", func(t *testing.T) {
		url := real.Members[0].ClientURL
		c := testserver.Connect(t, cluster.Config{Endpoints: []string{url, " " + url, real.Members[0].Endpoint}})
		s := survey(t, c)
		if len(s.Candidates) != 1 || len(s.Refused) != 0 {
			t.Errorf("got %v", s.Candidates)
		}
	})
	t.Run("DeadEndpoint", func(t *testing.T) {
		dead := testserver.FreeURL(t)
		s := survey(t, testserver.Connect(t, cluster.Config{Endpoints: append([]string{dead}, real.Endpoints()...)}))
		if len(s.Candidates) != 3 || len(s.Refused) != 1 || s.Refused[0].Endpoint != dead ||
			!s.Unreachable(strings.TrimPrefix(dead, "http://")) {
			t.Errorf("got candidates %v, refused %v", s.Candidates, s.Refused)
		}
	})
	t.Run("SilentEndpoint", func(t *testing.T) {
		silent := testserver.StartProxy(t, real.Members[0].Endpoint)
		silent.Stall()
		// It must not take the minute that a request may.
		c := testserver.Connect(t, cluster.Config{
			Endpoints: append([]string{silent.URL}, real.Endpoints()...), RequestTimeout: time.Minute,
		})
		began := time.Now()
		s := survey(t, c)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if len(s.Candidates) != 3 || len(s.Refused) != 1 ||
			!strings.Contains(s.Refused[0].Err.Error(), "no answer within") {
			t.Errorf("got candidates %v, refused %v", s.Candidates, s.Refused)
		}
	})
	t.Run("DifferentClusters", func(t *testing.T) {
		other := testserver.StartFakeMember(t, testserver.FakeMember{ID: 9})
		c := testserver.Connect(t, cluster.Config{Endpoints: append(real.Endpoints(), other)})
		if _, err := c.Survey(t.Context()); err == nil || !strings.Contains(err.Error(), "different clusters") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("BackAgain", func(t *testing.T) {
		c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
		real.Members[2].Kill()
		for range 4 {
			if s := survey(t, c); len(s.Refused) != 1 {
				t.Errorf("got refused %v", s.Refused)
			}
		}
		real.Members[2].Restart(t)
		real.WaitReady(t)
		if s := survey(t, c); len(s.Candidates) != 3 { // at once: past failures do not count
			t.Errorf("got refused %v", s.Refused)
		}
	})
	t.Run("Learner", func(t *testing.T) { testLearner(t, real) })
	t.Run("Alarm", func(t *testing.T) { testAlarm(t, real) })
	t.Run("QuorumLost", func(t *testing.T) { testQuorumLost(t, real) })
}

func testLearner(t *testing.T, real *testserver.Cluster) {
	learner := real.AddLearner(t)
	s := survey(t, testserver.Connect(t, cluster.Config{Endpoints: append(real.Endpoints(), learner.ClientURL)}))
	if len(s.Candidates) != 3 || len(s.Refused) != 1 || s.Refused[0].Endpoint != learner.ClientURL ||
		!strings.Contains(s.Refused[0].Err.Error(), "learner") || s.Unreachable(learner.ClientURL) {
		t.Errorf("among others: got candidates %v, refused %v", s.Candidates, s.Refused)
	}
	var refused *cluster.NoMemberError
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{learner.ClientURL, testserver.FreeURL(t)}})
	if _, err := c.Survey(t.Context()); !errors.As(err, &refused) || len(refused.Refusals) != 2 {
		t.Errorf("beside a dead endpoint: got %v, want a NoMemberError", err)
	}
	alone := testserver.Connect(t, cluster.Config{Endpoints: []string{learner.ClientURL}})
	s = survey(t, alone)
	if len(s.Candidates) != 1 || !s.Candidates[0].Learner || len(s.Candidates[0].Concerns) != 1 ||
		!strings.Contains(s.Candidates[0].String(), "learner") {
		t.Errorf("alone: got %v", s.Candidates)
	}
	if s.MembersErr == nil || len(s.Members) != 0 {
		t.Errorf("a learner listed the members: %v, %v", s.Members, s.MembersErr)
	}
	readAll(t, alone, learner.ClientURL)
}

func testAlarm(t *testing.T, real *testserver.Cluster) {
	c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
	before := survey(t, c).Candidates
	arm := func(action pb.AlarmRequest_AlarmAction, id backup.MemberID, alarm pb.AlarmType) {
		t.Helper()
		conn := real.Client(t).ActiveConnection()
		req := &pb.AlarmRequest{Action: action, MemberID: uint64(id), Alarm: alarm}
		if _, err := pb.NewMaintenanceClient(conn).Alarm(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	corrupt, full := before[0].MemberID, before[1].MemberID
	arm(pb.AlarmRequest_ACTIVATE, corrupt, pb.AlarmType_CORRUPT)
	arm(pb.AlarmRequest_ACTIVATE, full, pb.AlarmType_NOSPACE)
	var s *cluster.Survey
	testserver.Eventually(t, "both alarms on all members", func() bool {
		s = survey(t, c)
		return len(s.Alarms) == 2
	})
	got := []backup.MemberID{s.Candidates[0].MemberID, s.Candidates[1].MemberID, s.Candidates[2].MemberID}
	want := []backup.MemberID{before[2].MemberID, full, corrupt}
	if !slices.Equal(got, want) {
		t.Errorf("got order %v, want %v: the leader, the full one, the corrupt one", got, want)
	}
	if !strings.Contains(s.Candidates[1].String(), "NOSPACE") ||
		!strings.Contains(s.Candidates[2].String(), "CORRUPT") {
		t.Errorf("got %v", s.Candidates)
	}
	readAll(t, c, s.Candidates[2].Endpoint) // it is still possible
	arm(pb.AlarmRequest_DEACTIVATE, corrupt, pb.AlarmType_CORRUPT)
	arm(pb.AlarmRequest_DEACTIVATE, full, pb.AlarmType_NOSPACE)
}

func testQuorumLost(t *testing.T, real *testserver.Cluster) {
	real.Members[1].Kill()
	real.Members[2].Kill()
	c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
	var s *cluster.Survey
	testserver.Eventually(t, "the survivor sees no leader", func() bool {
		s = survey(t, c)
		return s.Candidates[0].NoLeader
	})
	if len(s.Candidates) != 1 || len(s.Refused) != 2 || len(s.Members) != 4 || len(s.Candidates[0].Concerns) == 0 {
		t.Errorf("got candidates %v, refused %v, members %v (%v)", s.Candidates, s.Refused, s.Members, s.MembersErr)
	}
	readAll(t, c, s.Candidates[0].Endpoint)
}

// readAll reads a whole snapshot, with its trailer checked.
func readAll(t *testing.T, c *cluster.Cluster, endpoint string) backup.Blob {
	t.Helper()
	s, err := c.Stream(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n, err := io.Copy(io.Discard, s)
	if err != nil || n != s.Total+32 || s.Blob().Bytes != n {
		t.Fatalf("got %d bytes of %d and a trailer, blob %v, error %v", n, s.Total, s.Blob(), err)
	}
	return s.Blob()
}

func TestSurvey_NoMember(t *testing.T) {
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{testserver.FreeURL(t), testserver.FreeURL(t)}})
	var none *cluster.NoMemberError
	_, err := c.Survey(t.Context())
	if !errors.As(err, &none) || len(none.Refusals) != 2 || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("got %v, want a NoMemberError with two reasons", err)
	}
}

// TestDo_Closed: a question that ends the connection to a dead member does not become the reason of
// another, which is asked at the same time.
func TestDo_Closed(t *testing.T) {
	url := testserver.FreeURL(t)
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}})
	asked := 0
	err := c.Do(t.Context(), url, func(cl *clientv3.Client) error {
		if asked++; asked == 1 {
			_, _ = c.Identify(t.Context(), url) // fails, and ends the connection of both
		}
		_, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Status(t.Context(), &pb.StatusRequest{})
		return err
	})
	if asked != 2 || err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("asked %d times, got %v, want that the connection is refused", asked, err)
	}
}

// TestSurvey_Cancelled: an endpoint that is silent may not hold up the end, not
// even while it should answer to a login.
func TestSurvey_Cancelled(t *testing.T) {
	url := testserver.StartFakeMember(t, testserver.FakeMember{})
	silent := testserver.StartProxy(t, strings.TrimPrefix(url, "http://"))
	silent.Stall()
	for name, conf := range map[string]cluster.Config{
		"Status": {},
		"Login":  {Username: "root", Password: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			conf.Endpoints, conf.RequestTimeout = []string{silent.URL}, 10*time.Minute
			c := testserver.Connect(t, conf)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			if _, err := c.Survey(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// An endpoint with a password is refused by an error that does not repeat it.
func TestNew_Credentials(t *testing.T) {
	for _, ep := range []string{
		"http://user:SECRET@a:1", "https://:SECRET@a:1", "http://SECRET@a:1", "user:SECRET@a:1",
		" http://u:SECRET@a:1 ",
		"ftp://u:SECRET@a:1", "http://u:SECRET%zz@a:1", "http://u:SECRET/x@a:1", "unix://u:SECRET@/run/etcd.sock",
		"HTTP://u:SECRET@a:1",
	} {
		_, err := cluster.New(cluster.Config{Endpoints: []string{"http://b:1", ep}, DiscoverySRV: "none.invalid"})
		if !errors.Is(err, cluster.ErrCredentials) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: got %v", ep, err)
		}
	}
	// A flag splits its value at commas, also inside a password.
	_, err := cluster.New(cluster.Config{Endpoints: []string{"http://u:SECRET", "x@a:1"}})
	if !errors.Is(err, cluster.ErrCredentials) {
		t.Errorf("comma: got %v", err)
	}
	for _, ep := range []string{"unix:///run/a@b.sock", "unix://@abstract", "http://[::1]:2379", "a:1"} {
		c, err := cluster.New(cluster.Config{Endpoints: []string{ep}})
		if err != nil {
			t.Errorf("%s: %v", ep, err)
			continue
		}
		_ = c.Close()
	}
}

func TestNew_Errors(t *testing.T) {
	for name, c := range map[string]struct {
		conf cluster.Config
		want string
	}{
		"NoEndpoints":   {cluster.Config{}, "no endpoints"},
		"EmptyEndpoint": {cluster.Config{Endpoints: []string{"a:1", " "}}, "empty"},
		"Scheme":        {cluster.Config{Endpoints: []string{"ftp://a:1"}}, `scheme "ftp"`},
		"NotURL":        {cluster.Config{Endpoints: []string{"http://a b"}}, "endpoint"},
		"KeyMissing":    {cluster.Config{Endpoints: []string{"a:1"}, CertFile: "x"}, "belong together"},
		"NoCert": {
			cluster.Config{Endpoints: []string{"a:1"}, CertFile: "/none", KeyFile: "/none"}, "read client certificate",
		},
		"NoCA":    {cluster.Config{Endpoints: []string{"a:1"}, CAFile: "/none"}, "read CA file"},
		"EmptyCA": {cluster.Config{Endpoints: []string{"a:1"}, CAFile: "/dev/null"}, "holds no certificate"},
	} {
		if _, err := cluster.New(c.conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
