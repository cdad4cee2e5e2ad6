package daemon_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/duty"
)

// listening is an address that accepts connections and never answers.
func listening(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}

// TestDeadClusters: clusters whose addresses accept and never answer leave a good one
// each of its slots, though all begin at the same time: it never waits for one of them. How long
// its own backups take is another matter, and that of the machine.
func TestDeadClusters(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	var dead strings.Builder
	for i := range 150 {
		fmt.Fprintf(&dead, "  - {name: dead-%d, endpoints: [%q], "+
			"snapshot: {schedule: \"@every 3s\", retries: 1, request-timeout: 1s}}\n", i, listening(t))
	}
	h.configure("@every 3s", dead.String())
	h.edit("retries: 0,", "retries: 0, max-age: 0s,")
	h.edit("keep-last: 3", "keep-last: 99")
	h.edit("/spool}", "/spool}\n  concurrency: 1")
	d := h.daemon()
	h.run(d)
	store := stored(h.store("main"), "prod")
	good := func() (n int) {
		for _, err := range store.Items(t.Context()) {
			h.must(err)
			n++
		}
		return n
	}
	await(t, "the first backup", func() bool { return good() > 0 })
	waits := 0
	await(t, "backups of the good one", func() bool {
		if d.Waits(duty.Key{Repository: "main", Cluster: "prod"}) {
			waits++
		}
		return good() >= 4
	})
	if waits > 0 {
		t.Errorf("the good one was seen to wait %d times", waits)
	}
}
