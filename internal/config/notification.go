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
			Template: n.Webhook.Template, TokenFile: n.Webhook.BearerTokenFile, CAFile: n.Webhook.CAFile,
		}
	case n.Slack != nil:
		return notify.Slack{URL: string(n.Slack.URL), URLFile: n.Slack.URLFile, CAFile: n.Slack.CAFile}
	case n.Healthchecks != nil:
		return notify.Healthchecks{
			URL: string(n.Healthchecks.URL), URLFile: n.Healthchecks.URLFile, CAFile: n.Healthchecks.CAFile,
		}
	case n.Command != nil:
		return n.Command.receiver()
	}
	return notify.Command{}
}

func (c *Command) receiver() notify.Command {
	out := notify.Command{Program: c.Program, Env: map[string]string{}}
	for _, a := range c.Args {
		out.Args = append(out.Args, string(a))
	}
	for name, value := range c.Env {
		out.Env[name] = string(value)
	}
	return out
}
