package alive_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore/alive"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	os.Exit(m.Run())
}

const fresh = 77 // the id of the new cluster

// question is about a restore of the cluster to its own addresses.
func question(t *testing.T, c *testserver.Cluster) alive.Question {
	t.Helper()
	client := c.Client(t)
	resp, err := client.MemberList(clientv3.WithRequireLeader(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	q := alive.Question{Old: backup.MemberID(resp.Header.ClusterId), New: fresh}
	// etcd lists them by their ids, which depend on the ports.
	slices.SortFunc(resp.Members, func(a, b *etcdserverpb.Member) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range resp.Members {
		q.Recorded = append(q.Recorded, backup.Member{
			ID: backup.MemberID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs,
		})
		q.Planned = append(q.Planned, backup.Member{Name: m.Name, PeerURLs: m.PeerURLs})
	}
	return q
}

// refused returns the words of a refusal, and its hint.
func refused(t *testing.T, err error) string {
	t.Helper()
	var refusal *backup.RefusedError
	var hint *backup.HintError
	if !errors.As(err, &refusal) || !errors.As(err, &hint) || refusal.Override != "--allow-running" ||
		!strings.Contains(hint.Hint, "--allow-running") {
		t.Errorf("%v: want a refusal that names its override", err)
		return ""
	}
	return err.Error() + "\n" + hint.Hint
}

// TestAsk_Members takes the members of a cluster away, one after the other.
func TestAsk_Members(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3})
	q := question(t, c)
	check := func(living int, words ...string) {
		t.Helper()
		found := alive.Ask(t.Context(), q)
		if found.Living != living || found.Voters != 3 || len(found.Other) > 0 {
			t.Errorf("found %+v, want %d living", found, living)
		}
		err := found.Refusal("m1", true)
		if len(words) == 0 {
			if err != nil {
				t.Error(err)
			}
			return
		}
		for _, word := range words {
			if said := refused(t, err); !strings.Contains(said, word) {
				t.Errorf("%s: want %q", said, word)
			}
		}
	}
	check(3, "the old cluster lives: 3 of its 3 members answer")
	c.Members[0].Terminate()
	check(2, "the old cluster lives: 2 of its 3 members answer ("+c.Members[1].PeerURL+", a peer URL of member m2; ",
		fmt.Sprintf("backupd member replace --name=m1 --endpoints=%s,%s", c.Members[1].ClientURL, c.Members[2].ClientURL))

	// A clone at other addresses harms nobody.
	clone := q
	clone.Planned = []backup.Member{{Name: "m1", PeerURLs: []string{testserver.FreeURL(t)}}}
	if found := alive.Ask(t.Context(), clone); len(found.Old) > 0 || found.Refusal("m1", false) != nil {
		t.Errorf("a clone: %+v", found)
	}
	// Members of the new cluster are those that are wanted.
	same := q
	same.Old, same.New = fresh, q.Old
	if found := alive.Ask(t.Context(), same); len(found.Old)+len(found.Other) > 0 {
		t.Errorf("members of the new cluster: %+v", found)
	}
	other := q
	other.Old = 78
	found := alive.Ask(t.Context(), other)
	if said := refused(t, found.Refusal("m1", true)); !strings.Contains(said, "of another cluster") {
		t.Errorf("members of another cluster: %+v", found)
	}
	// By the client URL alone.
	moved := q
	for i := range moved.Recorded {
		moved.Recorded[i].PeerURLs = []string{testserver.FreeURL(t)}
		moved.Planned[i].PeerURLs = moved.Recorded[i].PeerURLs
	}
	if found := alive.Ask(t.Context(), moved); found.Living != 2 || !found.Old[0].Client {
		t.Errorf("by client URLs: %+v", found)
	}

	q = alive.Question{Old: q.Old, New: q.New}
	for _, m := range c.Members {
		member := backup.Member{Name: m.Name, PeerURLs: []string{m.PeerURL}, ClientURLs: []string{m.ClientURL}}
		q.Recorded, q.Planned = append(q.Recorded, member), append(q.Planned, member)
	}
	c.Members[1].Terminate()
	check(1, "members of the old cluster still answer", "m3", "stop them for good first")
	c.Members[2].Pause() // it takes connections, and answers nobody
	if found := alive.Ask(t.Context(), q); len(found.Old) > 0 || len(found.Other) != 1 ||
		found.Refusal("m1", false) == nil || found.Refusal("m1", true) != nil {
		t.Errorf("with a member that hangs: %+v", found)
	}
	c.Members[2].Resume()
	c.Members[2].Terminate()
	check(0)
}

// TestAsk_Certificates: a member that wants a certificate does not say of which cluster it
// is. Where none of the new cluster can run, it is refused.
func TestAsk_Certificates(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{TLS: true})
	q := question(t, c)
	found := alive.Ask(t.Context(), q)
	if len(found.Old) > 0 || len(found.Other) != 1 || found.Other[0].Cluster != 0 {
		t.Fatalf("found %+v", found)
	}
	if said := refused(t, found.Refusal("", false)); !strings.Contains(said, c.Members[0].PeerURL) {
		t.Error(said)
	}
	if err := found.Refusal("", true); err != nil {
		t.Error(err)
	}
	if note := found.Note(); !strings.Contains(note, c.Members[0].PeerURL) {
		t.Errorf("the note is %q", note)
	}
}

// TestAsk_Strangers: whatever else answers there, or nothing, is told in time.
func TestAsk_Strangers(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	socket := filepath.Join(t.TempDir(), "s")
	members := func(urls ...string) (out []backup.Member) {
		for i, u := range urls {
			out = append(out, backup.Member{Name: fmt.Sprint("m", i+1), PeerURLs: []string{u}})
		}
		return out
	}
	q := alive.Question{Old: 1, New: 2, Planned: members(web.URL, "http://"+silent.Addr().String(),
		testserver.FreeURL(t), "http://no-such-host.invalid:2380", "unix://"+socket, "::bad")}
	found := alive.Ask(t.Context(), q)
	if len(found.Other) != 2 || found.Other[0].Member != "m1" || found.Other[1].Member != "m2" || len(found.Old) > 0 {
		t.Errorf("found %+v", found)
	}
	if said := refused(t, found.Refusal("m1", false)); !strings.Contains(said, web.URL) {
		t.Error(said)
	}
	// What is at an old client URL may be anybody, and nobody listens there for the new one.
	q.Planned = members(testserver.FreeURL(t))
	q.Recorded = members(q.Planned[0].PeerURLs[0])
	q.Recorded[0].ClientURLs = []string{web.URL, "http://" + silent.Addr().String()}
	if found := alive.Ask(t.Context(), q); len(found.Old)+len(found.Other) > 0 {
		t.Errorf("at client URLs: %+v", found)
	}
}
