package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// busy is a store in which another host does something before each object is created.
type busy struct {
	storage.Store
	before func()
}

func (b *busy) Create(ctx context.Context, key string, r io.Reader) error {
	if do := b.before; do != nil {
		b.before = nil
		do()
	}
	return b.Store.Create(ctx, key, r)
}

// TestBegun_AtOnce: two hosts that begin at the same moment do not both go on, and what is
// given up is told to nobody.
func TestBegun_AtOnce(t *testing.T) {
	store := &busy{Store: mem.New()}
	repo, err := repository.Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	in, now := repo.Cluster("prod"), time.Now()
	m := &backup.Manifest{
		ID: backup.NewDataName(now).WithRevision(5), Capture: backup.Capture{Cluster: "prod", Revision: 5},
	}
	source := restore.Origin{
		Name: "s", Bytes: 1, SHA256: backup.Digest{1}, Revision: 5,
		Members: []backup.Member{{Name: "m1", PeerURLs: []string{"http://10.0.0.1:1"}}, {
			Name: "m2", PeerURLs: []string{"http://10.0.0.2:1"},
		}},
	}
	begin := func(name string) error {
		p, err := restore.NewPlan(source, restore.Request{})
		if err != nil {
			return err
		}
		job := &restoreJob{app: &app{log: quietLogs()}}
		job.stored = &stored{in: in, manifest: m, item: repository.Item{ID: m.ID}}
		b := begun{restoreJob: job}
		if err := b.lookForBegun(t.Context()); err != nil {
			return err
		}
		site := restore.Site{Name: name, DataDir: filepath.Join(t.TempDir(), name)}
		w, err := site.Check(t.Context(), p)
		if err != nil {
			return err
		}
		_, err = b.announce(t.Context(), w)
		return err
	}
	var other error
	store.before = func() { other = begin("m2") }
	err = begin("m1")
	var refused *backup.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "at the same moment on host") {
		t.Errorf("the first one: %v", err)
	}
	if other != nil {
		t.Errorf("the other one: %v", other)
	}
	all, err := acceptance.Begun(t.Context(), in, now)
	if err != nil || len(all) != 1 || all[0].Begun.Member != "m2" {
		t.Errorf("begun: %+v, %v", all, err)
	}
}
