package daemon_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSystemd: the daemon notifies systemd of its start, its reloads and its stop,
// and of its heartbeat as long as the scheduler works.
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
	h.ok(d)
	next(has("STATUS=protected clusters: 1 of 1"))
	next(has("WATCHDOG=1"))
	d.Reload(t.Context())
	if text := next(has("RELOADING=1")); !strings.Contains(text, "MONOTONIC_USEC=") {
		t.Errorf("got %q", text)
	}
	next(has("READY=1"))
	ahead := time.Duration(0)
	next(func(s string) bool {
		// Again and again, for the reload has woken the scheduler.
		ahead += 10 * time.Minute
		h.clock.put(ahead)
		return strings.Contains(s, "STATUS=") && !strings.Contains(s, "WATCHDOG=1")
	})
	d.Reload(t.Context()) // wakes it
	next(has("WATCHDOG=1"))
	stop()
	next(has("STOPPING=1"))
}
