// Package systemd tells the service manager that started the daemon how the daemon
// is. Without one it does nothing.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Manager is the service manager. Its methods may be called concurrently.
type Manager struct {
	log     *slog.Logger
	now     func() time.Time
	summary func() string             // one line for 'systemctl status'
	beat    atomic.Pointer[time.Time] // when the scheduler last read the clock
}

// New returns the manager. summary returns one line for 'systemctl status'.
func New(log *slog.Logger, now func() time.Time, summary func() string) *Manager {
	return &Manager{log: log, now: now, summary: summary}
}

// Run reports the start and the stop of the daemon, and feeds the watchdog. Alive
// must have been called before.
//
// The watchdog watches the process alone: its locks, and the scheduler. A failing
// backup is no reason to restart the daemon, which would only lose its knowledge.
func (m *Manager) Run(ctx context.Context) error {
	m.notify(sd.SdNotifyReady + "\nSTATUS=" + m.summary())
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
			m.notify(sd.SdNotifyStopping)
			return nil
		case <-tick.C:
			// A lock that is never released stops the heartbeat here.
			status := "STATUS=" + m.summary()
			if silent := m.now().Sub(*m.beat.Load()); silent < beatWithin {
				status = sd.SdNotifyWatchdog + "\n" + status
			} else {
				m.log.Error("the scheduler no longer reads the clock; this is a bug in backupd", "silent",
					silent)
			}
			m.notify(status)
		}
	}
}

// beatWithin is the longest time between two heartbeats of a healthy scheduler,
// which reads the clock twice a minute.
const beatWithin = 3 * time.Minute

// Alive notes that the scheduler reads the clock.
func (m *Manager) Alive() { m.beat.Store(new(m.now())) }

// Reloading reports that the daemon reads its configuration, until the returned
// function is called.
func (m *Manager) Reloading() (end func()) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it exists on every Linux
	m.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000))
	return func() { m.notify(sd.SdNotifyReady) }
}

func (m *Manager) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		m.log.Warn("cannot notify systemd", "err", err)
	}
}
