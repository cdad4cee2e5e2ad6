package copies_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/copies"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFault = errors.New("the store is on fire")

// started is when the first snapshot of the tests was begun.
var started = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

const (
	line1 = "t1-aaaaaa"
	line2 = "t2-bbbbbb"
)

// place is a repository in memory.
type place struct {
	storage.Store
	repo *repository.Repository
}

func newPlace(t testing.TB) place {
	t.Helper()
	return at(t, mem.New())
}

// at makes a repository in a store.
func at(t testing.TB, s storage.Store) place {
	t.Helper()
	r, err := repository.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return place{s, r}
}

// through is the same repository through another store, such as a hook.
func (p place) through(s storage.Store) place { return place{s, repository.At(s, p.repo.ID())} }

func (p place) prod() *repository.Cluster { return p.repo.Cluster("prod") }

// manifest makes one of a snapshot that was never taken, of data that says which it is.
func manifest(timeline string, n int) (*backup.Manifest, []byte) {
	at, rev := started.Add(time.Duration(n)*time.Hour), backup.Revision(n+1)
	data := fmt.Appendf(nil, "the data of revision %d", rev)
	blob := backup.Blob{Bytes: int64(len(data)), SHA256: sha256.Sum256(data)}
	return &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "where-it-was-first-stored",
		ID: backup.NewDataName(at).WithRevision(rev), Timeline: timeline, FinishedAt: at, Stored: blob,
		Capture: backup.Capture{
			Cluster: "prod", ClusterID: 7, StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: rev, Plain: blob,
			RaftIndex: uint64(rev),
		},
	}, data
}

// add stores a snapshot of prod, changed by what is done to its manifest.
func add(t testing.TB, s storage.Store, n int, change ...func(*backup.Manifest)) *backup.Manifest {
	t.Helper()
	m, data := manifest(line1, n)
	for _, f := range change {
		f(m)
	}
	create(t, s, m.DataKey(), data)
	if key := m.FilesKey(); key != "" {
		create(t, s, key, data)
	}
	create(t, s, m.Key(), marshal(t, m))
	return m
}

func suspect(m *backup.Manifest) { m.Suspect = []string{"a member holds other data"} }

func unconfirmed(m *backup.Manifest) {
	m.Unconfirmed, m.CommittedIndex = []string{"no member was asked"}, 1
}

func withFiles(m *backup.Manifest) {
	m.Companions = &backup.Companions{
		Host: "h", At: started, Paths: []string{"/a"}, Plain: m.Stored, Stored: m.Stored,
		Files: []backup.CompanionFile{{Path: "/a", Mode: "0600", Bytes: 1, SHA256: backup.Digest{5}}},
	}
}

func marshal(t testing.TB, m *backup.Manifest) []byte {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func create(t testing.TB, s storage.Store, key string, raw []byte) {
	t.Helper()
	if err := s.Create(t.Context(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, s storage.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(context.WithoutCancel(t.Context()), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

func has(t testing.TB, s storage.Store, key string) bool {
	t.Helper()
	_, err := s.Stat(context.WithoutCancel(t.Context()), key)
	return err == nil
}

func keys(t testing.TB, s storage.Store) []string {
	t.Helper()
	var out []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o.Key)
	}
	return out
}

// whole checks that every snapshot in a store has the data of its manifest, and returns
// their ids, in the order of their names.
func whole(t testing.TB, s storage.Store) []backup.SnapshotID {
	t.Helper()
	var out []backup.SnapshotID
	for _, key := range keys(t, s) {
		k, err := backup.ParseKey(key)
		if err != nil || k.Kind != backup.KindManifest {
			continue
		}
		m, err := backup.ParseManifest(read(t, s, key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		for _, data := range m.DataKeys() {
			if !has(t, s, data) {
				t.Fatalf("%s is there, and its data %s is not", key, data)
			}
			if sha256.Sum256(read(t, s, data)) != m.Stored.SHA256 {
				t.Fatalf("%s is there, and its data %s has other bytes", key, data)
			}
		}
		out = append(out, m.ID)
	}
	return out
}

func copier(from, to place) *copies.Copier { return &copies.Copier{From: from.prod(), To: to.prod()} }

func plan(t testing.TB, c *copies.Copier) *copies.Plan {
	t.Helper()
	p, err := c.Plan(t.Context(), now())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// copyAll runs a copier, which must not fail.
func copyAll(t testing.TB, c *copies.Copier) *copies.Result {
	t.Helper()
	r, err := c.Run(t.Context(), plan(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// now is a time after all snapshots of the tests.
func now() time.Time { return started.Add(100 * 24 * time.Hour) }

func ids(items []repository.Item) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, i := range items {
		out = append(out, i.ID)
	}
	return out
}

func idsOf(all ...*backup.Manifest) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, m := range all {
		out = append(out, m.ID)
	}
	return out
}

// leftOut fails unless exactly these causes are given, in this order.
func leftOut(t testing.TB, got []copies.LeftOut, want ...copies.Cause) {
	t.Helper()
	var causes []copies.Cause
	for _, l := range got {
		if l.Reason == "" || l.Item.ID == "" {
			t.Errorf("nobody is told which, or why: %+v", l)
		}
		causes = append(causes, l.Cause)
	}
	if !slices.Equal(causes, want) {
		t.Errorf("got %v, want %v: %+v", causes, want, got)
	}
}

// mark makes a mark as somebody else did.
func mark(t testing.TB, s storage.Store, kind backup.MarkKind, id backup.SnapshotID, reason string) string {
	t.Helper()
	k := backup.Key{Cluster: "prod", Kind: backup.KindMark, ID: id, Mark: kind}
	m := backup.Mark{Format: backup.MarkFormat, Kind: kind, ID: id, Reason: reason, At: started, By: "somebody"}
	if kind == backup.MarkLitter {
		k.ID, k.Data, m.ID, m.Data = "", id.DataName(), "", id.DataName()
	}
	if kind.Dated() {
		k.Stamp = backup.TimeOf(started)
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, k.String(), raw)
	return k.String()
}

// record notes the operations of both sides in one list.
type record struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (r *record) of(side string, s storage.Store) storage.Store {
	return storage.WithObserver(s, func(e storage.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		line := fmt.Sprintf("%s %s %s", side, e.Op, e.Key)
		if e.Err != nil {
			line += " failed"
		}
		r.lines = append(r.lines, line)
	})
}

func (r *record) count(prefix string) int {
	n := 0
	for _, line := range r.lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}
