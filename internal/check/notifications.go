package check

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
)

// tryTimeout bounds what one receiver may take.
const tryTimeout = 35 * time.Second

// notificationCheck checks the receivers.
type notificationCheck struct {
	conf *config.Config
	send bool // test events
	log  *slog.Logger
	now  time.Time
}

// run checks the receivers, and sends them test events if the options ask for that.
func (c *notificationCheck) run(ctx context.Context) []backup.Finding {
	if len(c.conf.Daemon.Notifications) == 0 {
		l := list{section: SectionNotifications, subject: "daemon.notifications"}
		l.warn("add a receiver to daemon.notifications, or watch the metrics (deploy/prometheus has alert rules)",
			"nobody is notified when backups fail")
		return l.findings
	}
	var out []backup.Finding
	for i := range c.conf.Daemon.Notifications {
		n := &c.conf.Daemon.Notifications[i]
		subject := fmt.Sprintf("daemon.notifications[%d] %s", i, kindOfReceiver(n))
		l := list{section: SectionNotifications, subject: subject}
		target, err := n.Target()
		switch {
		case err != nil:
			l.fail("correct the receiver", "%v", err)
		case !c.send:
			l.add(backup.LevelOK, "--notify sends a test",
				"the receiver is right, as far as a check can say that sends nothing")
		default:
			c.try(ctx, &l, n, target)
		}
		if !slices.Contains(n.On, string(notify.Failed)) {
			l.warn("add failure to its key on", "it is not notified of failures")
		}
		out = append(out, l.findings...)
	}
	return out
}

func kindOfReceiver(n *config.Notification) string {
	switch {
	case n.Webhook != nil:
		return "webhook"
	case n.Slack != nil:
		return "slack"
	case n.Healthchecks != nil:
		return "healthchecks"
	}
	return "command"
}

// try sends the test events for a receiver.
func (c *notificationCheck) try(ctx context.Context, l *list, n *config.Notification, target *notify.Target) {
	for _, e := range c.testEvents(n) {
		ctx, cancel := context.WithTimeout(ctx, tryTimeout)
		err := target.Try(ctx, c.log, e)
		cancel()
		if err != nil {
			l.fail("correct the receiver's URL or program, or let this host through to it",
				"the test event %s was not delivered: %v", e.Kind, err)
			return
		}
		l.ok("the test event %s was delivered", e.Kind)
	}
}

// testEvents returns a failure, because failures must arrive, and its recovery,
// which closes the alarm that the failure opened. A healthchecks URL gets a start
// instead: a failure would raise its alarm, and a success would hide that
// backups are missing.
func (c *notificationCheck) testEvents(n *config.Notification) []notify.Event {
	e := notify.Event{Job: "check", Time: c.now.UTC()}
	if len(c.conf.Clusters) > 0 {
		e.Cluster = c.conf.Clusters[0].Name
	}
	if len(n.Clusters) > 0 {
		e.Cluster = n.Clusters[0]
	}
	for _, cluster := range c.conf.Clusters {
		if cluster.Name == e.Cluster {
			e.Repository = cluster.Repository
		}
	}
	kinds := []notify.Kind{notify.Failed, notify.Recovered}
	if n.Healthchecks != nil {
		kinds = []notify.Kind{notify.Started}
	}
	var out []notify.Event
	for _, kind := range kinds {
		e.Kind = kind
		if e.Error, e.Hint = "", ""; kind == notify.Failed {
			e.Error, e.Hint = "this is a test by 'backupd check --notify': nothing has failed", "do nothing"
		}
		out = append(out, e)
	}
	return out
}
