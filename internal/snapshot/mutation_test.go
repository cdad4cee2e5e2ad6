package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// mutations are the ways in which an object gets damaged. other is an object of
// another snapshot.
var mutations = []struct {
	name   string
	mutate func(r *rand.Rand, raw, other []byte) []byte
}{
	{"TruncateBy1", func(_ *rand.Rand, raw, _ []byte) []byte { return raw[:len(raw)-1] }},
	{"TruncateBy32", func(_ *rand.Rand, raw, _ []byte) []byte { return raw[:len(raw)-32] }},
	{"TruncateTo512", func(r *rand.Rand, raw, _ []byte) []byte { return raw[:512*r.IntN((len(raw)+511)/512)] }},
	{"Truncate", func(r *rand.Rand, raw, _ []byte) []byte { return raw[:r.IntN(len(raw))] }},
	{"FlipBit", func(r *rand.Rand, raw, _ []byte) []byte { raw[r.IntN(len(raw))] ^= 1 << r.IntN(8); return raw }},
	{"FlipInHead", func(r *rand.Rand, raw, _ []byte) []byte {
		raw[r.IntN(min(300, len(raw)))] ^= 1 << r.IntN(8)
		return raw
	}},
	{
		"FlipInTail",
		func(r *rand.Rand, raw, _ []byte) []byte { raw[len(raw)-1-r.IntN(100)] ^= 1 << r.IntN(8); return raw },
	},
	{"ZeroBlock", func(r *rand.Rand, raw, _ []byte) []byte {
		from := r.IntN(len(raw))
		clear(raw[from:min(from+1+r.IntN(4096), len(raw))])
		return raw
	}},
	{"RepeatBlock", func(r *rand.Rand, raw, _ []byte) []byte {
		copy(raw[r.IntN(len(raw)):], bytes.Clone(raw[r.IntN(len(raw)):]))
		return raw
	}},
	{"Swap", func(_ *rand.Rand, _, other []byte) []byte { return other }},
	{"SwapTail", func(r *rand.Rand, raw, other []byte) []byte {
		n := r.IntN(min(len(raw), len(other)))
		return append(raw[:n], other[n:]...)
	}},
	{"Extend", func(r *rand.Rand, raw, _ []byte) []byte { return append(raw, raw[:1+r.IntN(len(raw))]...) }},
	{"ExtendBy0", func(_ *rand.Rand, raw, _ []byte) []byte { return append(raw, 0) }},
}

// subject holds two snapshots of one cluster in a store of files, which can be
// damaged behind the back of the store.
type subject struct {
	store storage.Store
	dir   string
	ids   []age.Identity
	m, o  *backup.Manifest // the one to damage, and another
}

// TestMutations damages stored objects in at least 500 ways. Verify must name
// each, and reading must refuse it.
func TestMutations(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	source := connect(t, real.Endpoints()...)
	testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 60})
	folder, id := t.TempDir(), newIdentity(t)
	bucket, server := newS3(t)
	total := 0
	for i, c := range []struct {
		name   string
		store  storage.Store
		dir    string
		codec  codec.Options
		rounds int
	}{
		{"plain", file.New(folder), folder, codec.Options{}, 10},
		{"zstd", file.New(folder), folder, codec.Options{Compress: codec.Zstd}, 10},
		{"age", file.New(folder), folder, encryptTo(t, id.Recipient().String()), 10},
		{"s3", bucket, server.Dir(), codec.Options{Compress: codec.Zstd}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			taker := newTaker(t, source, c.store)
			taker.cluster, taker.Codec = c.name, c.codec
			s := subject{store: c.store, dir: c.dir, ids: []age.Identity{id}, m: take(t, taker)}
			testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 16, Prefix: c.name, Seed: uint64(i + 1)})
			s.o = take(t, taker)
			total += s.damageAll(t, rounds.Of(c.rounds))
			testMissing(t, s)
			if err := errors.Join(verify(t, s.store, s.m, s.ids...), verify(t, s.store, s.o, s.ids...)); err != nil {
				t.Errorf("after everything was put right: %v", err)
			}
		})
	}
	testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 20, ValueBytes: 90 << 10, Prefix: "large"})
	for name, options := range map[string]codec.Options{
		"frames": {Compress: codec.Zstd}, "frames-age": encryptTo(t, id.Recipient().String()),
	} {
		t.Run(name, func(t *testing.T) {
			taker := newTaker(t, source, file.New(folder))
			taker.cluster, taker.Codec = name, options
			total += testFrames(t, taker, folder, id)
		})
	}
	t.Logf("%d mutations", total)
	if total < rounds.Of(500) {
		t.Error("too few")
	}
}

// damageAll damages the data and the manifest in all ways, some times each, and
// returns how many different mutations that made.
func (s subject) damageAll(t *testing.T, rounds int) int {
	t.Helper()
	seen := map[string]bool{}
	for seed := range rounds {
		for _, key := range []struct{ own, other string }{{s.m.DataKey(), s.o.DataKey()}, {s.m.Key(), s.o.Key()}} {
			raw, other := s.read(t, key.own), s.read(t, key.other)
			for _, mut := range mutations {
				r := rand.New(rand.NewPCG(uint64(seed), 1))
				damaged := mut.mutate(r, bytes.Clone(raw), bytes.Clone(other))
				for bytes.Equal(damaged, raw) { // the bytes are already what the mutation makes of them
					damaged = mut.mutate(r, bytes.Clone(raw), bytes.Clone(other))
				}
				if id := key.own + string(damaged); seen[id] {
					continue // one that chance does not change
				} else {
					seen[id] = true
				}
				s.write(t, key.own, damaged)
				want := s.kind(key.own, raw, other, damaged)
				if err := s.check(t, key.own, want); err != nil {
					t.Errorf("%s of %s, seed %d: %v", mut.name, key.own, seed, err)
				}
			}
			s.write(t, key.own, raw)
		}
	}
	return len(seen)
}

func (s subject) kind(key string, raw, other, damaged []byte) backup.DefectKind {
	switch {
	case bytes.Equal(damaged, other):
		return backup.Swapped
	case key == s.m.Key():
		return backup.ManifestDamaged
	case len(damaged) != len(raw):
		return backup.Truncated
	}
	return backup.Changed
}

// check verifies and reads the damaged snapshot.
func (s subject) check(t *testing.T, key string, want backup.DefectKind) error {
	t.Helper()
	var defect *backup.DefectError
	err := verify(t, s.store, s.m, s.ids...)
	if !errors.As(err, &defect) || defect.Kind != want || defect.Key != key || !errors.Is(err, backup.ErrCorrupt) {
		return fmt.Errorf("verify: got %v, want %q of %s", err, want, key)
	}
	if key == s.m.Key() {
		if m, err := open(t.Context(), s.store, s.m); !errors.Is(err, backup.ErrCorrupt) || m != nil {
			return fmt.Errorf("open: got %v, %v", m, err)
		}
		return nil
	}
	v := newVerifier(s.store, s.m.Cluster, t.TempDir())
	v.Depth = snapshot.StoredOnly
	if _, err := v.Verify(t.Context(), item(s.m)); !errors.As(err, &defect) || defect.Kind != want {
		return fmt.Errorf("verify without identity: got %v, want %q", err, want)
	}
	// A damaged header of age may look like a wrong key, which is refused too.
	if _, err := readData(t.Context(), s.store, s.m, s.ids...); !errors.Is(err, backup.ErrCorrupt) &&
		!errors.Is(err, codec.ErrNoIdentity) {
		return fmt.Errorf("read: got %v", err)
	}
	return nil
}

func (s subject) read(t *testing.T, key string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, key))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// write replaces a file as a whole, whatever its mode, and keeps what the store
// may have attached to it.
func (s subject) write(t *testing.T, key string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, key), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func testMissing(t *testing.T, s subject) {
	t.Helper()
	manifest, data := readObject(t, s.store, s.m.Key()), readObject(t, s.store, s.m.DataKey())
	remove := func(key string) {
		if err := s.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	remove(s.m.DataKey())
	if err := s.check(t, s.m.DataKey(), backup.DataMissing); err != nil {
		t.Errorf("without data: %v", err)
	}
	remove(s.m.Key())
	var defect *backup.DefectError
	if err := verify(t, s.store, s.m, s.ids...); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &defect) {
		t.Errorf("without both: got %v", err)
	}
	create(t, s.store, s.m.DataKey(), data)
	if err := verify(t, s.store, s.m, s.ids...); !errors.As(err, &defect) || defect.Kind != backup.ManifestMissing ||
		defect.Key != s.m.DataKey() {
		t.Errorf("without manifest: got %v", err)
	}
	left := orphans(t, s.store)
	if !slices.ContainsFunc(left, func(i repository.Item) bool {
		return i.Data[0].Key == s.m.DataKey() && len(i.Litter(s.m.StartedAt)) == 0
	}) {
		t.Errorf("without manifest: got orphans %v", left)
	}
	create(t, s.store, s.m.Key(), manifest)
}
