//go:build long

package duty_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLong_Lagging: a member that is cut off from the others is behind in the same
// history. Its snapshot is unconfirmed, and says why.
func TestLong_Lagging(t *testing.T) {
	here := ownPlace(t, 3)
	p := here.process()
	p.set("a")
	last := follower(t, here.etcd)
	last.Pause()
	// More than fits into the buffers of the connection: they are read when the member
	// goes on.
	client := here.etcd.Client(t)
	for range 30 {
		put(t, client, strings.Repeat("x", 1<<20))
	}
	m := p.taken()
	others := slices.DeleteFunc(slices.Clone(here.etcd.Members), func(m *testserver.Member) bool { return m == last })
	for _, m := range others {
		m.Pause()
	}
	last.Resume()
	alone := here.beside(&testserver.Cluster{Version: here.etcd.Version, Members: []*testserver.Member{last}})
	q := alone.process()
	o := q.reached().slot()
	for _, m := range others {
		m.Resume()
	}
	if o.Manifest == nil || o.Manifest.Timeline != m.Timeline || o.Manifest.State() != backup.Unconfirmed ||
		o.Manifest.Revision >= m.Revision {
		t.Fatalf("got %+v", o)
	}
	if text := strings.Join(o.Manifest.Unconfirmed, "; "); !strings.Contains(text, "are behind") {
		t.Errorf("got %s", text)
	}
	p.latestIs(m.ID)
}
