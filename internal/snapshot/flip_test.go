package snapshot_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// flips is a network that flips a bit in some of the downloads of objects with a part.
type flips struct {
	storagetest.Hook
	part string
	left atomic.Int64 // how many are flipped yet
}

func newFlips(s *mem.Store, part string, n int64) *flips {
	f := &flips{Hook: storagetest.Hook{Store: s}, part: part}
	f.left.Store(n)
	f.Download = func(_ context.Context, key string, _ int64, r io.Reader) io.Reader {
		if !strings.Contains(key, f.part) || f.left.Add(-1) < 0 {
			return r
		}
		return &flipped{r: r}
	}
	return f
}

type flipped struct {
	r    io.Reader
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 && !f.done {
		p[n/2] ^= 1
		f.done = true
	}
	return n, err
}

// TestFlip_ReadBack: one flipped bit on the way back costs no backup. Two in a row are
// damage: nothing is stored that does not come back.
func TestFlip_ReadBack(t *testing.T) {
	db := realDatabase(t)
	for n, ok := range map[int64]bool{1: true, 100: false} {
		s := mem.New()
		taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...),
			newFlips(s, "/data/", n))
		m, err := taker.Take(t.Context())
		if (err == nil) != ok || err != nil && !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%d flips: got %v", n, err)
		}
		if err == nil && !m.Verified() {
			t.Errorf("got %+v", m)
		}
	}
}

// TestFlip_Verify: a verification calls nothing damaged by one look.
func TestFlip_Verify(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	for _, part := range []string{"/data/", "/snapshots/"} {
		for _, depth := range []snapshot.Depth{snapshot.Full, snapshot.StoredOnly} {
			v := newVerifier(newFlips(s, part, 1), "prod", t.TempDir())
			v.Depth = depth
			if _, err := v.Verify(t.Context(), item(m)); err != nil {
				t.Errorf("%s, depth %d: %v", part, depth, err)
			}
			v = newVerifier(newFlips(s, part, 100), "prod", t.TempDir())
			v.Depth = depth
			var defect *backup.DefectError
			if _, err := v.Verify(t.Context(), item(m)); !errors.As(err, &defect) {
				t.Errorf("%s, depth %d: got %v", part, depth, err)
			}
		}
	}
}
