package etcddb

import (
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
)

// A password in the URL that a member advertises stays in the database.
func TestSetContents_AdvertisedCredentials(t *testing.T) {
	var f Facts
	f.setContents(&buckets.Contents{Members: []buckets.Member{{
		ID: 7, ClientURLs: []string{"http://root:SECRET@a:1"}, PeerURLs: []string{"http://p:SECRET@a:2"},
	}}})
	got := slices.Concat(f.Members[0].ClientURLs, f.Members[0].PeerURLs)
	if !slices.Equal(got, []string{"http://a:1", "http://a:2"}) {
		t.Errorf("got %q", got)
	}
}
