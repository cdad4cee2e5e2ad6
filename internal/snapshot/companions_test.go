package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// companions returns one companion file.
func companions(t *testing.T) companion.Files {
	t.Helper()
	path := t.TempDir() + "/ca.key"
	if err := os.WriteFile(path, []byte("KEY"), 0o600); err != nil {
		t.Fatal(err)
	}
	return companion.Files{Paths: []string{path}, Host: "h1"}
}

// TestCompanions_Trace: the files are stored and read back between the data and the manifest,
// and they go with the data.
func TestCompanions_Trace(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	traced := storagetest.Trace(s)
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), traced)
	taker.Companions = companions(t)
	m := take(t, taker)
	golden(t, "take_companions.trace", traced.String())
	wantKeys(t, s, m)
	if m.FilesKey() == "" || verify(t, s, m) != nil {
		t.Errorf("%q: %v", m.FilesKey(), verify(t, s, m))
	}
	if err := prune.Delete(t.Context(), in(s).Cluster("prod"), m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s)
}

// TestCompanions_Crash fails each operation of the store in turn: a snapshot that is listed is
// whole with its files, or says that it has none. What is left belongs to no snapshot, and is
// found by its name.
func TestCompanions_Crash(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	files := companions(t)
	for moment, when := range moments {
		t.Run(moment, func(t *testing.T) {
			seen := map[string]bool{}
			for n := 0; ; n++ {
				s := mem.New()
				faulty := storagetest.FailAt(s, n, when, errFault)
				trace := storagetest.Trace(faulty)
				taker := newTaker(t, source, trace)
				taker.Companions = files
				m, err := taker.Take(t.Context())
				checkAfterTake(t, s, nil, m, err)
				if when != storagetest.Crash && err != nil && !strings.Contains(trace.String(), "create prod/snapshots/") {
					wantNoOrphans(t, s)
				}
				for _, i := range orphans(t, s) {
					seen["left"] = true
					if derr := prune.Delete(t.Context(), in(s).Cluster("prod"), i.Name.WithRevision(1), "op"); derr != nil {
						t.Errorf("what is left cannot be deleted: %v", derr)
					}
				}
				wantNoOrphans(t, s)
				if m != nil && len(m.Companions.Missing) > 0 {
					seen["without"] = true
					if !strings.Contains(m.Companions.Missing[0].Reason, "the store did not keep it") {
						t.Errorf("missing: %+v", m.Companions.Missing)
					}
				}
				if t.Failed() {
					t.Fatalf("with operation %d failing: %v\n%s", n, err, trace)
				}
				if !faulty.Fired() {
					if err != nil || m.FilesKey() == "" || n < 10 {
						t.Fatalf("no fault at operation %d, %v, %q", n, err, m.FilesKey())
					}
					break
				}
			}
			if when == storagetest.Crash && !seen["left"] {
				t.Error("no crash left anything")
			}
		})
	}
}

// TestCompanions_Lost: a store that never keeps the files costs them, and no snapshot.
func TestCompanions_Lost(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	hook := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpCreate && strings.Contains(key, ".files.tar") {
			return errFault
		}
		return nil
	}}
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), hook)
	taker.Companions = companions(t)
	m := take(t, taker)
	if err := companion.Incomplete(m); err == nil || !strings.Contains(err.Error(), errFault.Error()) {
		t.Errorf("got %v", err)
	}
	wantKeys(t, s, m)
	if err := verify(t, s, m); err != nil {
		t.Error(err)
	}
}

// TestCompanions_Pending: a snapshot that waited for its store has the files as they are when it
// is stored.
func TestCompanions_Pending(t *testing.T) {
	db := realDatabase(t)
	s, folder := mem.New(), t.TempDir()
	outage(t, keeper(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0], s, folder))
	later := keeper(t, testserver.FreeURL(t), s, folder)
	later.Companions = companions(t)
	stored, err := later.StorePending(t.Context())
	if err != nil || len(stored) != 1 || stored[0].FilesKey() == "" {
		t.Fatalf("got %v, %v", stored, err)
	}
	wantKeys(t, s, stored...)
	if err := verify(t, s, stored[0]); err != nil {
		t.Error(err)
	}
}

// TestCompanions_Verify: files that are damaged, cut or gone are named by both verifications and
// by a look, with their object; one whose own sums fit, too.
func TestCompanions_Verify(t *testing.T) {
	db := realDatabase(t)
	good := mem.New()
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), good)
	taker.Companions = companions(t)
	m := take(t, taker)
	raw := readObject(t, good, m.FilesKey())
	for what, bytes := range map[string][]byte{
		"changed": append([]byte{raw[0] ^ 1}, raw[1:]...), "cut": raw[:len(raw)-1], "gone": nil, "whole": raw,
	} {
		if err := good.Delete(t.Context(), m.FilesKey()); err != nil {
			t.Fatal(err)
		}
		if bytes != nil {
			create(t, good, m.FilesKey(), bytes)
		}
		for _, depth := range []snapshot.Depth{snapshot.Full, snapshot.StoredOnly} {
			v := newVerifier(good, "prod", t.TempDir())
			v.Depth = depth
			_, err := v.Verify(t.Context(), itemOf(m.ObjectKey()))
			var defect *backup.DefectError
			named := errors.As(err, &defect) && defect.Kind == backup.CompanionsBad && defect.Key == m.FilesKey()
			if named == (what == "whole") || what == "whole" && err != nil {
				t.Errorf("%s, depth %d: %v", what, depth, err)
			}
		}
		o, err := in(good).Cluster("prod").Look(t.Context(), 1, nil, m.StartedAt)
		if err != nil {
			t.Fatal(err)
		}
		bySize := what == "cut" || what == "gone"
		if i := slices.IndexFunc(o.Items, func(i repository.Item) bool { return i.ID == m.ID }); i < 0 ||
			(o.Items[i].State() == backup.Damaged) != bySize {
			t.Errorf("%s: a look tells %s", what, fmt.Sprint(o.Items))
		}
	}
	// The files alone are no snapshot.
	if err := good.Delete(t.Context(), m.DataKey()); err != nil {
		t.Fatal(err)
	}
	i, err := in(good).Cluster("prod").Item(t.Context(), m.ID)
	var defect *backup.DefectError
	if err != nil || !errors.As(i.Defect(), &defect) || defect.Kind != backup.DataMissing {
		t.Errorf("without the data: %v, %v", i.Defect(), err)
	}
}
