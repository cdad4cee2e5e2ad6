package history_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
)

// TestTimeline: timelines never mix, also when snapshots are not stored in the
// order in which they were taken.
func TestTimeline(t *testing.T) {
	m := func(timeline string, cluster backup.MemberID, high backup.Revision) *backup.Manifest {
		return &backup.Manifest{Timeline: timeline, Capture: backup.Capture{
			ClusterID: cluster, HighWaterRevision: high,
		}}
	}
	for i, c := range []struct {
		before, m, after *backup.Manifest
		want             string // "" is a fresh one
	}{
		{nil, m("", 1, 10), nil, ""},
		{m("a", 1, 10), m("", 1, 10), nil, "a"},
		{m("a", 1, 11), m("", 1, 10), nil, ""},
		{m("a", 2, 10), m("", 1, 10), nil, ""},
		// Late, before the first one.
		{nil, m("", 1, 10), m("b", 1, 10), "b"},
		{nil, m("", 1, 11), m("b", 1, 10), ""},
		{nil, m("", 1, 9), m("b", 2, 10), ""},
		// Late, within one history.
		{m("a", 1, 10), m("", 1, 15), m("a", 1, 20), "a"},
		{m("a", 1, 10), m("", 1, 25), m("a", 1, 20), ""}, // it went back unseen
		{m("a", 1, 10), m("", 1, 5), m("a", 1, 20), ""},
		{m("a", 1, 10), m("", 2, 15), m("a", 1, 20), ""},
		// Late, where a history ends and another begins.
		{m("a", 1, 100), m("", 1, 110), m("b", 1, 50), "a"},
		{m("a", 1, 100), m("", 1, 40), m("b", 1, 50), "b"},
		{m("a", 1, 100), m("", 1, 60), m("b", 1, 50), ""},
		{m("a", 1, 100), m("", 2, 5), m("b", 2, 50), "b"},
		{m("a", 1, 100), m("", 1, 100), m("b", 2, 500), "a"},
	} {
		got := history.Timeline(c.m, c.before, c.after)
		if c.want != "" && got != c.want || c.want == "" && (got == "a" || got == "b" || got == "") {
			t.Errorf("%d: got %q, want %q", i, got, c.want)
		}
	}
}
