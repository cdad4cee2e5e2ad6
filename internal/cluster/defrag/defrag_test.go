package defrag_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestDefragment(t *testing.T) {
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			real := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
			c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
			rev := fragment(t, real, c)
			// The leader has the lowest id, so that two orders differ.
			testserver.Lead(t, survey(t, c))
			var before *cluster.Survey
			testserver.Eventually(t, "the member with the lowest id leads", func() bool {
				before = survey(t, c)
				low := testserver.Lowest(before.Candidates)
				return len(before.Candidates) == 3 && low.Leader
			})
			hashes := hashAll(t, c, real, rev)

			report, err := defrag.Run(t.Context(), c, defrag.Options{Threshold: 0.5})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Defragmented) != 3 || len(report.Passed) != 0 {
				t.Fatalf("got %+v", report)
			}
			// An election in between, on a busy machine, makes another order right.
			stable := survey(t, c).Candidates[0].RaftTerm == before.Candidates[0].RaftTerm
			for i, m := range report.Defragmented {
				if m.After >= m.Before/2 || m.InUse > m.Before/2 || m.Name == "" {
					t.Errorf("got %+v", m)
				}
				if stable && (m.Leader != (i == 2) || i == 1 && m.ID < report.Defragmented[0].ID) {
					t.Errorf("%d. was %s (leader: %v): want the followers by id and then the leader",
						i+1, m.ID, m.Leader)
				}
			}
			oneByOne(t, real, report)
			if after := hashAll(t, c, real, rev); !slices.Equal(after, hashes) {
				t.Errorf("got HashKV %v, before %v", after, hashes)
			}

			report, err = defrag.Run(t.Context(), c, defrag.Options{Threshold: 0.5})
			if err != nil || len(report.Defragmented) != 0 || len(report.Passed) != 3 {
				t.Errorf("again: got %+v, error %v, want nothing to do", report, err)
			}
		})
	}
}

// fragment leaves most of every member's file free. It returns the revision.
func fragment(t *testing.T, real *testserver.Cluster, c *cluster.Cluster) backup.Revision {
	t.Helper()
	client := real.Client(t)
	testserver.Fill(t, client, testserver.FillOptions{Keys: 300, ValueBytes: 16 << 10})
	gone, err := client.Delete(t.Context(), "fill/0000", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	var rev int64
	testserver.Eventually(t, "all members have free pages", func() bool {
		// Pages that one write sets free are counted after the next one.
		last, err := client.Put(t.Context(), "last", "value")
		if err != nil {
			t.Fatal(err)
		}
		rev = last.Header.Revision
		s := survey(t, c)
		full := func(c cluster.Candidate) bool { return c.InUseBytes > c.DatabaseBytes/3 }
		return len(s.Candidates) == len(real.Members) && !slices.ContainsFunc(s.Candidates, full)
	})
	return backup.Revision(rev)
}

func hashAll(t *testing.T, c *cluster.Cluster, real *testserver.Cluster, rev backup.Revision) []uint32 {
	t.Helper()
	var out []uint32
	for _, url := range real.Endpoints() {
		m, err := c.Identify(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		h, err := c.HashKV(t.Context(), m, rev)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Hash)
	}
	return out
}

// oneByOne asks the servers' own logs: each began when the one before was done.
func oneByOne(t *testing.T, real *testserver.Cluster, report defrag.Report) {
	t.Helper()
	var end time.Time
	for _, m := range report.Defragmented {
		i := slices.IndexFunc(real.Members, func(r *testserver.Member) bool { return r.ClientURL == m.Endpoint })
		begun := logged(t, real.Members[i], "starting defragment")
		if len(begun) != 1 || begun[0].Before(end) {
			t.Errorf("%s was defragmented at %v, the one before ended at %v", m.Name, begun, end)
		}
		done := logged(t, real.Members[i], "finished defragment")
		if len(done) != 1 {
			t.Fatalf("%s finished at %v", m.Name, done)
		}
		end = done[0]
	}
}

// logged returns when a member said something.
func logged(t *testing.T, m *testserver.Member, message string) []time.Time {
	t.Helper()
	var out []time.Time
	lines := bufio.NewScanner(strings.NewReader(m.Log()))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ TS, Msg string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != message {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.999999Z0700", line.TS)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, at)
	}
	return out
}

func TestDefragment_Refused(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
	s := survey(t, c)
	refused := func(c *cluster.Cluster, want string) {
		t.Helper()
		var refusal *backup.RefusedError
		var hint *backup.HintError
		report, err := defrag.Run(t.Context(), c, defrag.Options{})
		if !errors.As(err, &refusal) || !errors.As(err, &hint) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a RefusedError with %q", err, want)
		}
		if len(report.Defragmented)+len(report.Passed) > 0 {
			t.Errorf("got %+v", report)
		}
	}
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		req := &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(s.Candidates[0].MemberID), Alarm: alarm,
		}
		remote := pb.NewMaintenanceClient(real.Client(t).ActiveConnection())
		if _, err := remote.Alarm(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		refused(c, alarm.String())
		req.Action = pb.AlarmRequest_DEACTIVATE
		if _, err := remote.Alarm(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, "the alarm is gone", func() bool { return len(survey(t, c).Alarms) == 0 })
	}
	refused(testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()[:2]}), "m3")
	real.Members[2].Kill()
	refused(c, "m3")
	real.Members[0].Kill()
	real.Members[1].Kill()
	refused(c, "no member")
	for _, m := range real.Members {
		if at := logged(t, m, "starting defragment"); len(at) > 0 {
			t.Errorf("%s was defragmented at %v", m.Name, at)
		}
	}
	for _, wrong := range []float64{-0.1, 1.1} {
		_, err := defrag.Run(t.Context(), c, defrag.Options{Threshold: wrong})
		if err == nil || !strings.Contains(err.Error(), "0 to 1") {
			t.Errorf("threshold %v: got %v", wrong, err)
		}
	}
}

// onLog is a log that calls a function for each line.
type onLog func(message string)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (l onLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l onLog) WithGroup(string) slog.Handler          { return l }
func (l onLog) Handle(_ context.Context, r slog.Record) error {
	l(r.Message)
	return nil
}

// TestDefragment_Stops: another member dies while the first is at work. The
// next one is not touched: that would take the majority away.
// TestDefragment_Proxy: through etcd's own proxy nobody knows which member is rewritten.
func TestDefragment_Proxy(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Version: "3.6"})
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{real.StartGRPCProxy(t)}})
	report, err := defrag.Run(t.Context(), c, defrag.Options{})
	var hint *backup.HintError
	if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), "a proxy answers there") ||
		!errors.As(err, &hint) || !strings.Contains(hint.Hint, "client URLs of the members") {
		t.Errorf("got %v, hint %v", err, hint)
	}
	if len(report.Defragmented) > 0 {
		t.Errorf("got %+v", report)
	}
}

func TestDefragment_Stops(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	c := testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints()})
	fragment(t, real, c)
	s := survey(t, c)
	victim := s.Candidates[1].Endpoint // the follower that would be next
	began := 0
	report, err := defrag.Run(t.Context(), c, defrag.Options{
		Threshold: 0.5, Wait: 2 * time.Second,
		Log: slog.New(onLog(func(message string) {
			if message != "defragmenting member" {
				return
			}
			began++
			for _, m := range real.Members {
				if m.ClientURL == victim {
					m.Kill()
				}
			}
		})),
	})
	var refusal *backup.RefusedError
	if err == nil || errors.As(err, &refusal) ||
		!strings.Contains(err.Error(), "not all members are healthy after 2s") {
		t.Errorf("got %v", err)
	}
	if began != 1 || len(report.Defragmented) != 1 || report.Defragmented[0].Endpoint != s.Candidates[0].Endpoint {
		t.Errorf("%d began, got %+v", began, report)
	}
}

// TestDefragment_Patience: a large file takes its time. etcd gets no time limit, and
// Defragment returns its answer.
func TestDefragment_Patience(t *testing.T) {
	var asked, limited, healthy atomic.Bool
	var refuse atomic.Pointer[error]
	fake := testserver.FakeMember{
		Range: func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) { return &pb.RangeResponse{}, nil },
		Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
			st := &pb.StatusResponse{
				Header: &pb.ResponseHeader{ClusterId: 3, MemberId: 1, Revision: 1},
				Leader: 1, DbSize: 1000, DbSizeInUse: 100, RaftAppliedIndex: 5,
			}
			if asked.Load() {
				st.DbSize = 100
				// The first answer after it: without a leader yet.
				if !healthy.Swap(true) {
					st.Leader = 0
				}
			}
			return st, nil
		},
		Defragment: func(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
			if err := refuse.Load(); err != nil {
				return nil, *err
			}
			_, has := ctx.Deadline()
			limited.Store(has)
			asked.Store(true)
			return &pb.DefragmentResponse{}, nil
		},
	}
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{testserver.StartFakeMember(t, fake)}})
	broken := errors.New("disk is broken")
	refuse.Store(&broken)
	report, err := defrag.Run(t.Context(), c, defrag.Options{Threshold: 0.9})
	if err == nil || !strings.Contains(err.Error(), "disk is broken") || len(report.Defragmented) > 0 {
		t.Errorf("got %+v, error %v", report, err)
	}
	refuse.Store(nil)
	report, err = defrag.Run(t.Context(), c, defrag.Options{Threshold: 0.91})
	if err != nil || len(report.Passed) != 1 {
		t.Errorf("just below the threshold: got %+v, error %v", report, err)
	}
	report, err = defrag.Run(t.Context(), c, defrag.Options{Threshold: 0.9})
	if err != nil || len(report.Defragmented) != 1 || report.Defragmented[0].After != 100 {
		t.Fatalf("just at the threshold: got %+v, error %v", report, err)
	}
	if limited.Load() {
		t.Error("the request had a time limit")
	}
	if !healthy.Load() {
		t.Error("it did not wait for a leader")
	}
}
