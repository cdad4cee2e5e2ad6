package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Webhook gets a POST of JSON. URLFile, if set instead of URL, holds the URL.
type Webhook struct {
	URL, URLFile string
	// Template is a text/template of the body, executed with the [Event] and the
	// function json, which writes any value as JSON. Empty: the event as JSON.
	Template string
	// TokenFile, if set, holds a bearer token.
	TokenFile string
	// CAFile, if set, holds the authorities that are trusted instead of the system's.
	CAFile string
}

type hook struct {
	place     place
	template  *template.Template // nil: the event as JSON
	tokenFile string
}

func (w Webhook) prepare() (sender, error) {
	h := &hook{place: place{w.URL, w.URLFile, trust{file: w.CAFile}}, tokenFile: w.TokenFile}
	if err := h.place.check(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if _, err := h.token(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if w.Template == "" {
		return h, nil
	}
	var err error
	h.template, err = template.New("webhook").Option("missingkey=zero").
		Funcs(template.FuncMap{"json": toJSON}).Parse(w.Template)
	if err != nil {
		return nil, fmt.Errorf("webhook template: %w", err)
	}
	for _, e := range samples() {
		if _, err := h.body(e); err != nil {
			return nil, fmt.Errorf("webhook template, tried with a %s: %w", e.Kind, err)
		}
	}
	return h, nil
}

// samples hold texts that a template may fail to quote.
func samples() []Event {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	e := Event{Job: "backup", Repository: "main", Cluster: "production",
		Labels: map[string]string{"team": `the "A" team`}, Time: now}
	started, succeeded, failed, recovered, expiring := e, e, e, e, e
	started.Kind, succeeded.Kind, failed.Kind, recovered.Kind = Started, Succeeded, Failed, Recovered
	succeeded.Snapshot, succeeded.Revision = "20261121T030000Z-r123456-0123456789ab", 123456
	recovered.Snapshot, recovered.Revision = succeeded.Snapshot, succeeded.Revision
	recovered.Since = now.Add(-time.Hour)
	failed.Error, failed.Hint, failed.Since = "dial \"10.0.0.1:2379\":\n\tconnection refused \\ <&>",
		"is etcd\nup?", now
	expiring.Kind, expiring.Job, expiring.Repository, expiring.Cluster = CertificateExpiring, "certificate", "", ""
	expiring.File, expiring.Expires, expiring.Since = "/etc/backupd/server.crt", now.AddDate(0, 0, 7), now
	return []Event{started, succeeded, failed, recovered, expiring}
}

func (h *hook) kind() string { return "webhook" }

func (h *hook) send(ctx context.Context, _ *slog.Logger, e Event) error {
	u, err := h.place.read()
	if err != nil {
		return err
	}
	token, err := h.token()
	if err != nil {
		return err
	}
	body, err := h.body(e)
	if err != nil {
		return backoff.Permanent(fmt.Errorf("template: %w", err))
	}
	return h.place.post(ctx, u, "application/json", body, token)
}

func (h *hook) token() (string, error) {
	if h.tokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(h.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read bearer token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s does not hold a bearer token: want one word", h.tokenFile)
	}
	return token, nil
}

func (h *hook) body(e Event) ([]byte, error) {
	if h.template == nil {
		return json.Marshal(e)
	}
	var b bytes.Buffer
	if err := h.template.Execute(&b, e); err != nil {
		return nil, err
	}
	if !json.Valid(b.Bytes()) {
		return nil, errors.New("the result is not JSON: write values with json and without quotes, " +
			"as in {{json .Error}}")
	}
	return b.Bytes(), nil
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// Slack is an incoming webhook of Slack, or of a service that reads its messages
// (Mattermost, Rocket.Chat, Discord with /slack). URLFile, if set instead of URL,
// holds the URL. CAFile, if set, holds the authorities that are trusted instead of the
// system's.
type Slack struct{ URL, URLFile, CAFile string }

type chat struct{ place place }

func (s Slack) prepare() (sender, error) {
	c := &chat{place{s.URL, s.URLFile, trust{file: s.CAFile}}}
	if err := c.place.check(); err != nil {
		return nil, fmt.Errorf("slack: %w", err)
	}
	return c, nil
}

func (c *chat) kind() string { return "slack" }

// maxText is less than the largest message of Slack.
const maxText = 3000

var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (c *chat) send(ctx context.Context, _ *slog.Logger, e Event) error {
	u, err := c.place.read()
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"text": slackEscape.Replace(clip(e.String(), maxText))})
	if err != nil {
		return backoff.Permanent(err)
	}
	return c.place.post(ctx, u, "application/json", body, "")
}

// clip cuts text to at most n bytes, between characters.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const more = "…"
	return strings.ToValidUTF8(text[:n-len(more)], "") + more
}

// Healthchecks is a ping URL of healthchecks.io or a similar service: URL/start, URL
// and URL/fail are called for start, success and failure of backups. Of other jobs
// only failures are sent: their success says nothing about backups. URLFile, if set
// instead of URL, holds the URL. CAFile, if set, holds the authorities that are trusted
// instead of the system's.
type Healthchecks struct{ URL, URLFile, CAFile string }

type ping struct{ place place }

// maxPing is how much of a body healthchecks.io keeps.
const maxPing = 10_000

func (h Healthchecks) prepare() (sender, error) {
	p := &ping{place{h.URL, h.URLFile, trust{file: h.CAFile}}}
	if err := p.place.check(); err != nil {
		return nil, fmt.Errorf("healthchecks: %w", err)
	}
	return p, nil
}

// pingWants reports whether a check gets e. Unlike people, it gets every failure.
func pingWants(e Event) bool { return e.Job == "backup" || e.Kind == Failed }

func (p *ping) kind() string { return "healthchecks" }

func (p *ping) send(ctx context.Context, _ *slog.Logger, e Event) error {
	u, err := p.place.read()
	if err != nil {
		return err
	}
	body := clip(e.String(), maxPing)
	switch e.Kind {
	case Started:
		u, body = u.JoinPath("start"), ""
	case Failed, NewHistory:
		u = u.JoinPath("fail")
	}
	return p.place.post(ctx, u, "text/plain; charset=utf-8", []byte(body), "")
}
