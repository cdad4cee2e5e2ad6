package snapshot_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTaker_Cautions: a role that etcd 3.5 has, and over whose name etcd 3.7 ends, is
// stored. The log, the manifest and the plan of a restore say so.
func TestTaker_Cautions(t *testing.T) {
	const role = "bad\xff\xfe" // the client of etcd 3.7 cannot send it
	real := testserver.StartCluster(t, testserver.Options{Version: "3.5"})
	real.AddUser(t, "w", "secret")
	for _, args := range [][]string{{"role", "add", role}, {"user", "grant-role", "w", role}} {
		args = append([]string{"--endpoints", real.Endpoints()[0]}, args...)
		if out, err := exec.Command(testserver.Binary(t, "3.5", "etcdctl"), args...).CombinedOutput(); err != nil {
			t.Fatalf("etcdctl: %v: %s", err, out)
		}
	}
	store := mem.New()
	taker := newTaker(t, connect(t, real.Endpoints()...), store)
	var log bytes.Buffer
	taker.Log = slog.New(slog.NewTextHandler(&log, nil))
	m := take(t, taker)
	if err := verify(t, store, m); err != nil {
		t.Errorf("verify: %v", err)
	}
	for place, text := range map[string]string{
		"the log": log.String(), "the manifest": strings.Join(m.Cautions, "\n"),
		"the plan of a restore": strings.Join(snapshot.NewSource(nil, m, nil).About().Warnings, "\n"),
	} {
		for _, want := range []string{"bad", "w", "etcd 3.7 does not start"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q: %s", place, want, text)
			}
		}
	}
}

// TestTaker_Doubts: a database whose user root has lost its role is stored, and suspect.
func TestTaker_Doubts(t *testing.T) {
	good := realDatabase(t)
	path := filepath.Join(t.TempDir(), "db")
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.WriteFile(path, good.raw, 0o600))
	db, err := bbolt.Open(path, 0o600, nil)
	check(err)
	check(db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.Bucket([]byte("auth")).Put([]byte("authEnabled"), []byte{1}),
			tx.Bucket([]byte("authUsers")).Put([]byte("root"), []byte("\x0a\x04root\x1a\x04roou")))
	}))
	check(db.Close())
	raw, err := os.ReadFile(path)
	check(err)
	bad := database{raw, good.facts}
	m := take(t, newTaker(t, connect(t, startFakes(t, bad, testserver.GoodSnapshot(raw)).urls...), mem.New()))
	if m.State() != backup.Suspect || !strings.Contains(strings.Join(m.Suspect, "\n"), "lacks the role root") {
		t.Errorf("state %s, suspect %q, want that the user root lacks the role root", m.State(), m.Suspect)
	}
}
