package daemon

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/notify"
)

// TestLastDeliveries: a daemon that is stopped waits for a receiver that is down for less
// than the ten seconds after which a container is killed. What it was not told counts as
// not told. Who is not stopped waits longer.
func TestLastDeliveries(t *testing.T) {
	for stopped, want := range map[bool]time.Duration{true: 5 * time.Second, false: 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			target, err := notify.NewTarget(notify.Webhook{URL: "http://127.0.0.1:1"}, nil, nil) // nobody listens
			if err != nil {
				t.Fatal(err)
			}
			r := &reporter{notifier: notify.New([]*notify.Target{target}, slog.New(slog.DiscardHandler))}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			end := r.run(ctx)
			for _, cluster := range []string{"a", "b", "c"} {
				e := notify.Event{Job: kindBackup, Repository: "main", Cluster: cluster, Time: time.Now(), Error: "x"}
				r.notifier.Outcome(e)
			}
			if stopped {
				stop()
			}
			begin := time.Now()
			end()
			if d := time.Since(begin); d != want {
				t.Errorf("stopped %t: the last deliveries took %s, want %s", stopped, d, want)
			}
			if m := r.notifier.Remember("main", "a"); len(m.Told) != 0 || len(m.Failing) != 1 {
				t.Errorf("got %+v", m)
			}
		})
	}
}
