package duty_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository/streams"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// fragmented is a process with an etcd of its own, most of whose file is free.
func fragmented(t *testing.T) *process {
	t.Helper()
	p := newPlace(t)
	p.etcd = testserver.StartCluster(t, testserver.Options{})
	client := p.etcd.Client(t)
	testserver.Fill(t, client, testserver.FillOptions{Keys: 300, ValueBytes: 16 << 10})
	gone, err := client.Delete(t.Context(), "fill/0000", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	q := p.process()
	testserver.Eventually(t, "free pages", func() bool {
		if _, err := client.Put(t.Context(), "last", "value"); err != nil {
			t.Fatal(err)
		}
		s, err := q.Etcd.Survey(t.Context())
		return err == nil && s.Candidates[0].InUseBytes < s.DatabaseBytes()/3
	})
	return q
}

// suspended opens a snapshot stream and does not read it until end is called.
func suspended(t *testing.T, c *testserver.Cluster) (end func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	t.Cleanup(end)
	stream, err := pb.NewMaintenanceClient(c.Client(t).ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// TestDefragment_Stream: a stranger's stream is open. The cluster is in trouble while the
// call goes on, also after it was given up, and until the member answers again.
func TestDefragment_Stream(t *testing.T) {
	p := fragmented(t)
	end := suspended(t, p.etcd)
	d := duty.Defragment{Subject: p.Subject, Threshold: 0.5, Patience: time.Second}
	told, done := make(chan error, 1), make(chan duty.Outcome, 1)
	go func() { done <- d.Do(t.Context(), duty.Run{Trouble: func(err error) { told <- err }}) }()
	hangs := func(when string) {
		t.Helper()
		h := p.backup.Health(time.Now())
		if h.Level != health.Failure || !strings.Contains(h.Problem, "somebody streams a snapshot") {
			t.Errorf("%s: got %+v", when, h)
		}
	}
	select {
	case <-told:
	case o := <-done:
		t.Fatalf("it ended, and nobody was told: %+v", o)
	}
	hangs("while it hangs")
	if o := <-done; o.Result != duty.Failed || !strings.Contains(o.Err.Error(), p.etcd.Endpoints()[0]) {
		t.Errorf("got %+v", o)
	}
	hangs("after it was given up")
	end()
	testserver.Eventually(t, "the member to answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return defrag.Read(ctx, p.Etcd, p.etcd.Endpoints()[0]) == nil
	})
	p.taken()
	if h := p.backup.Health(time.Now()); h.Level != health.OK {
		t.Errorf("after the stream: got %+v", h)
	}
}

// TestDefragment_Announced: no member is defragmented while a stream of ours is open
// anywhere, or may be.
func TestDefragment_Announced(t *testing.T) {
	p := fragmented(t)
	p.taken()
	var log bytes.Buffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	d := duty.Defragment{Subject: p.Subject, Threshold: 0.5, Patience: time.Second}
	refused := func(why string) duty.Outcome {
		t.Helper()
		o := d.Do(t.Context(), duty.Run{})
		if !errors.As(o.Err, new(*backup.RefusedError)) || !strings.Contains(o.Err.Error(), why) {
			t.Errorf("got %+v, want %q", o, why)
		}
		if h := p.backup.Health(time.Now()); h.Level != health.Warning || !strings.Contains(h.Problem, why) {
			t.Errorf("%s: got %+v, want a warning", why, h)
		}
		if strings.Contains(log.String(), "defragmentation ended") {
			t.Errorf("a failure is logged as information: %s", log.String())
		}
		if strings.Contains(p.etcd.Members[0].Log(), "starting defragment") {
			t.Fatalf("%s: it was defragmented", why)
		}
		return o
	}
	in, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	announced := streams.Of(in.Repository().Store(), "prod")
	// Another host, which was suspended.
	if _, err := announced.Announce(t.Context(), time.Now().Add(time.Hour), "backupd elsewhere"); err != nil {
		t.Fatal(err)
	}
	o := refused("one was announced")
	open, err := announced.Open(t.Context(), time.Now())
	var hint *backup.HintError
	if err != nil || !errors.As(o.Err, &hint) || !strings.Contains(hint.Hint, "was killed") ||
		!strings.Contains(hint.Hint, "rm /backups/"+open.String()) {
		t.Errorf("got %v, hint %+v", err, hint)
	}
	p.pass(2 * time.Hour)

	// Another repository, this process, whose backup is at work.
	other := newPlace(t)
	other.etcd = p.etcd
	q := other.process()
	p.Streams = &defrag.Streams{}
	q.Streams = p.Streams
	proxy := testserver.StartProxy(t, strings.TrimPrefix(p.etcd.Endpoints()[0], "http://"))
	q.Etcd = testserver.Connect(t, cluster.Config{Endpoints: []string{proxy.URL}})
	proxy.StallAfter(testserver.ToClient, 1<<20)
	backedUp := make(chan duty.Outcome, 1)
	go func() { backedUp <- q.slot() }()
	testserver.Eventually(t, "a stream", func() bool { return proxy.Bytes(testserver.ToClient) >= 1<<20 })
	refused("for another repository")
	proxy.Resume()
	if o := <-backedUp; o.Err != nil {
		t.Errorf("got %+v", o)
	}

	p.hook.Before = func(_ context.Context, _ storage.Op, key string) error {
		if strings.Contains(key, "/streams/") {
			return errors.New("the store is away")
		}
		return nil
	}
	refused("is not known")
	p.hook.Before = nil
	if o := d.Do(t.Context(), duty.Run{}); o.Result != duty.Succeeded ||
		!strings.Contains(log.String(), "level=INFO msg=\"defragmentation ended\"") {
		t.Errorf("got %+v, log %s", o, log.String())
	}
	if h := p.backup.Health(time.Now()); h.Level != health.OK {
		t.Errorf("after a success: got %+v", h)
	}
	if open, err := announced.Open(t.Context(), time.Now()); open != nil || err != nil {
		t.Errorf("announced: %v, %v, want nothing left", open, err)
	}
}
