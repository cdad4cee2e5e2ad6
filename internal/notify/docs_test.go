package notify_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
)

// blocks returns the examples of docs/notifications.md in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	return out
}

func documented() notify.Event {
	return notify.Event{
		Kind: notify.Failed, Job: "backup", Repository: "main", Cluster: "production",
		Labels: map[string]string{"team": "platform"},
		Time:   time.Date(2026, 11, 21, 3, 0, 41, 0, time.UTC),
		Error:  "survey production: dial 10.0.0.1:2379: connection refused",
		Hint:   "is etcd running, and may this host reach it?",
		Since:  time.Date(2026, 11, 21, 2, 0, 39, 0, time.UTC),
	}
}

func TestDocumentedEvent(t *testing.T) {
	want, err := json.MarshalIndent(documented(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := blocks(t, "json")
	if len(got) != 1 {
		t.Fatalf("%d examples of JSON", len(got))
	}
	if diff := cmp.Diff(string(want)+"\n", got[0]); diff != "" {
		t.Errorf("docs/notifications.md is not what is sent (-sent +documented):\n%s", diff)
	}
}

func TestDocumentedJobs(t *testing.T) {
	b, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	sentence := regexp.MustCompile(`(?m)^Jobs are ([^.]*)\.`).FindSubmatch(b)
	if sentence == nil {
		t.Fatal("docs/notifications.md does not name the jobs")
	}
	var got []string
	for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllSubmatch(sentence[1], -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(got)
	if diff := cmp.Diff(notify.Jobs(), got); diff != "" {
		t.Errorf("jobs (-known +documented):\n%s", diff)
	}
}

// documentedReceivers returns the receivers of the examples, with url in place
// of their URLs.
func documentedReceivers(t *testing.T, url string) []config.Notification {
	t.Helper()
	var out []config.Notification
	for _, text := range blocks(t, "yaml") {
		var example struct {
			Daemon struct {
				Notifications []config.Notification `yaml:"notifications"`
			} `yaml:"daemon"`
		}
		if err := yaml.Load([]byte(text), &example, yaml.WithKnownFields()); err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		out = append(out, example.Daemon.Notifications...)
	}
	if len(out) != 6 {
		t.Fatalf("%d examples of YAML", len(out))
	}
	return out
}

func TestDocumentedExamplesWork(t *testing.T) {
	r := newReceiver(t, nil)
	var got []string
	for _, n := range documentedReceivers(t, r.URL) {
		switch {
		case n.Webhook != nil:
			w := notify.Webhook{URL: r.URL, Template: n.Webhook.Template}
			if n.Webhook.BearerTokenFile != "" {
				w.TokenFile = write(t, "token")
			}
			deliver(t, w, nil, documented()).want(t, "webhook sent")
		case n.Slack != nil:
			deliver(t, notify.Slack{URL: r.URL}, nil, documented()).want(t, "slack sent")
		case n.Healthchecks != nil:
			deliver(t, notify.Healthchecks{URL: r.URL}, nil, documented()).want(t, "healthchecks sent")
		case n.Command != nil:
			got = append(got, mail(t, n.Command))
		}
	}
	want := []string{"-s backupd: production: backup failure ops@example.com\n" +
		documented().Line() + "\n\n" + documented().Hint + "\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mail (-want +got):\n%s", diff)
	}
	if n := len(r.requests()); n != 5 {
		t.Errorf("%d requests", n)
	}
}

// mail runs the documented script with a mail program that keeps what it gets.
func mail(t *testing.T, command *config.Command) string {
	t.Helper()
	scripts := blocks(t, "sh")
	if len(scripts) != 1 || !strings.Contains(scripts[0], command.Program) {
		t.Fatalf("the script %s is not documented", command.Program)
	}
	dir := t.TempDir()
	script, sent := filepath.Join(dir, "script"), filepath.Join(dir, "sent")
	for path, text := range map[string]string{
		script: scripts[0], filepath.Join(dir, "mail"): "#!/bin/sh\n{ echo \"$@\"; cat; } >" + sent + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	deliver(t, notify.Command{Program: script, Args: []string{string(command.Args[0])}}, nil, documented()).want(t,
		"command sent")
	b, err := os.ReadFile(sent)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// alert is what Alertmanager takes at /api/v2/alerts.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

func TestDocumentedAlertmanager(t *testing.T) {
	r := newReceiver(t, nil)
	for _, n := range documentedReceivers(t, r.URL) {
		if n.Webhook == nil || n.Webhook.Template == "" {
			continue
		}
		failed, recovered := documented(), documented()
		recovered.Kind, recovered.Error, recovered.Hint = notify.Recovered, "", ""
		recovered.Time = failed.Time.Add(time.Hour)
		deliver(t, notify.Webhook{URL: r.URL, Template: n.Webhook.Template}, nil, failed, recovered)
	}
	var got [][]alert
	for _, request := range r.requests() {
		d := json.NewDecoder(strings.NewReader(strings.TrimPrefix(request, "POST / ")))
		d.DisallowUnknownFields()
		var alerts []alert
		if err := d.Decode(&alerts); err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		got = append(got, alerts)
	}
	e := documented()
	labels := map[string]string{"alertname": "BackupdJobFailed", "severity": "critical", "job": "backup",
		"repository": "main", "cluster": "production"}
	want := [][]alert{
		{{Labels: labels, Annotations: map[string]string{"description": e.Error, "hint": e.Hint}, StartsAt: e.Since,
			EndsAt: e.Time.Add(48 * time.Hour)}},
		{{Labels: labels, Annotations: map[string]string{"description": "", "hint": ""}, StartsAt: e.Since,
			EndsAt: e.Time.Add(time.Hour)}},
	}
	noSummary := cmpopts.IgnoreMapEntries(func(k, _ string) bool { return k == "summary" })
	if diff := cmp.Diff(want, got, noSummary); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
