package daemon

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/server"
)

// TestSystemd: it is told that the daemon is up, reloads, lives and stops, and no
// longer that it lives when the scheduler does not.
func TestSystemd(t *testing.T) {
	h := newHouse(t)
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	next := func(ok func(string) bool) string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if text := string(buffer[:n]); ok(text) {
				return text
			}
		}
	}
	has := func(part string) func(string) bool { return func(s string) bool { return strings.Contains(s, part) } }
	d := h.daemon()
	stop := h.run(d)
	next(has("READY=1"))
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	next(has("STATUS=1 of 1 clusters are protected"))
	next(has("WATCHDOG=1"))
	d.Reload(t.Context())
	if text := next(has("RELOADING=1")); !strings.Contains(text, "MONOTONIC_USEC=") {
		t.Errorf("got %q", text)
	}
	next(has("READY=1"))
	stale := new(time.Now().Add(-time.Hour))
	next(func(s string) bool {
		d.beat.Store(stale) // again, for the reload has woken the scheduler
		return strings.Contains(s, "STATUS=") && !strings.Contains(s, "WATCHDOG=1")
	})
	d.scheduler.Set(d.jobs()) // wakes it
	next(has("WATCHDOG=1"))
	stop()
	next(has("STOPPING=1"))
}
