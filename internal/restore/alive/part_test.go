package alive_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore/alive"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestRefuseAgain: what a running member knows of the others decides whether one with an
// empty folder may be restored beside it.
func TestRefuseAgain(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 1, TLS: true})
	q := question(t, c)
	conf, err := c.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	own := q.Recorded[0]
	own.ClientURLs = nil
	q.Old, q.New, q.TLS = 0, q.Old, conf
	added := backup.Member{Name: "m2", PeerURLs: []string{testserver.FreeURL(t)}}
	resp, err := c.Client(t).MemberAddAsLearner(t.Context(), added.PeerURLs)
	if err != nil {
		t.Fatal(err)
	}
	added.ID = backup.MemberID(resp.Member.ID)
	found := alive.Ask(t.Context(), q)
	for _, tc := range []struct {
		name  string
		m     backup.Member
		part  alive.Part
		joins bool
		want  string
	}{
		{"one that has started", own, alive.TookPart, false, "has taken part in the new cluster"},
		{"one that has not", added, alive.Never, false, ""},
		{"another one has its place", backup.Member{ID: 5, Name: "m2", PeerURLs: added.PeerURLs}, alive.Replaced, true, ""},
		{"it was removed", backup.Member{ID: 6, Name: "m3", PeerURLs: []string{"http://10.0.0.9:2380"}}, alive.Removed, false,
			"was removed"},
	} {
		if part := found.Part(tc.m); part != tc.part {
			t.Errorf("%s: part %d, want %d", tc.name, part, tc.part)
		}
		joins, err := found.RefuseAgain(tc.m)
		if joins != tc.joins || (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %t, %v", tc.name, joins, err)
		}
	}
	// Without a certificate it tells nothing.
	q.TLS = nil
	found = alive.Ask(t.Context(), q)
	if _, err := found.RefuseAgain(own); err == nil || !strings.Contains(err.Error(), "does not say whether") {
		t.Errorf("without a certificate: %+v, %v", found, err)
	}
	c.Members[0].Terminate()
	found = alive.Ask(t.Context(), q)
	if joins, err := found.RefuseAgain(own); joins || err != nil || found.Part(own) != alive.Unknown {
		t.Errorf("nobody answers: %+v, %v", found, err)
	}
}
