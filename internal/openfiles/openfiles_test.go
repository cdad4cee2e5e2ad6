package openfiles_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/openfiles"
)

// TestBudget: no more jobs at once than the limit has room for, and one always.
func TestBudget(t *testing.T) {
	for limit, want := range map[uint64]int64{3: 1, 64: 2, uint64(openfiles.Need(7, 2)): 7} {
		synctest.Test(t, func(t *testing.T) {
			b := openfiles.New(limit)
			var inside, most atomic.Int64
			for range 20 {
				go func() {
					done, err := b.Take(t.Context(), 2)
					if err != nil {
						t.Error(err)
						return
					}
					most.Store(max(most.Load(), inside.Add(1)))
					time.Sleep(time.Second)
					inside.Add(-1)
					done()
				}()
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			if most.Load() != want || inside.Load() != 0 {
				t.Errorf("limit %d: %d at once, %d left, want %d", limit, most.Load(), inside.Load(), want)
			}
		})
	}
}

func TestBudget_Wait(t *testing.T) {
	b := openfiles.New(10)
	done, err := b.Take(t.Context(), 100) // more than there is: the only job
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("the time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	_, err = b.Take(ctx, 1)
	var hint *backup.HintError
	if !errors.Is(err, over) || !strings.Contains(err.Error(), "may open 10") || !errors.As(err, &hint) {
		t.Errorf("got %v", err)
	}
	done()
	if _, err := b.Take(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
