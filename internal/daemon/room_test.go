package daemon_test

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
)

// TestRoom: free space falls below the reserve while the store is away. What waits is
// dropped, the oldest first and at last the newest, each with an error in the log, and
// nothing new is received. The daemon says why.
func TestRoom(t *testing.T) {
	h := newHouse(t)
	var log roomLog
	h.log = slog.NewTextHandler(&log, nil)
	d, _ := h.protected()
	h.away()
	var paths []string
	for range 2 {
		h.put("a")
		h.backup(d, server.JobFailed)
		for _, p := range h.pending() {
			if !slices.Contains(paths, p.Path) {
				paths = append(paths, p.Path)
			}
		}
	}
	streams := h.streams()
	h.edit("min-free: 0B", "min-free: 99.9%") // as if the disk had filled
	h.reload(d)
	// A file goes before the log tells of it.
	await(t, "all that waits to give way, and to be told of", func() bool {
		return len(h.pending()) == 0 && len(dropped(log.text(), paths)) == len(paths)
	})
	if got := dropped(log.text(), paths); len(paths) != 2 || !slices.Equal(got, paths) {
		t.Errorf("dropped %q, want %q", got, paths)
	}
	if got := h.backup(d, server.JobFailed); !strings.Contains(got.Error, "must stay free") || h.streams() != streams {
		t.Errorf("got %+v, %d streams", got, h.streams()-streams)
	}
	c := d.Clusters()[0]
	if c.State == server.ClusterOK || !strings.Contains(c.Problem, "must stay free") {
		t.Errorf("got %+v", c)
	}
	h.back()
	h.edit("min-free: 99.9%", "min-free: 0B")
	h.reload(d)
	h.backup(d, server.JobSucceeded)
}

// dropped returns which of the paths a log tells of as dropped, in its order.
func dropped(log string, paths []string) (all []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "dropped a pending snapshot") && strings.Contains(line, "level=ERROR") {
			for _, path := range paths {
				if strings.Contains(line, path) {
					all = append(all, path)
				}
			}
		}
	}
	return all
}

// roomLog is a log that is read while it is written.
type roomLog struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *roomLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *roomLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
