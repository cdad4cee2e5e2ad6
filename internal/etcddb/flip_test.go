package etcddb_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// entry is one of a small bucket, or with an empty key the bucket itself.
type entry struct {
	bucket     string
	key, value []byte
}

// flip changes one byte of one entry.
type flip struct {
	entry int
	inKey bool
	at    int
	mask  byte
}

// flipper damages the small buckets of a real database and starts etcd on it.
type flipper struct {
	version string
	dir     string // a restored data directory
	peer    string
	client  string
	entries []entry
	seed    uint64
	boots   int
	found   int // flips over which no server starts
}

// newFlipper restores the snapshot at path, which is of a server of that version.
func newFlipper(t testing.TB, version, path string) *flipper {
	t.Helper()
	f := &flipper{
		version: version, dir: filepath.Join(t.TempDir(), "restored"), peer: testserver.FreeURL(t),
		client: testserver.FreeURL(t), seed: rand.Uint64(),
	}
	restoreBySkeleton(t, path, f.dir, f.peer, etcddb.PrepareOptions{})
	// A server stores this one when a downgrade has ended.
	editDatabase(t, databaseOf(f.dir), func(tx *bolt.Tx) {
		store(tx, "cluster", []byte("downgrade"), []byte(`{"target-version":"","enabled":false}`))
		f.entries = smallEntries(t, tx)
	})
	return f
}

func editDatabase(t testing.TB, path string, edit func(tx *bolt.Tx)) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true,
		FreelistType: bolt.FreelistMapType})
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error { edit(tx); return nil }))
	must(t, db.Close())
}

func smallEntries(t testing.TB, tx *bolt.Tx) (all []entry) {
	must(t, tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		all = append(all, entry{bucket: string(name)})
		if string(name) == "key" {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all = append(all, entry{string(name), bytes.Clone(k), bytes.Clone(v)})
			return nil
		})
	}))
	return all
}

// replaced reports whether a restore replaces the entry, so that damage to it is harmless.
func (e entry) replaced() bool {
	return e.bucket == buckets.Meta && (string(e.key) == buckets.ConsistentIndex || string(e.key) == buckets.Term)
}

// each calls visit for every byte of the small buckets.
func (f *flipper) each(visit func(flip)) {
	for i, e := range f.entries {
		if e.key == nil || e.replaced() {
			continue
		}
		for at := range e.key {
			visit(flip{entry: i, inKey: true, at: at})
		}
		for at := range e.value {
			visit(flip{entry: i, at: at})
		}
	}
}

// with returns the entries after the flips, or nil if two would have one key.
func (f *flipper) with(flips ...flip) []entry {
	out := slices.Clone(f.entries)
	for _, fl := range flips {
		e := &out[fl.entry]
		e.key, e.value = bytes.Clone(e.key), bytes.Clone(e.value)
		if fl.inKey {
			e.key[fl.at] ^= fl.mask
		} else {
			e.value[fl.at] ^= fl.mask
		}
		for i, other := range out {
			if i != fl.entry && other.bucket == e.bucket && bytes.Equal(other.key, e.key) {
				return nil
			}
		}
	}
	return out
}

// judge does what the inspection does with the small buckets.
func judge(entries []entry) error {
	c := &buckets.Contents{}
	for _, e := range entries {
		if e.key == nil {
			c.Bucket(e.bucket)
		} else if err := c.Read(e.bucket, e.key, e.value); err != nil {
			return err
		}
	}
	return c.Finish()
}

// testAll starts servers on databases with the flips that the inspection passes, many at
// a time. Flips that it passes alone and not together come to different servers.
func (f *flipper) testAll(t *testing.T, flips []flip) {
	t.Helper()
	t.Logf("etcd %s: %d flips, seed %d", f.version, len(flips), f.seed)
	for len(flips) > 0 {
		var now, later []flip
		version := f.versionAfter(flips[0])
		for _, fl := range flips {
			entries := f.with(append(now, fl)...)
			if len(now) < 100 && entries != nil && judge(entries) == nil && f.versionAfter(fl) == version {
				now = append(now, fl)
			} else {
				later = append(later, fl)
			}
		}
		if version > "3.7" {
			t.Logf("%s: it is said to be of etcd %s, newer than is known", f.describe(now[0]), version)
		} else {
			f.test(t, version, now)
		}
		flips = later
	}
}

// versionAfter returns the etcd that the database asks for after the flip.
func (f *flipper) versionAfter(fl flip) string {
	version := f.version
	for _, e := range f.with(fl) {
		if string(e.key) == buckets.StorageVersion || string(e.key) == "clusterVersion" {
			version = max(version, strings.TrimSuffix(string(e.value), ".0"))
		}
	}
	return version
}

// test starts a server, and looks for the flip over which it does not start.
func (f *flipper) test(t *testing.T, version string, flips []flip) {
	t.Helper()
	err := f.boot(t, version, f.with(flips...))
	switch {
	case err == nil:
	case len(flips) == 1:
		f.found++
		t.Errorf("etcd %s does not start, the inspection sees nothing: %s (seed %d): %v",
			version, f.describe(flips[0]), f.seed, err)
	default:
		found := f.found
		f.test(t, version, flips[:len(flips)/2])
		f.test(t, version, flips[len(flips)/2:])
		if f.found == found {
			f.found++
			t.Errorf("etcd %s does not start with %d flips together (seed %d): %v", version, len(flips), f.seed, err)
		}
	}
}

func (f *flipper) describe(fl flip) string {
	before, after := f.entries[fl.entry], f.with(fl)[fl.entry]
	return fmt.Sprintf("bucket %s: %q = %q becomes %q = %q", before.bucket, before.key, before.value,
		after.key, after.value)
}

// boot starts a server on a copy of the database with these entries.
func (f *flipper) boot(t testing.TB, version string, entries []entry) error {
	t.Helper()
	f.boots++
	return f.bootEdited(t, version, func(tx *bolt.Tx) {
		for i, e := range f.entries {
			if e.key != nil && !bytes.Equal(e.key, entries[i].key) {
				must(t, tx.Bucket([]byte(e.bucket)).Delete(e.key))
			}
		}
		for _, e := range entries {
			if e.key != nil {
				store(tx, e.bucket, e.key, e.value)
			}
		}
		if err := judge(smallEntries(t, tx)); err != nil {
			t.Errorf("the inspection refuses what it is said to pass: %v", err)
		}
	})
}

// bootEdited starts a server on a copy of the data directory with an edited database.
func (f *flipper) bootEdited(t testing.TB, version string, edit func(tx *bolt.Tx)) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "booted")
	must(t, os.CopyFS(dir, os.DirFS(f.dir)))
	defer os.RemoveAll(dir) // the test's directory goes anyway
	editDatabase(t, databaseOf(dir), edit)
	return startEtcd(t, version, dir, f.peer, f.client)
}

// startEtcd starts a server until it serves clients.
func startEtcd(t testing.TB, version, dir, peer, client string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testserver.Binary(t, version, "etcd"), "--name=m1", "--data-dir="+dir,
		"--listen-client-urls="+client, "--advertise-client-urls="+client, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--unsafe-no-fsync")
	out, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	var log bytes.Buffer
	ready := false
	for lines := bufio.NewScanner(io.TeeReader(out, &log)); lines.Scan(); {
		if ready = strings.Contains(lines.Text(), "ready to serve client requests"); ready {
			break
		}
	}
	if ready {
		err = askEtcd(ctx, client)
	}
	cancel()
	_, _ = io.Copy(io.Discard, out) // a full pipe must not hold it
	_ = cmd.Wait()                  // killed
	if !ready {
		return fmt.Errorf("it ended: %s", tail(log.Bytes()))
	}
	return err
}

// askEtcd asks a server for something that it answers, or refuses without a login.
func askEtcd(ctx context.Context, client string) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close() // nothing was written
	_, err = c.Get(ctx, "key")
	if err != nil && !strings.Contains(err.Error(), "user name is empty") {
		return err
	}
	return nil
}

func tail(log []byte) string {
	for line := range bytes.Lines(log) {
		for _, word := range []string{`"level":"panic"`, `"level":"fatal"`, "panic:"} {
			if bytes.Contains(line, []byte(word)) {
				return string(line)
			}
		}
	}
	return string(log[max(0, len(log)-2000):])
}

// testFlips flips bytes of the small buckets of the snapshot at path, each with a mask
// drawn at random, and starts a server with those that the inspection passes.
func testFlips(t *testing.T, version, path string) {
	f := newFlipper(t, version, path)
	rng := rand.New(rand.NewPCG(f.seed, 1))
	var passed []flip
	refused := 0
	f.each(func(fl flip) {
		fl.mask = byte(1 + rng.UintN(255))
		if entries := f.with(fl); entries == nil {
			return
		} else if judge(entries) != nil {
			refused++
			return
		}
		passed = append(passed, fl)
	})
	if refused == 0 || len(passed) == 0 {
		t.Fatalf("%d flips passed and %d were refused: this test tests nothing", len(passed), refused)
	}
	rng.Shuffle(len(passed), func(i, j int) { passed[i], passed[j] = passed[j], passed[i] })
	f.testAll(t, passed[:min(len(passed), rounds.Of(60))])
}
