package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// certificate returns a certificate and its key in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	certFile, keyFile := testserver.NewAuthority(t).Issue(t, "test")
	var out [2]string
	for i, file := range []string{certFile, keyFile} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = string(raw)
	}
	return out[0], out[1]
}

// inFolder moves the example's paths into dir, and its spool folder too.
func inFolder(dir string) string {
	text := string(config.Example)
	for _, p := range []string{"/etc/backupd/", "/etc/etcd/pki/", "/var/cache/", "/usr/local/bin/"} {
		text = strings.ReplaceAll(text, " "+p, " "+dir+"/")
		text = strings.ReplaceAll(text, "["+p, "["+dir+"/")
	}
	return strings.Replace(text, "# sse-c-key-file", "sse-c-key-file", 1)
}

const kubeconfig = `current-context: x
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {token: hunter2}}]
`

// goodFiles writes everything the example names.
func goodFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	client, clientKey := certificate(t)
	server, serverKey := certificate(t)
	files := map[string]string{
		"ca.crt": client, "s3-ca.crt": client, "client-ca.crt": client + server, "client.crt": client,
		"client.key": clientKey, "server.crt": server, "server.key": serverKey,
		"s3-credentials": "[backupd]\naws_access_key_id = a\naws_secret_access_key = b\n",
		"sse-c.key":      strings.Repeat("k", 32),
		"recipients.txt": "# ours\n" + id.Recipient().String() + "\n", "identity.txt": id.String() + "\n",
		"prod-password": " pass word \n", "read-tokens": "0123456789abcdef\n",
		"operate-tokens": "0123456789abcdef\nfedcba9876543210==\n",
		"team-tokens":    "0123456789abcdef\n", "webhook-token": "t\n", "alerts-ca.crt": client,
		"kubeconfig": kubeconfig,
		"slack-url":  "https://hooks.example/x\n", "healthchecks-url": "http://hc.example/x\n",
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "backupd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "on-backup"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	files := goodFiles(t, dir)
	text := strings.Replace(inFolder(dir), "sse: aws:kms", "", 1)
	text = strings.Replace(text, "sse-kms-key-id: alias/etcd-backups", "", 1)
	c, err := parse(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if problems := c.CheckFiles(); problems != nil {
		t.Fatalf("good files have problems: %v", problems)
	}

	var want []string
	for name := range files {
		want = append(want, filepath.Join(dir, name))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, c.Files()); diff != "" {
		t.Errorf("Files: -want +got\n%s", diff)
	}
	want = nil
	for _, name := range []string{"alerts-ca.crt", "ca.crt", "client-ca.crt", "client.crt", "s3-ca.crt", "server.crt"} {
		want = append(want, filepath.Join(dir, name))
	}
	if diff := cmp.Diff(want, c.CertificateFiles()); diff != "" {
		t.Errorf("CertificateFiles: -want +got\n%s", diff)
	}

	var secrets []string
	for _, s := range c.SecretFiles() {
		secrets = append(secrets, s.Key+" "+filepath.Base(s.File))
	}
	wantSecrets := []string{
		"repositories.offsite.s3.credentials-file s3-credentials", "repositories.offsite.s3.sse-c-key-file sse-c.key",
		"clusters[0].tls.key-file client.key", "clusters[0].password-file prod-password",
		"clusters[0].verify.identity-files identity.txt", "clusters[0].companions.kubeconfig kubeconfig",
		"daemon.notifications[2].webhook.bearer-token-file webhook-token",
		"daemon.notifications[0].slack.url-file slack-url",
		"daemon.notifications[1].healthchecks.url-file healthchecks-url",
		"daemon.server.key-file server.key", "daemon.server.read-tokens-file read-tokens",
		"daemon.server.operate-tokens-file operate-tokens", "daemon.server.callers[1].tokens-file team-tokens",
	}
	slices.Sort(secrets)
	slices.Sort(wantSecrets)
	if diff := cmp.Diff(wantSecrets, secrets); diff != "" {
		t.Errorf("SecretFiles: -want +got\n%s", diff)
	}

	const secret = "hunter2-very-secret"
	other, otherKey := certificate(t)
	for name, tt := range map[string]struct{ file, text, path, want string }{
		"no certificate":   {"ca.crt", secret, "clusters[0].tls.ca-file", "no certificate in PEM"},
		"wrong key":        {"client.key", otherKey, "clusters[0].tls.cert-file", "does not match"},
		"wrong cert":       {"server.crt", other, "daemon.server.cert-file", "does not match"},
		"a key for a cert": {"server.crt", otherKey, "daemon.server.cert-file", "no certificate in PEM"},
		"recipient": {"recipients.txt", "age1nonsense", "repositories.offsite.recipients-files[0]",
			"is not an age public key"},
		"secret recipient": {"recipients.txt", "AGE-SECRET-KEY-" + secret, "repositories.offsite.recipients-files[0]",
			"not a recipient"},
		"identity":       {"identity.txt", secret, "clusters[0].verify.identity-files[0]", "no usable age identity"},
		"password":       {"prod-password", secret + "\nmore\n", "clusters[0].password-file", "more than one line"},
		"empty password": {"prod-password", "\n", "clusters[0].password-file", "the file is empty"},
		"three tokens": {"read-tokens", strings.Repeat(secret+"\n", 3), "daemon.server.read-tokens-file",
			"holds 3 tokens"},
		"short token": {"operate-tokens", "hunter2", "daemon.server.operate-tokens-file", "token 1: want at least 16"},
		"bearer": {"webhook-token", secret + "\n" + secret, "daemon.notifications[2].webhook.bearer-token-file",
			"want exactly one token"},
		"url": {"slack-url", "https://u:" + secret + "@h/", "daemon.notifications[0].slack.url-file",
			"a user or a password"},
		"kubeconfig": {"kubeconfig", strings.Replace(kubeconfig, "token: hunter2", "exec: {command: hunter2}", 1),
			"clusters[0].companions.kubeconfig", "line 4: exec: backupd runs no program"},
		"customer key": {"sse-c.key", secret, "repositories.offsite.s3.sse-c-key-file", "32 bytes"},
		"large": {"s3-credentials", strings.Repeat(secret, 1<<16), "repositories.offsite.s3.credentials-file",
			"more than 1048576 bytes"},
	} {
		path := filepath.Join(dir, tt.file)
		write(t, path, tt.text)
		problems := c.CheckFiles()
		if len(problems) != 1 || problems[0].Path != tt.path || !strings.Contains(problems[0].Message, tt.want) ||
			problems[0].Line == 0 {
			t.Errorf("%s: got %v", name, problems)
		}
		if strings.Contains(fmt.Sprint(problems), "hunter2") {
			t.Errorf("%s: a secret is shown: %v", name, problems)
		}
		write(t, path, files[tt.file])
	}

	// No snapshot is given up for what goes with it.
	write(t, filepath.Join(dir, "kubeconfig"), "{}")
	if err := c.CheckFilesOf(&c.Clusters[0]); err != nil || len(c.CheckFiles()) != 1 {
		t.Errorf("a cluster is not backed up for its kubeconfig: %v, %v", err, c.CheckFiles())
	}
	write(t, filepath.Join(dir, "kubeconfig"), kubeconfig)

	gone := func(name, path, want string) {
		t.Helper()
		problems := c.CheckFiles()
		if len(problems) != 1 || problems[0].Path != path || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%s: got %v", name, problems)
		}
	}
	os.Remove(filepath.Join(dir, "on-backup"))
	gone("no program", "daemon.notifications[3].command.program", "no such file")
	write(t, filepath.Join(dir, "on-backup"), "not executable")
	gone("no right to run", "daemon.notifications[3].command.program", "permission denied")
	os.Chmod(filepath.Join(dir, "on-backup"), 0o700)
	os.Remove(filepath.Join(dir, "backupd"))
	gone("no spool", "daemon.spool.folder", "no such file")
	write(t, filepath.Join(dir, "backupd"), "")
	gone("spool is a file", "daemon.spool.folder", "not a folder")
	os.Remove(filepath.Join(dir, "backupd"))
	os.Mkdir(filepath.Join(dir, "backupd"), 0o700)
	os.Remove(filepath.Join(dir, "client.key"))
	gone("no key", "clusters[0].tls.key-file", "client.key: stat: no such file or directory")
	if err := syscall.Mkfifo(filepath.Join(dir, "client.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	gone("a pipe", "clusters[0].tls.key-file", "not a regular file")
}

func TestConversions(t *testing.T) {
	dir := t.TempDir()
	goodFiles(t, dir)
	c, err := parse(t, strings.Replace(inFolder(dir), "sse-c-key-file", "# sse-c-key-file", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	prod, repo := c.Clusters[0], c.Repositories["offsite"]
	prod.Snapshot.MaxRate = 50 << 20
	got, err := prod.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.Config{
		Endpoints: prod.Endpoints, CAFile: dir + "/ca.crt", CertFile: dir + "/client.crt", KeyFile: dir + "/client.key",
		Username: "backup", PasswordFile: dir + "/prod-password", InsecureTransport: true,
		RequestTimeout: 5 * time.Second,
		StallTimeout:   30 * time.Second,
		MaxRate:        50 << 20,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if live, err := cluster.New(got); err != nil {
		t.Errorf("cluster.New: %v", err)
	} else {
		live.Close()
	}
	os.Remove(dir + "/prod-password")
	if _, err := prod.ClientConfig(); err == nil || !strings.Contains(err.Error(),
		"cluster prod: password file "+dir+"/prod-password: open: no such file") {
		t.Errorf("got %v", err)
	}

	wantS3 := s3.Options{
		Endpoint: "https://s3.example.net", Region: "eu-central-1", PathStyle: "on", CAFile: dir + "/s3-ca.crt",
		CredentialsFile: dir + "/s3-credentials",
		Profile:         "backupd", StorageClass: "STANDARD", SSE: "aws:kms", SSEKMSKeyID: "alias/etcd-backups",
		Checksum: "auto",
	}
	if diff := cmp.Diff(wantS3, repo.S3); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	store, err := repo.Open(t.Context(), slog.New(slog.DiscardHandler))
	if b, ok := store.(*s3.Store); err != nil || !ok || b.Bucket() != "etcd-backups" {
		t.Errorf("got %v, %v", store, err)
	}
	codec, err := repo.Codec()
	if err != nil || codec.Recipients.Len() != 1 || codec.Compress != "zstd" {
		t.Errorf("got %+v, %v", codec, err)
	}

	p := prod.Policy()
	if p.Location.String() != "Europe/Berlin" {
		t.Errorf("zone %s", p.Location)
	}
	p.Location = nil
	if diff := cmp.Diff(retention.Policy{Last: 12, Hourly: 24, Daily: 14, Weekly: 8, Monthly: 12, Yearly: 2,
		Within: 48 * time.Hour, MinVerified: 3, MinAge: 6 * time.Hour, MaxBytes: 500 << 30,
		FreezeFor: 30 * 24 * time.Hour}, p); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	from := time.Date(2026, 11, 21, 12, 10, 0, 0, time.UTC)
	snap, err1 := prod.Snapshot.Line()
	verify, err2 := prod.Verify.Line()
	none, err3 := c.Clusters[1].Verify.Line()
	defrag, err4 := prod.Defragment.Line()
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		t.Fatal(err1, err2, err3, err4)
	}
	for _, tt := range []struct{ got, want time.Time }{
		{snap.Next(from), time.Date(2026, 11, 21, 12, 30, 0, 0, time.UTC)},
		{verify.Next(from), time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)}, // 05:00 in Berlin
		{defrag.Next(from), time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)},
		{none.Next(from), time.Time{}},
	} {
		if !tt.got.Equal(tt.want) {
			t.Errorf("got %v, want %v", tt.got, tt.want)
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	const secret = "hunter2"
	s := config.Slack{URL: secret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "url", s.URL, "slack", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "url", s.URL, "slack", s)
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %s %s", s, s, s, s.URL, s.URL, raw, log.String())
	if strings.Contains(all, secret) || !strings.Contains(all, "***") {
		t.Errorf("got %s", all)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backupd.yaml")
	_, err := config.Load(path)
	if got := fmt.Sprint(err); got != path+": open: no such file or directory" {
		t.Errorf("got %s", got)
	}
	t.Setenv("CONFIG_TEST_NAME", "prod")
	write(t, path, "\ufeff"+strings.Replace(minimal, "prod", "'${CONFIG_TEST_NAME}'", 1))
	c, err := config.Load(path)
	if err != nil || c.Clusters[0].Name != "prod" {
		t.Errorf("got %+v, %v", c, err)
	}
	write(t, path, strings.Repeat("# \n", 1<<19))
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
	if _, err := config.Load(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("got %v", err)
	}
}

// A configuration that was built in Go has no text to point at.
func TestCheckFilesWithoutSource(t *testing.T) {
	c := &config.Config{Clusters: []config.Cluster{{PasswordFile: "/does/not/exist"}}}
	if got := fmt.Sprint(c.CheckFiles()); !strings.Contains(got,
		"clusters[0].password-file: /does/not/exist: stat: no such file") {
		t.Errorf("got %s", got)
	}
}

// Aliases must not let a small file become a huge configuration.
func TestManyValues(t *testing.T) {
	text := "repositories: {main: {url: 'file:///x'}}\nclusters:\n- &c {name: a, endpoints: [" +
		strings.Repeat("'h:1', ", 10_000) + "], snapshot: {schedule: '@daily'}}\n" + strings.Repeat("- *c\n", 100_000)
	_, err := parse(t, text, nil)
	if err == nil || !strings.Contains(err.Error(), "the file holds too many values") {
		t.Errorf("got %.300v", err)
	}
}

// TestCheckFilesOf: what is wrong with the files of one cluster stands in one line.
func TestCheckFilesOf(t *testing.T) {
	dir := t.TempDir()
	goodFiles(t, dir)
	text := strings.Replace(inFolder(dir), "sse: aws:kms", "", 1)
	c, err := parse(t, strings.Replace(text, "sse-kms-key-id: alias/etcd-backups", "", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(dir, "client.key")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	err = c.CheckFilesOf(&c.Clusters[0])
	if err == nil || !strings.Contains(err.Error(), "clusters[0].tls.key-file: "+gone) ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
