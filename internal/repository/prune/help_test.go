package prune_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFault = errors.New("the store is on fire")

var moments = map[string]storagetest.When{
	"Before": storagetest.Before, "After": storagetest.After, "Crash": storagetest.Crash,
}

var started = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

// line1 is the timeline of the tests.
const line1 = "t1-aaaaaa"

// in returns the repository in a store.
func in(s storage.Store) *repository.Repository { return repository.At(s, "the-only-repository") }

// prod returns the cluster that most tests are about.
func prod(s storage.Store) *repository.Cluster { return in(s).Cluster("prod") }

// manifest makes a valid manifest of a snapshot that was never taken.
func manifest(cluster string, at time.Time, rev backup.Revision) *backup.Manifest {
	blob := backup.Blob{Bytes: 10, SHA256: backup.Digest{byte(rev), 1}}
	return &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "the-only-repository",
		ID: backup.NewDataName(at).WithRevision(rev), Timeline: line1,
		FinishedAt: at, Stored: blob,
		Capture: backup.Capture{
			Cluster: cluster, StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: rev, Plain: blob,
		},
	}
}

func suspectManifest(at time.Time, rev backup.Revision) *backup.Manifest {
	m := manifest("prod", at, rev)
	m.Suspect = []string{"a member holds other data"}
	return m
}

func marshal(t *testing.T, m *backup.Manifest) []byte {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// item is a snapshot as the name of its manifest describes it.
func item(m *backup.Manifest) repository.Item {
	return repository.Item{
		Cluster: m.Cluster, ID: m.ID, Name: m.ID.DataName(), Exists: true, Timeline: m.Timeline, Index: m.RaftIndex,
		Taken: m.State(),
	}
}

func addManifest(t *testing.T, s storage.Store, m *backup.Manifest) *backup.Manifest {
	t.Helper()
	create(t, s, m.Key(), marshal(t, m))
	return m
}

// addSnapshot stores a snapshot whose data was never a database.
func addSnapshot(t *testing.T, s storage.Store, m *backup.Manifest) *backup.Manifest {
	t.Helper()
	create(t, s, m.DataKey(), []byte("0123456789"))
	return addManifest(t, s, m)
}

// daily adds n snapshots of prod, the oldest first, a day apart.
func daily(t *testing.T, s storage.Store, n int) []*backup.Manifest {
	t.Helper()
	var out []*backup.Manifest
	for i := range n {
		out = append(out, addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, i-n), backup.Revision(i+1))))
	}
	return out
}

func ids(all ...*backup.Manifest) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, m := range all {
		out = append(out, m.ID)
	}
	return out
}

func look(t *testing.T, c *repository.Cluster, vouch int, now time.Time) *repository.Overview {
	t.Helper()
	o, err := c.Look(t.Context(), vouch, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func create(t testing.TB, s storage.Store, key string, raw []byte) {
	t.Helper()
	if err := s.Create(t.Context(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

func readObject(t *testing.T, s storage.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

func keys(t *testing.T, s storage.Store) []string {
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

// unmarked returns the keys of all objects but the marks of removals.
func unmarked(t *testing.T, s storage.Store) []string {
	t.Helper()
	return slices.DeleteFunc(keys(t, s), func(key string) bool { return strings.HasSuffix(key, ".removed.json") })
}

func newS3(t testing.TB) (storage.Store, *testserver.S3) {
	t.Helper()
	server := testserver.StartS3(t)
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	credentials := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = " + server.AccessKey + "\naws_secret_access_key = " + server.SecretKey +
		"\n"
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := s3.New(t.Context(), s3.Options{
		Bucket: server.Bucket, Endpoint: server.Endpoint, Region: server.Region, CredentialsFile: credentials,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, server
}

// golden compares a trace with a file in testdata.
func golden(t *testing.T, name, trace string) {
	t.Helper()
	storagetest.Golden(t, name, storagetest.Generic(trace), *update)
}

// pinKey returns the key of a pin, as the specification has it.
func pinKey(m *backup.Manifest) string { return m.Cluster + "/marks/" + string(m.ID) + ".pin.json" }

// damagedKey returns the key of a mark of damage, as the specification has it.
func damagedKey(m *backup.Manifest) string {
	return m.Cluster + "/marks/" + string(m.ID) + ".damaged.json"
}

func pin(ctx context.Context, s storage.Store, m *backup.Manifest, reason, by string) error {
	return in(s).Cluster(m.Cluster).Marks().Pin(ctx, item(m), reason, by)
}

// markDamaged records that a verification found the snapshot changed.
func markDamaged(t *testing.T, s storage.Store, m *backup.Manifest) {
	t.Helper()
	defect := &backup.DefectError{Kind: backup.Changed, Key: m.DataKey(), Err: backup.Corruptf("it was flipped")}
	if err := prod(s).Marks().Record(t.Context(), item(m), defect, "verify on host"); err != nil {
		t.Fatal(err)
	}
}

func idsOf(items []repository.Item) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, i := range items {
		out = append(out, i.ID)
	}
	return out
}
