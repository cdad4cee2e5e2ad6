//go:build long

package e2e_test

import (
	"testing"
)

// checkCalls asserts what the daemon may never ask of members at the same time.
func (d *day) checkCalls(t *testing.T) {
	hashes, streams, defrags := d.calls.of("HashKV"), d.calls.of("Snapshot"), d.calls.of("Defragment")
	if len(hashes) == 0 || len(streams) == 0 || len(defrags) == 0 {
		t.Errorf("recorded %d HashKV, %d streams, %d defragmentations", len(hashes), len(streams), len(defrags))
	}
	for _, p := range together(defrags, streams, func(a, b call) bool { return a.member == b.member }) {
		t.Errorf("%s was defragmented from %v to %v, beside its stream from %v to %v", p[0].member, p[0].begin,
			p[0].end, p[1].begin, p[1].end)
	}
	for _, p := range together(hashes, hashes, func(a, b call) bool { return a.member != b.member }) {
		t.Errorf("%s and %s were asked for HashKV at once, at %v and %v", p[0].member, p[1].member, p[0].begin,
			p[1].begin)
	}
	for _, c := range hashes {
		if c.leader && c.calm {
			t.Errorf("the leader %s was asked for HashKV at %v, when each follower could answer", c.member, c.begin)
		}
	}
}

// checkSnapshots verifies every snapshot, and that those which were seen are still there.
func (d *day) checkSnapshots(t *testing.T) {
	repo := d.store.s3.URL("day")
	d.cli.run(t, "verify", "--repo", repo, "--cluster", "prod", "--all")
	list := decode[struct {
		Snapshots []struct{ ID, State string }
	}](t, d.cli.run(t, "list", "--repo", repo, "--cluster", "prod", "-w", "json"))
	for _, s := range list.Snapshots {
		if s.State == "suspect" || s.State == "damaged" {
			t.Errorf("%s is %s", s.ID, s.State)
		}
		delete(d.seen, s.ID)
	}
	for id := range d.seen {
		t.Errorf("%s was stored and is lost", id)
	}
	url := "http://127.0.0.1:1"
	d.cli.run(t, "restore", "--repo", repo, "--cluster", "prod", list.Snapshots[0].ID, "--name", "r1",
		"--data-dir", d.path("restored"), "--initial-cluster", "r1="+url, "--initial-advertise-peer-urls", url)
}
