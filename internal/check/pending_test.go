package check_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// TestPending: the truth about a snapshot in the spool depends on which repository is at
// the address.
func TestPending(t *testing.T) {
	conf := load(t, little)
	conf.Daemon.Spool.Folder = t.TempDir()
	main := conf.Repositories["main"]
	store, err := main.Open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(id string) (path string) {
		t.Helper()
		folder := spool.Folder{Dir: conf.Daemon.Spool.Folder, Keep: true, MinFree: disk.ReserveOf(0)}
		f, err := folder.New(1)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Remember(id, backup.Capture{
			Cluster: "prod", StartedAt: time.Now().UTC(), Revision: 7, HighWaterRevision: 7,
			Members:      []backup.Member{{ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}},
			MemberHashes: []backup.MemberHash{}, Plain: backup.Blob{Bytes: 1, SHA256: backup.Digest{1}}, Tool: "test",
		})
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.Leave(errors.New("no route to host"))
		if err != nil {
			t.Fatal(err)
		}
		return p.Path
	}
	wait(repo.ID())
	got := run(t, conf)
	want(t, got, check.SectionSpool, warning, "waits to be stored in repository "+repo.ID())
	wantNone(t, got, check.SectionSpool, failure)
	const other = "abcdefghijklmnopqrst"
	path := wait(other)
	got = run(t, conf)
	want(t, got, check.SectionSpool, failure, "waits to be stored in repository "+other)
	want(t, got, check.SectionSpool, failure, "repository "+repo.ID()+" is at the address: it is stored in no other")
	for _, f := range got {
		if strings.Contains(f.Text, other) && !strings.Contains(f.Hint, strings.TrimSuffix(path, "spool")+"*") {
			t.Errorf("got %+v", f)
		}
	}
}
