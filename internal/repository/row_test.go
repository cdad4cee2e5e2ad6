package repository_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestRow: a row tells what the names tell, and of a manifest that was read what
// it adds.
func TestRow(t *testing.T) {
	s := mem.New()
	good := addSnapshot(t, s, manifest("prod", started, 5))
	create(t, s, pinKey(good), []byte("x")) // its name counts
	doubted := addSnapshot(t, s, suspectManifest(started.Add(time.Hour), 6))
	lost := addManifest(t, s, manifest("prod", started.Add(2*time.Hour), 7))
	nonsense := manifest("prod", started.Add(3*time.Hour), 8)
	create(t, s, nonsense.DataKey(), []byte("0123456789"))
	create(t, s, nonsense.Key(), []byte("nonsense"))
	now := started.Add(2 * time.Hour) // the last was begun by a clock that was ahead

	base := func(m *backup.Manifest, state backup.State) backup.Row {
		return backup.Row{Cluster: "prod", ID: m.ID, Time: m.ID.Time(), Revision: m.Revision, Timeline: line1,
			State:       state,
			StoredBytes: 10, Encoding: "none"}
	}
	short := []backup.Row{base(good, backup.Verified), base(doubted, backup.Suspect), base(lost, backup.Damaged),
		base(nonsense, backup.Verified)}
	short[0].Pinned = true
	short[2].Reason, short[2].StoredBytes, short[2].Encoding = "manifest without data: its data object is not there", 0, ""
	short[3].Future = true
	long := append([]backup.Row{}, short...)
	for i, m := range []*backup.Manifest{good, doubted, lost} {
		long[i].PlainBytes = m.Plain.Bytes
	}
	long[1].Reason = doubted.Suspect[0]
	long[3].State, long[3].Reason = backup.Unreadable, "read manifest"

	items := list(t, prod(s))
	for i := range items {
		if diff := cmp.Diff(short[i], items[i].Row(now)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	i := 0
	for r := range prod(s).Manifests(t.Context(), items) {
		got := r.Row(now)
		if got.State == backup.Unreadable && strings.HasPrefix(got.Reason, long[i].Reason) {
			got.Reason = long[i].Reason
		}
		if diff := cmp.Diff(long[i], got); diff != "" {
			t.Errorf("with its manifest (-want +got):\n%s", diff)
		}
		i++
	}
}
