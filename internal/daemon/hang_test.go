package daemon_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
)

// hang makes each call on the repository's folder hang in the kernel, as on a mount whose
// server does not answer: a pipe is not open before it has both ends.
func (h *house) hang() (thaw func()) {
	h.t.Helper()
	h.away()
	h.must(syscall.Mkfifo(h.folder(), 0o600))
	pipe := h.folder() + ".pipe"
	thaw = func() {
		h.t.Helper()
		if err := os.Rename(h.folder(), pipe); err != nil {
			return // thawed before
		}
		h.back()
		end, err := os.OpenFile(pipe, os.O_RDWR, 0)
		h.must(err)
		h.t.Cleanup(func() { end.Close() }) // the calls that hung have ended by then, or begin to
	}
	h.t.Cleanup(thaw)
	return thaw
}

// TestHungMount: a repository in a folder that hangs is down like any other: its jobs end
// within their time-out and say why, and the database waits in the spool.
func TestHungMount(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	h.edit("retries: 0", "timeout: 6s, retries: 0")
	d, _ := h.protected()
	thaw := h.hang()
	h.put("a")
	const cause = "the store does not answer: no answer within 3s"
	got := h.backup(d, server.JobFailed)
	if !strings.Contains(got.Error, "waits in") || !strings.Contains(got.Error, cause) {
		t.Errorf("backup: got %+v", got)
	}
	if n := len(h.pending()); n != 1 {
		t.Errorf("%d are pending", n)
	}
	if got := h.verify(d, server.Latest); got.State != server.JobFailed || !strings.Contains(got.Error, cause) {
		t.Errorf("verification: got %+v", got)
	}
	h.troubled(d, server.ClusterWarning, cause)
	thaw()
	got = h.backup(d, server.JobSucceeded)
	if got := h.verify(d, server.Latest); got.State != server.JobSucceeded {
		t.Errorf("verification after it: got %+v", got)
	}
	c := h.ok(d)
	if n := len(h.pending()); n != 0 || c.Snapshot != got.Snapshot {
		t.Errorf("%d are pending, got %+v, want %s", n, c, got.Snapshot)
	}
}
