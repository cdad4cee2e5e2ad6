package testserver_test

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestFill(t *testing.T) {
	options := testserver.FillOptions{Keys: 300, Seed: 7, Compact: true}
	hashes := make(map[uint32]string)
	for _, version := range []string{"3.5", "3.7"} {
		c := testserver.StartCluster(t, testserver.Options{Version: version})
		client := c.Client(t)
		filled := testserver.Fill(t, client, options)
		hash, err := client.HashKV(t.Context(), c.Members[0].ClientURL, filled.Revision)
		if err != nil {
			t.Fatal(err)
		}
		if hash.CompactRevision != filled.Compacted {
			t.Errorf("etcd %s compacted at %d, want %d", version, hash.CompactRevision, filled.Compacted)
		}
		hashes[hash.Hash] = version
		checkVariety(t, client, filled)
	}
	if len(hashes) != 1 {
		t.Errorf("got hashes %v, want the same on both versions", hashes)
	}
}

// checkVariety looks for each kind of trace a history must leave.
func checkVariety(t *testing.T, client *clientv3.Client, filled testserver.Filled) {
	t.Helper()
	resp, err := client.Get(t.Context(), "fill/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Revision != filled.Revision {
		t.Errorf("got revision %d, want %d", filled.Revision, resp.Header.Revision)
	}
	perRevision := make(map[int64]int)
	var leased, overwritten, shared int
	for _, kv := range resp.Kvs {
		if perRevision[kv.ModRevision]++; perRevision[kv.ModRevision] == 2 {
			shared++
		}
		if kv.Lease != 0 {
			leased++
		}
		if kv.Version > 1 {
			overwritten++
		}
	}
	if leased == 0 || overwritten == 0 || shared == 0 || resp.Count >= 300 {
		t.Errorf("got %d keys, %d with a lease, %d overwritten, %d revisions of several keys; "+
			"want some of each and some keys deleted",
			resp.Count, leased, overwritten, shared)
	}
	leases, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != len(filled.Leases) {
		t.Errorf("got %d leases, want %d", len(leases.Leases), len(filled.Leases))
	}
}
