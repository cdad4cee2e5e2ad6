package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// systemd is the service manager that started the daemon, if it is one.
type systemd struct {
	log     *slog.Logger
	now     func() time.Time
	beat    atomic.Pointer[time.Time] // when the scheduler last read the clock
	summary func() string             // one line for 'systemctl status'
}

// run reports the start and the stop of the daemon to systemd, and feeds
// its watchdog. Without systemd it does nothing.
//
// The watchdog watches the process alone: its locks, and the scheduler. A failing
// backup is no reason to restart the daemon, which would only lose its knowledge.
func (s *systemd) run(ctx context.Context) error {
	s.notify(sd.SdNotifyReady + "\nSTATUS=" + s.summary())
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read WATCHDOG_USEC: %w", err)
	}
	if interval == 0 {
		interval = 2 * time.Minute // for the status line alone
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.notify(sd.SdNotifyStopping)
			return nil
		case <-tick.C:
			// A lock that is never released stops the heartbeat here.
			status := "STATUS=" + s.summary()
			if silent := s.now().Sub(*s.beat.Load()); silent < beatWithin {
				status = sd.SdNotifyWatchdog + "\n" + status
			} else {
				s.log.Error("the scheduler no longer reads the clock; this is a bug in backupd", "silent",
					silent)
			}
			s.notify(status)
		}
	}
}

// beatWithin is the longest time between two heartbeats of a healthy scheduler,
// which reads the clock twice a minute.
const beatWithin = 3 * time.Minute

// alive notes that the scheduler reads the clock.
func (s *systemd) alive() { s.beat.Store(new(s.now())) }

func (s *systemd) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		s.log.Warn("cannot notify systemd", "err", err)
	}
}
