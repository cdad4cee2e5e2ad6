package duty_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot_Turns: slots that are skipped ask one follower after the other, and never the
// leader. It has its turn as the source of the next snapshot, also while the store is
// down.
func TestSlot_Turns(t *testing.T) {
	at := newPlace(t)
	at.etcd = testserver.StartCluster(t, testserver.Options{Size: 3})
	at.put()
	at.settled()
	p := at.process()
	p.taken()
	leader := -1
	var before []int
	for n, m := range at.etcd.Members {
		st, err := at.etcd.Client(t).Status(t.Context(), m.ClientURL)
		if err != nil {
			t.Fatal(err)
		}
		if st.Leader == st.Header.MemberId {
			leader = n
		}
		before = append(before, at.askedOf(m, "HashKV"))
	}
	for range 4 {
		wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
	}
	for n, m := range at.etcd.Members {
		want := 2
		if n == leader {
			want = 0
		}
		if got := at.askedOf(m, "HashKV") - before[n]; got != want {
			t.Errorf("member %d of %d, where %d leads, was asked %d times", n, len(before), leader, got)
		}
	}
	up := p.down()
	for n := range 3 { // in the last one nothing is known but what was received
		p.put()
		var waits *snapshot.PendingError
		if o := p.slot(); !errors.As(o.Err, &waits) {
			t.Fatalf("got %+v", o)
		}
		c := waits.Pending.Capture
		if leads := c.Endpoint == at.etcd.Members[leader].ClientURL; leads != (n == 0) || len(c.MemberHashes) != 1 {
			t.Errorf("pending snapshot %d is of the leader: %v, hashes %+v", n, leads, c.MemberHashes)
		}
	}
	up()
	if h := p.changed().MemberHashes; len(h) != 1 || !slices.ContainsFunc(h, func(h backup.MemberHash) bool {
		return h.Result == backup.HashEqual && h.Endpoint != at.etcd.Members[leader].ClientURL
	}) {
		t.Errorf("got %+v", h)
	}
}
