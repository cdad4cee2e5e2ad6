package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// commands returns the blocks of commands of a page in docs, and fails the test
// if there are not as many as it knows: a new one wants to be run, too.
func commands(t *testing.T, page string, want int) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range block.FindAllStringSubmatch(string(raw), -1) {
		out = append(out, m[1])
	}
	if len(out) != want {
		t.Fatalf("%d blocks of commands in docs/%s, this test knows %d", len(out), page, want)
	}
	return out
}

// fenced returns the first block of a page in another language.
func fenced(t *testing.T, page, language string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$").FindStringSubmatch(string(raw))
	if m == nil {
		t.Fatalf("no block of %s in docs/%s", language, page)
	}
	return m[1]
}

// contains fails the test if some words are not in what commands print.
func contains(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in what the page's commands say:\n%s", w, out)
		}
	}
}

// TestPages runs the commands of pages in docs, each in a shell of its own, on one
// real etcd.
func TestPages(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Seed: 3})
	endpoint := source.Endpoints()[0]
	t.Run("from cron", func(t *testing.T) { pageFromCron(t, endpoint) })
	t.Run("upgrade", func(t *testing.T) { pageUpgrade(t, endpoint) })
	t.Run("S3", func(t *testing.T) { pageS3(t, endpoint) })
	t.Run("questions", func(t *testing.T) { pageQuestions(t, endpoint) })
}

// program puts a shell script into the path.
func (r *runbook) program(t *testing.T, name, script string) {
	t.Helper()
	path := filepath.Join(r.dir, "bin", name)
	write(t, path, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// pageFromCron runs a cron script of etcdctl and aws first.
func pageFromCron(t *testing.T, endpoint string) {
	const page = "deploy/from-cron.md"
	r := newShell(t)
	r.set("ETCDCTL_ENDPOINTS", endpoint)
	r.program(t, "aws", `cp "$3" `+r.dir+"/old/")
	r.sh(t, "mkdir -m 0700 old\n"+strings.ReplaceAll(fenced(t, page, "bash"), "/var/backups/", r.dir+"/"))
	r.sh(t, "mv old/etcd-*.db.gz etcd-20251120T101500Z.db.gz")

	script := strings.NewReplacer(
		"file:///mnt/backups/etcd", "file://"+r.repo, "http://10.0.0.1:2379", endpoint,
		"folder: /var/lib/backupd-spool", "folder: "+r.dir+"/spool\n    min-free: 0B",
		"/var/lib/backupd-spool", r.dir+"/spool",
		"http://127.0.0.1:23800", testserver.FreeURL(t), "http://127.0.0.1:23790", testserver.FreeURL(t),
	).Replace(strings.Join(commands(t, page, 5), ""))
	out := r.sh(t, "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+script)
	contains(t, out, "Snapshot saved at first.db", "backupd.yaml is good", "0 failures", "prod", "verified", " ok ",
		"Restored member drill", "is healthy",
		"as unconfirmed snapshot 20251120T101500Z")
	if _, err := os.Stat(filepath.Join(r.dir, "old.etcd", "member", "snap", "db")); err != nil {
		t.Errorf("the old file was not restored: %v", err)
	}

	// Cron sends what is printed as a mail.
	line, ok := strings.CutPrefix(fenced(t, page, "crontab"), "17 * * * * ")
	if out := r.sh(t, strings.ReplaceAll(line, "/etc/backupd/", r.dir+"/")); !ok || out != "" {
		t.Errorf("the line for cron, %q, prints:\n%s", line, out)
	}
}

// conf is a configuration for the shell, without its repositories.
func (r *runbook) conf(endpoint string) string {
	return "clusters:\n  - name: prod\n    endpoints: [" + endpoint + "]\n    snapshot: {schedule: \"@hourly\"}\n" +
		"daemon:\n  server: {listen: \"off\"}\n  spool: {folder: " + r.dir + ", min-free: 0B}\n"
}

// pageUpgrade takes a binary for both versions: there is no older one yet.
func pageUpgrade(t *testing.T, endpoint string) {
	r := newShell(t)
	r.program(t, "systemctl", `echo "systemctl $*"`)
	write(t, filepath.Join(r.dir, "backupd.yaml"), "repositories: {main: {url: \"file://"+r.repo+"\"}}\n"+r.conf(endpoint))
	r.sh(t, "backupd init --repo file://"+r.repo+" && backupd backup --once --config backupd.yaml")
	r.sh(t, "cp bin/backupd backupd-new")
	out := r.sh(t, strings.NewReplacer("file:///mnt/backups/etcd", "file://"+r.repo, "/usr/bin/", r.dir+"/bin/").
		Replace(strings.Join(commands(t, "deploy/upgrade.md", 2), "")))
	contains(t, out, "backupd.yaml is good", "0 failures", " ok ", "systemctl restart backupd", "nothing to do")

	// What the page says of objects in a format that this program does not know.
	r.set("BACKUPD_REPO", "file://"+r.repo)
	r.set("BACKUPD_CLUSTER", "prod")
	found, err := filepath.Glob(filepath.Join(r.repo, "prod", "snapshots", "*.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("manifests %q, %v", found, err)
	}
	ofNextFormat(t, found[0])
	contains(t, r.sh(t, "backupd list"), "verified")
	const newer = "use a newer backupd"
	for _, command := range []string{"show latest", "verify latest", "restore latest --name m1 --data-dir x"} {
		contains(t, r.sh(t, "backupd "+command+" || echo code $?"), newer, "code 1")
	}
	contains(t, r.sh(t, "backupd backup --endpoints "+endpoint+" || echo code $?"), "accept", "code 4")
	ofNextFormat(t, filepath.Join(r.repo, "backupd.json"))
	for _, command := range []string{"list", "init", "backup --endpoints " + endpoint, "prune --keep-last 1"} {
		contains(t, r.sh(t, "backupd "+command+" || echo code $?"), newer, "backupd/repository/v2", "code 1")
	}
}

// ofNextFormat makes an object of a repository one that a later version wrote, with a
// seal that fits.
func ofNextFormat(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(raw), `/v1"`, `/v2"`, 1)
	before, after, ok := strings.Cut(text, `"seal": "`)
	if !ok {
		t.Fatalf("%s has no seal", path)
	}
	zeros := before + `"seal": "` + strings.Repeat("0", 64) + after[64:]
	sum := sha256.Sum256([]byte(zeros))
	write(t, path, before+`"seal": "`+hex.EncodeToString(sum[:])+after[64:])
}

// pageS3 has backupd check each block of settings, and runs the commands on a real
// server of the protocol.
func pageS3(t *testing.T, endpoint string) {
	raw, err := os.ReadFile("../../docs/deploy/s3.md")
	if err != nil {
		t.Fatal(err)
	}
	store, r := testserver.StartS3(t), newShell(t)
	write(t, filepath.Join(r.dir, "s3-credentials"),
		"[default]\naws_access_key_id = "+store.AccessKey+"\naws_secret_access_key = "+store.SecretKey+"\n")
	r.sh(t, "cp "+testserver.NewAuthority(t).File+" minio-ca.crt")
	settings := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(raw), -1)
	if len(settings) != 5 {
		t.Fatalf("settings of %d services, this test knows 5", len(settings))
	}
	for _, s := range settings {
		write(t, filepath.Join(r.dir, "backupd.yaml"),
			strings.ReplaceAll(s[1], "/etc/backupd/", r.dir+"/")+r.conf(endpoint))
		contains(t, r.sh(t, "backupd config check backupd.yaml"), "backupd.yaml is good")
	}

	write(t, filepath.Join(r.dir, "backupd.yaml"), "repositories:\n  main:\n    url: "+store.URL("etcd")+
		"\n    s3: {endpoint: \""+store.Endpoint+"\", region: "+store.Region+", credentials-file: "+
		r.dir+"/s3-credentials}\n"+r.conf(endpoint))
	out := r.sh(t, strings.NewReplacer("s3://backups/etcd", store.URL("etcd"), "https://s3.example.net", store.Endpoint,
		"/etc/backupd/", r.dir+"/").Replace(strings.Join(commands(t, "deploy/s3.md", 1), "")))
	contains(t, out, "Made repository", "an existing object is not replaced", "0 failures")
}

// pageQuestions also runs what the page on managed control planes says of a file.
func pageQuestions(t *testing.T, endpoint string) {
	r := newShell(t)
	for name, value := range map[string]string{
		"ETCDCTL_ENDPOINTS": endpoint, "BACKUPD_REPO": "file://" + r.repo, "BACKUPD_CLUSTER": "prod",
		"BACKUPD_SERVER": testserver.FreeURL(t), "MEMBER": "m1",
	} {
		r.set(name, value)
	}
	r.program(t, "jq", `grep -q '"kind":"backupd/snapshot/v1"' && echo null`)
	r.sh(t, "backupd init && backupd backup")
	out := r.sh(t, strings.Join(append(commands(t, "faq.md", 7), commands(t, "deploy/managed.md", 1)...), ""))
	contains(t, out, "data directory  /var/tmp/rehearsal (m1)", "etcd 3.7",
		"null", "present", " ok ", "exit code 1", "Snapshot saved at for-k3s.db")
}
