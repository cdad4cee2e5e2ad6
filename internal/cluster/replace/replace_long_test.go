//go:build long

package replace_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// alter changes one value in the database of a member that does not run.
func alter(t *testing.T, dataDir string) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dataDir, "member", "snap", "db"), 0o600, nil)
	ok(t, err)
	ok(t, db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte("key")).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(v, &kv); err != nil {
				return err
			}
			if len(kv.Value) > 0 && kv.Lease == 0 {
				kv.Value[0]++
				v, err := proto.Marshal(&kv)
				return errors.Join(err, tx.Bucket([]byte("key")).Put(slices.Clone(k), v))
			}
		}
		return errors.New("no value")
	}))
	ok(t, db.Close())
}

// TestLongRun replaces a member whose data is gone, after a typo, and members that have other data.
func TestLongRun(t *testing.T) {
	r := newRig(t, testserver.Options{})
	first, second, third := r.Members[0], r.Members[1], r.Members[2]
	run := func(o replace.Options) (*replace.Report, error) { return replace.Run(t.Context(), r.c, o) }

	t.Run("DataGone", func(t *testing.T) {
		old := r.id(t, first.Name)
		first.Kill()
		ok(t, os.RemoveAll(first.DataDir))
		typo := r.options(first, func(change string) error {
			if change == "start" {
				return errors.New("the member does not begin there")
			}
			return nil
		})
		typo.DataDir += "typo"
		report, err := run(typo)
		if err == nil || !strings.Contains(strings.Join(report.Notes, "\n"), typo.DataDir+" does not exist") {
			t.Errorf("%v, and the notes are %q", err, report.Notes)
		}
		_, err = run(r.options(first, nil)) // it was removed by another folder
		var unknown *replace.UnknownError
		if !errors.As(err, &unknown) || len(unknown.Added) != 1 || unknown.Added[0].PeerURLs[0] != first.PeerURL {
			t.Errorf("%v: %+v", err, unknown)
		}
		right := r.options(first, nil)
		right.Removed, right.PeerURLs = true, []string{first.PeerURL}
		again, err := run(right)
		ok(t, err)
		if report.ReplacedID != old || len(again.OldData) > 0 || slices.Contains(again.Steps, replace.Aside) {
			t.Errorf("the reports are %+v, %+v", report, again)
		}
		ok(t, os.Remove(replace.NotePath(typo.DataDir)))
		r.whole(t, first, old)
	})
	t.Run("Differs", func(t *testing.T) {
		second.Kill()
		alter(t, second.DataDir)
		second.Restart(t)
		r.WaitReady(t)
		for range 2 { // also one that was replaced before is replaced
			third.Kill()
			old := r.id(t, third.Name)
			_, err := run(r.options(third, nil))
			if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "holds other data than member") {
				t.Fatal(err)
			}
			if r.id(t, third.Name) == old {
				t.Fatal("the member was not replaced")
			}
		}
	})
	t.Run("TwoDown", func(t *testing.T) {
		first.Kill()
		third.Kill()
		o := r.options(third, func(change string) error { return errors.New(change + " was changed") })
		o.AllowMoreDown, o.AllowRunning = true, true
		_, err := run(o)
		refused(t, err, "the cluster has no quorum: 1 of its 3 voting members answer, and a change takes 2", "")
	})
}
