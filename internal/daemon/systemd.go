package daemon

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// tellSystemd reports the start and the stop of the daemon to systemd, and feeds
// its watchdog. Without systemd it does nothing.
//
// The watchdog watches the process alone: its locks, and the scheduler. A failing
// backup is no reason to restart the daemon, which would only lose its knowledge.
func (d *Daemon) tellSystemd(ctx context.Context) error {
	d.notifySystemd(sd.SdNotifyReady + "\nSTATUS=" + d.summary())
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
			d.notifySystemd(sd.SdNotifyStopping)
			return nil
		case <-tick.C:
			// A lock that is never released stops the heartbeat here.
			status := "STATUS=" + d.summary()
			if silent := d.opts.Now().Sub(*d.beat.Load()); silent < beatWithin {
				status = sd.SdNotifyWatchdog + "\n" + status
			} else {
				d.log.Error("the scheduler no longer reads the clock; this is a bug in backupd", "silent",
					silent)
			}
			d.notifySystemd(status)
		}
	}
}

// beatWithin is the longest time between two heartbeats of a healthy scheduler,
// which reads the clock twice a minute.
const beatWithin = 3 * time.Minute

// summary returns one line for 'systemctl status'.
func (d *Daemon) summary() string {
	good, all := 0, d.Clusters()
	for _, c := range all {
		if c.State == "ok" {
			good++
		}
	}
	return fmt.Sprintf("%d of %d clusters are protected", good, len(all))
}

func (d *Daemon) notifySystemd(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("cannot notify systemd", "err", err)
	}
}
