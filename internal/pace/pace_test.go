package pace_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/pace"
)

// send lets so many pieces of 64 KiB go and returns how long they took.
func send(ctx context.Context, l *pace.Limiter, pieces int) time.Duration {
	began := time.Now()
	for range pieces {
		l.Wait(ctx, 64<<10)
	}
	return time.Since(began)
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.New(1 << 20)
		if took := send(t.Context(), l, 160); took < 9900*time.Millisecond || took > 10*time.Second {
			t.Errorf("10 MiB at 1 MiB/s took %v", took)
		}
		time.Sleep(time.Hour)
		if took := send(t.Context(), l, 16); took < 900*time.Millisecond {
			t.Errorf("after a pause 1 MiB at 1 MiB/s took %v", took)
		}
		if took := send(t.Context(), pace.New(0), 160); took != 0 {
			t.Errorf("without a bound: %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if took := send(ctx, l, 160); took != time.Second {
			t.Errorf("a context that ended after a second let the caller wait %v", took)
		}
	})
}
