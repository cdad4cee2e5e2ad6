package server_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
)

const (
	readToken    = "read-token-0123456789"
	operateToken = "operate-token-0123456789"
	snapshotID   = "20261120T101500Z-r123456-k7q2xd"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// backend is a daemon with one cluster, prod, whose jobs never end by themselves.
type backend struct {
	mu        sync.Mutex
	notReady  error
	fail      error // of everything that can fail
	panics    bool
	clusters  []server.Cluster
	snapshots []backup.Row
	jobs      []server.Job
	pins      map[string]string
	asked     server.Key // what the last call was about
	sends     map[int]func(server.Job)
	block     chan struct{} // Snapshots waits for it
	blocked   chan struct{} // gets a value when Snapshots waits
}

func newBackend() *backend {
	b := &backend{pins: map[string]string{}, sends: map[int]func(server.Job){}}
	b.clusters = []server.Cluster{{Repository: "main", Name: "prod", Labels: map[string]string{"team": "core"},
		Schedule: "@hourly",
		State:    server.ClusterOK, LastSuccess: noon, NextRun: noon.Add(time.Hour), Snapshot: snapshotID, Revision: 123456}}
	for i := range 5 {
		at := noon.Add(-time.Duration(i) * time.Hour)
		rev := backup.Revision(100 - i)
		b.snapshots = append(b.snapshots, backup.Row{Cluster: "prod", Time: at, Revision: rev, StoredBytes: 1000,
			ID: backup.SnapshotID(fmt.Sprintf("%s-r%d-k7q2xd", at.Format("20060102T150405Z"), rev))})
	}
	b.snapshots = append(b.snapshots, backup.Row{Cluster: "prod", ID: snapshotID, Time: noon.Add(-105 * time.Minute),
		Revision: 123456, StoredBytes: 10, Pinned: true, PinReason: "audit"})
	slices.SortFunc(b.snapshots, func(x, y backup.Row) int { return cmp.Compare(y.ID, x.ID) })
	b.jobs = []server.Job{{ID: "job1", Kind: "backup", Repository: "main", Cluster: "prod", Reason: "scheduled",
		State: server.JobSucceeded, Started: noon, Ended: noon.Add(time.Minute), Snapshot: snapshotID}}
	return b
}

func (b *backend) Ready() error { b.mu.Lock(); defer b.mu.Unlock(); return b.notReady }

func (b *backend) Clusters() []server.Cluster {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.panics {
		panic("a defect with the secret word of nobody")
	}
	return slices.Clone(b.clusters)
}

func (b *backend) Snapshots(ctx context.Context, of server.Key, after string, limit int) ([]backup.Row, error) {
	if b.block != nil {
		b.blocked <- struct{}{}
		select {
		case <-b.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = of
	var out []backup.Row
	for _, s := range b.snapshots {
		if (after == "" || s.ID < backup.SnapshotID(after)) && len(out) < limit {
			out = append(out, s)
		}
	}
	return out, b.fail
}

func (b *backend) Snapshot(_ context.Context, of server.Key, id string) (*server.SnapshotDetail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = of
	for _, s := range b.snapshots {
		if s.ID == backup.SnapshotID(id) {
			return &server.SnapshotDetail{Row: s, Manifest: map[string]any{"id": id}}, b.fail
		}
	}
	return nil, fmt.Errorf("snapshot %s: %w", id, server.ErrNotFound)
}

func (b *backend) Jobs() []server.Job { b.mu.Lock(); defer b.mu.Unlock(); return slices.Clone(b.jobs) }

func (b *backend) Subscribe(ctx context.Context, send func(server.Job)) {
	b.mu.Lock()
	key := len(b.sends)
	b.sends[key] = send
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sends, key)
}

// change sets the state of a job and publishes it.
func (b *backend) change(j server.Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(j)
	for _, send := range b.sends {
		send(j)
	}
}

func (b *backend) set(j server.Job) {
	if i := slices.IndexFunc(b.jobs, func(old server.Job) bool { return old.ID == j.ID }); i >= 0 {
		b.jobs[i] = j
	} else {
		b.jobs = slices.Insert(b.jobs, 0, j)
	}
}

func (b *backend) StartBackup(of server.Key) (server.Job, error) {
	return b.start("backup", of, "")
}

func (b *backend) StartVerification(of server.Key, id string) (server.Job, error) {
	return b.start("verify", of, id)
}

func (b *backend) start(kind string, of server.Key, id string) (server.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = of
	if b.fail != nil {
		return server.Job{}, b.fail
	}
	for _, j := range b.jobs {
		if j.Kind == kind && j.State == server.JobRunning {
			return server.Job{}, fmt.Errorf("a %s of %s: %w", kind, of, server.ErrConflict)
		}
	}
	j := server.Job{ID: fmt.Sprintf("job%d", len(b.jobs)+1), Kind: kind, Repository: of.Repository, Cluster: of.Cluster,
		Reason: "manual", State: server.JobRunning, Started: noon, Snapshot: id}
	b.set(j)
	return j, nil
}

func (b *backend) Pin(_ context.Context, of server.Key, id, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked, b.pins[id] = of, reason
	return b.fail
}

func (b *backend) PrunePlan(_ context.Context, of server.Key) ([]backup.PruneRow, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = of
	return []backup.PruneRow{{Row: b.snapshots[0], Keep: true, Reasons: []string{"last 1"}},
		{Row: b.snapshots[1]}}, b.fail
}

// running is a server that runs until the test is over.
type running struct {
	*server.Server
	url    string
	client *http.Client
	log    *lockedBuffer
	stop   func() error // ends it and returns what Run returned
}

func metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "backupd_up 1") })
}

// start runs a server on loopback, with o's other options.
func start(t testing.TB, o server.Options) *running {
	t.Helper()
	buf := &lockedBuffer{}
	o.Log = slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Backend == nil {
		o.Backend = newBackend()
	}
	if o.Metrics == nil {
		o.Metrics = metrics()
	}
	o.Version = "v1.2.3"
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	transport := &http.Transport{}
	r := &running{Server: s, client: &http.Client{Transport: transport}, log: buf}
	r.stop = sync.OnceValue(func() error {
		transport.CloseIdleConnections()
		cancel()
		return <-done
	})
	_, port, _ := net.SplitHostPort(s.Addr().String())
	r.url = "http://127.0.0.1:" + port
	if o.CertFile != "" {
		r.url = "https://127.0.0.1:" + port
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

// do sends one request. Headers are "Name: value".
func (r *running) do(t testing.TB, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

// problem sends a request that must fail with status, and returns the problem.
func (r *running) problem(t testing.TB, status int, method, path, body string, headers ...string) server.Problem {
	t.Helper()
	resp, raw := r.do(t, method, path, body, headers...)
	if resp.StatusCode != status || resp.Header.Get("Content-Type") != server.ProblemType {
		t.Fatalf("%s %s: %s %s: %s; want status %d and a problem", method, path, resp.Status, resp.Header.Get("Content-Type"),
			raw, status)
	}
	var p server.Problem
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != status || p.Title != http.StatusText(status) || p.Type != "about:blank" || p.Detail == "" {
		t.Errorf("%s %s: problem %+v", method, path, p)
	}
	return p
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.buf.String() }

// write replaces a file as a rotation does.
func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func tokenFile(t testing.TB, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	write(t, file, strings.Join(lines, "\n")+"\n")
	return file
}
