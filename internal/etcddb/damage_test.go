package etcddb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// mutation is one way to damage a snapshot.
type mutation struct {
	name string
	data []byte
}

// mutations damages data in every way that disks and networks are known for,
// the same ways for the same seed.
func mutations(data []byte, seed uint64) []mutation {
	const page = 4096
	rng := rand.New(rand.NewPCG(seed, 5))
	var all []mutation
	add := func(name string, change func(d []byte) []byte) {
		all = append(all, mutation{name, change(bytes.Clone(data))})
	}
	pages := (len(data) - 32) / page
	for range rounds.Of(300) {
		at, bit := rng.IntN(len(data)), rng.IntN(8)
		add(fmt.Sprintf("flip bit %d of byte %d", bit, at), func(d []byte) []byte { d[at] ^= 1 << bit; return d })
	}
	for range rounds.Of(60) {
		at, with := rng.IntN(pages)*page+rng.IntN(48), rng.Uint32()|1
		add(fmt.Sprintf("smash header at byte %d with %#x", at, with), func(d []byte) []byte {
			binary.NativeEndian.PutUint32(d[at:], with)
			return d
		})
	}
	for id := 0; id < pages; id += 2 {
		add(fmt.Sprintf("zero page %d", id), func(d []byte) []byte { clear(d[id*page:][:page]); return d })
		other := rng.IntN(pages)
		add(fmt.Sprintf("page %d over page %d", other, id), func(d []byte) []byte {
			copy(d[id*page:][:page], d[other*page:][:page])
			return d
		})
		cut := rng.IntN(pages) * page
		add(fmt.Sprintf("truncate to %d", cut), func(d []byte) []byte { return d[:cut] })
	}
	for _, cut := range []int{len(data) - 32, len(data) - 1, len(data) - 512, len(data) - 544, 512 * 11, 512*11 + 32,
		100,
		32, 1, 0} {
		add(fmt.Sprintf("truncate to %d", cut), func(d []byte) []byte { return d[:cut] })
	}
	return all
}

// TestInspect_Mutations damages a real snapshot in hundreds of ways. Whatever
// bbolt's own check finds or dies of must be found here too, and what is not
// found must show in the status hash or have hit unused bytes.
func TestInspect_Mutations(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 60, Compact: true})
	_, err := c.Client(t).Put(t.Context(), "large", string(bytes.Repeat([]byte("overflow "), 2000)))
	must(t, err)
	original := download(t, c.Client(t))
	want, err := etcddb.Inspect(t.Context(), original)
	must(t, err)
	data, err := os.ReadFile(original)
	must(t, err)

	path := filepath.Join(t.TempDir(), "mutated.db")
	counts := make(map[string]int)
	for _, m := range mutations(data, 1) {
		if bytes.Equal(m.data, data) {
			continue
		}
		must(t, os.WriteFile(path, m.data, 0o600))
		if err := trailer.Verify(t.Context(), path, nil); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: VerifyTrailer: %v", m.name, err)
		}
		got, err := etcddb.Inspect(t.Context(), path)
		outcome := outcomeOf(got, err, want)
		counts[outcome]++
		if outcome == "unexpected" {
			t.Errorf("%s: %v, facts %+v", m.name, err, got)
		}
		if outcome == "corrupt" {
			continue
		}
		if out, err := boltChecks(t, path); err != nil {
			t.Errorf("%s: %s here, but bbolt says %v: %.300s", m.name, outcome, err, out)
		}
	}
	t.Log(counts)
	for _, outcome := range []string{"corrupt", "equal", "hash differs"} {
		if counts[outcome] == 0 {
			t.Errorf("no mutation ended as %q", outcome)
		}
	}
}

func outcomeOf(got *etcddb.Facts, err error, want *etcddb.Facts) string {
	switch {
	case errors.Is(err, backup.ErrCorrupt):
		return "corrupt"
	case err == nil && reflect.DeepEqual(got, want):
		return "equal"
	case err == nil && got.StatusHash != want.StatusHash:
		return "hash differs"
	}
	return "unexpected"
}

// boltChecks lets bbolt check the file in a process of its own.
func boltChecks(t testing.TB, path string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), boltCheckEnv+"="+path, "GORACE=atexit_sleep_ms=0")
	return cmd.CombinedOutput()
}
