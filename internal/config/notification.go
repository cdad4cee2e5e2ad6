package config

import "github.com/etcd-backupd/backupd/internal/notify"

// Target returns the receiver with the events it gets. It reads the files that the
// receiver names.
func (n *Notification) Target() (*notify.Target, error) {
	var kinds []notify.Kind
	for _, k := range n.On {
		kinds = append(kinds, notify.Kind(k))
	}
	return notify.NewTarget(n.receiver(), n.Clusters, kinds)
}

func (n *Notification) receiver() notify.Receiver {
	switch {
	case n.Webhook != nil:
		return notify.Webhook{
			URL: string(n.Webhook.URL), URLFile: n.Webhook.URLFile,
			Template: n.Webhook.Template, TokenFile: n.Webhook.BearerTokenFile,
		}
	case n.Slack != nil:
		return notify.Slack{URL: string(n.Slack.URL), URLFile: n.Slack.URLFile}
	case n.Healthchecks != nil:
		return notify.Healthchecks{URL: string(n.Healthchecks.URL), URLFile: n.Healthchecks.URLFile}
	}
	return notify.Command{Args: n.Command}
}
