package daemon

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// tellSystemd says that the daemon is up, feeds the watchdog and says when it
// stops. Without systemd it does nothing.
//
// The watchdog is about the process alone: its locks, and the scheduler. That a
// backup fails is no reason to restart the daemon: it would only lose what it
// knows.
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
			// A lock that is never given back stops the heartbeat here.
			status := "STATUS=" + d.summary()
			if silent := d.opts.Now().Sub(*d.beat.Load()); silent < beatWithin {
				status = sd.SdNotifyWatchdog + "\n" + status
			} else {
				d.log.Error("the scheduler does not look at the clock any more; this is a bug of backupd", "silent",
					silent)
			}
			d.notifySystemd(status)
		}
	}
}

// beatWithin is how long the scheduler may be silent, which looks at the clock
// twice a minute.
const beatWithin = 3 * time.Minute

// summary is one line for 'systemctl status'.
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
		d.log.Warn("systemd does not listen", "err", err)
	}
}
