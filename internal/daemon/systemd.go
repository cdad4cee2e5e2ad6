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
// The watchdog is about the process alone. That a backup fails is no reason to
// restart the daemon: it would only lose what it knows.
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
			d.notifySystemd(sd.SdNotifyWatchdog + "\nSTATUS=" + d.summary())
		}
	}
}

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
