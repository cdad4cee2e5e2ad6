package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const testQuota = 64 << 20

// busy is an etcd with a small quota.
type busy struct {
	*testserver.Cluster
	client *clientv3.Client
}

func startBusy(t *testing.T) busy {
	t.Helper()
	c := testserver.StartCluster(t, testserver.Options{Args: []string{fmt.Sprintf("--quota-backend-bytes=%d", testQuota)}})
	return busy{c, c.Client(t)}
}

func (b busy) put(ctx context.Context, key string, bytes int) error {
	_, err := b.client.Put(ctx, key, strings.Repeat("v", bytes))
	return err
}

func (b busy) size(t *testing.T) (file, inUse int64) {
	t.Helper()
	st, err := b.client.Status(t.Context(), b.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	return st.DbSize, st.DbSizeInUse
}

// fill puts megabytes that stay.
func (b busy) fill(t *testing.T, mib int) {
	t.Helper()
	for i := range mib << 4 {
		if err := b.put(t.Context(), fmt.Sprintf("stays/%d", i), 1<<16); err != nil {
			t.Fatal(err)
		}
	}
}

// overwrite puts as many bytes as the quota has into a few keys and compacts them all the
// time, which takes no room while etcd can reuse pages. It takes eight seconds: a member on a
// busy machine needs a part of one to end a stream.
func (b busy) overwrite(ctx context.Context) error {
	tick := time.NewTicker(32 * time.Millisecond)
	defer tick.Stop()
	for i := range testQuota >> 18 {
		<-tick.C
		if err := b.put(ctx, fmt.Sprintf("again/%d", i%8), 256<<10); err != nil {
			return err
		}
		if i%16 != 15 {
			continue
		}
		now, err := b.client.Get(ctx, "again/0")
		if err != nil {
			return err
		}
		if _, err := b.client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			return err
		}
	}
	return nil
}

// gate takes no byte before it is open, as a disk that hangs.
type gate chan struct{}

func (g gate) Write(p []byte) (int, error) {
	<-g
	return len(p), nil
}

// TestSaver_QuotaDuringStream: a slow reader of a stream does not bring a busy cluster
// to its quota. The stream ends before, with the reason, and the cluster goes on.
func TestSaver_QuotaDuringStream(t *testing.T) {
	b := startBusy(t)
	b.fill(t, 24)
	saver := snapshot.Saver{Source: connect(t, b.Endpoints()...)}
	open := make(gate)
	saved := make(chan error, 1)
	go func() {
		_, err := saver.Stream(t.Context(), open)
		saved <- err
	}()
	if err := b.overwrite(t.Context()); err != nil {
		t.Errorf("writes during the stream: %v", err)
	}
	close(open)
	err := <-saved
	var hint *backup.HintError
	if err == nil || !strings.Contains(err.Error(), "at its quota of 64 MiB") || !errors.As(err, &hint) {
		t.Errorf("the stream ended with %v, want the size and the quota, with a hint", err)
	}
	if alarms, err := b.client.AlarmList(t.Context()); err != nil || len(alarms.Alarms) > 0 {
		t.Errorf("alarms %v, %v", alarms, err)
	}
}

// TestQuota_Unwatched shows the danger: the same writes beside a stream that nobody
// watches make the cluster read-only.
func TestQuota_Unwatched(t *testing.T) {
	b := startBusy(t)
	b.fill(t, 24)
	in, err := connect(t, b.Endpoints()...).Stream(t.Context(), b.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := b.overwrite(t.Context()); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("writes during the stream: %v, want %v", err, rpctypes.ErrNoSpace)
	}
}

// TestSaver_NearQuota: a stream does not begin while a member is near its quota, unless
// it is forced, nothing can become worse, or free pages leave room enough.
func TestSaver_NearQuota(t *testing.T) {
	b := startBusy(t)
	b.fill(t, 55)
	for i, file := 0, int64(0); file < testQuota*955/1000; i++ {
		if err := b.put(t.Context(), fmt.Sprintf("more/%d", i), 1<<18); err != nil {
			t.Fatal(err)
		}
		<-time.After(110 * time.Millisecond) // etcd commits ten times a second, and then the size is right
		file, _ = b.size(t)
	}
	var log strings.Builder
	saver := snapshot.Saver{Source: connect(t, b.Endpoints()...), Log: slog.New(slog.NewTextHandler(&log, nil))}
	save := func() error {
		_, err := saver.Stream(t.Context(), io.Discard)
		return err
	}

	err := save()
	var refused *backup.RefusedError
	var hint *backup.HintError
	if !errors.As(err, &refused) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--allow-near-quota") {
		t.Errorf("near the quota: %v, want a refusal with a hint", err)
	}
	saver.AllowNearQuota = true
	if err := save(); err != nil || !strings.Contains(log.String(), "near its quota") {
		t.Errorf("near the quota, forced: %v; the log says %s", err, &log)
	}
	saver.AllowNearQuota = false

	for err = nil; err == nil; err = b.put(t.Context(), "last", 256<<10) {
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatal(err)
	}
	log.Reset()
	if err := save(); err != nil || !strings.Contains(log.String(), "read-only") {
		t.Errorf("a cluster that is read-only: %v; the log says %s", err, &log)
	}

	b.free(t)
	if file, inUse := b.size(t); file < testQuota*95/100 || inUse > testQuota/2 {
		t.Errorf("the file has %d bytes, %d in use: not what this test is about", file, inUse)
	}
	if err := save(); err != nil {
		t.Errorf("a file near its quota that is nearly empty: %v", err)
	}
}

// free deletes everything, so that the file keeps its length and has free pages.
func (b busy) free(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	gone, err := b.client.Delete(ctx, "", clientv3.WithPrefix())
	if err == nil {
		_, err = b.client.Compact(ctx, gone.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err == nil {
		_, err = b.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "free pages", func() bool { _, inUse := b.size(t); return inUse < testQuota/2 })
}
