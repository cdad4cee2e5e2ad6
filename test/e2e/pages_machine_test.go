//go:build machine

package e2e_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_PageRotation runs the commands of docs/runbooks/rotation.md: keys of
// age, of a real S3 server with two users, and of a daemon that runs meanwhile.
func TestMachine_PageRotation(t *testing.T) {
	testserver.Tool(t, "age-keygen", "age")
	testserver.Tool(t, "openssl", "openssl")
	blocks := commands(t, "runbooks/rotation.md", 7)
	source := testserver.StartCluster(t, testserver.Options{})
	store := testserver.StartS3Users(t)
	oldUser, newUser := store.AddUser(t, "old"), store.AddUser(t, "new")
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["old","new"]},`+
		`"Action":["s3:*"],"Resource":["arn:aws:s3:::%[1]s","arn:aws:s3:::%[1]s/*"]}]}`, store.Bucket)
	if _, err := store.Do(t.Context(), http.MethodPut, "?policy", []byte(policy)); err != nil {
		t.Fatal(err)
	}

	r := newShell(t)
	for name, value := range map[string]string{
		"ETCDCTL_ENDPOINTS": source.Endpoints()[0], "BACKUPD_REPO": store.URL("etcd"), "BACKUPD_CLUSTER": "prod",
		"BACKUPD_S3_ENDPOINT": store.Endpoint, "BACKUPD_S3_REGION": store.Region,
		"BACKUPD_S3_CREDENTIALS_FILE": filepath.Join(r.dir, "credentials"),
		"NEW_KEY":                     newUser.AccessKey, "NEW_SECRET": newUser.SecretKey,
		"BACKUPD_SERVER": testserver.FreeURL(t),
	} {
		r.set(name, value)
	}
	write(t, filepath.Join(r.dir, "credentials"),
		"[default]\naws_access_key_id = "+oldUser.AccessKey+"\naws_secret_access_key = "+oldUser.SecretKey+"\n")
	r.sh(t, "age-keygen -o old.key && age-keygen -y old.key > recipients.txt; chmod 600 recipients.txt")
	// A key is written, so that the next snapshot is further than this one, of the same second.
	r.sh(t, "backupd init && backupd backup --recipients-file recipients.txt && etcdctl put key value")

	out := r.sh(t, blocks[0]+blocks[1]+blocks[2])
	if strings.Count(out, "  ok\n") != 4 { // two alone, and two of all
		t.Errorf("with both keys not every snapshot is whole:\n%s", out)
	}
	if out := r.sh(t, blocks[3]); strings.Count(out, "\n") < 2 {
		t.Errorf("not every snapshot that needs the old key is named:\n%s", out)
	}
	r.sh(t, blocks[4])
	if out := r.sh(t, "backupd list -w json"); strings.Count(out, `"encoding":"zstd+age"`) != 4 {
		t.Errorf("the new key of the bucket stored no snapshot:\n%s", out)
	}
	r.daemon(t, source.Endpoints()[0])
	contains(t, r.sh(t, blocks[5]), "prod")
	contains(t, r.sh(t, blocks[6]), "prod", "old token: 401")
}

// daemon runs one with a token for the time of the test.
func (r *runbook) daemon(t *testing.T, endpoint string) {
	t.Helper()
	r.sh(t, "openssl rand -hex 32 > old-token; cp old-token operate-tokens; chmod 600 *-token*; mkdir spool")
	write(t, filepath.Join(r.dir, "backupd.yaml"), `
repositories:
  main:
    url: ${BACKUPD_REPO}
    recipients-files: ["`+r.dir+`/recipients.txt"]
    s3:
      endpoint: ${BACKUPD_S3_ENDPOINT}
      region: ${BACKUPD_S3_REGION}
      credentials-file: ${BACKUPD_S3_CREDENTIALS_FILE}
clusters:
  - name: prod
    endpoints: ["`+endpoint+`"]
    snapshot: {schedule: "@yearly"}
daemon:
  server:
    listen: `+strings.TrimPrefix(r.value("BACKUPD_SERVER"), "http://")+`
    operate-tokens-file: `+r.dir+`/operate-tokens
  spool: {folder: "`+r.dir+`/spool", min-free: 0B}
`)
	cmd := exec.Command(binary, "run", "--config", filepath.Join(r.dir, "backupd.yaml"))
	var log strings.Builder
	cmd.Env, cmd.Dir, cmd.Stderr = r.env, r.dir, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	waitFor(t, "the daemon answers", func() bool {
		try := exec.Command(binary, "status", "--token-file", filepath.Join(r.dir, "old-token"))
		try.Env = r.env
		return try.Run() == nil
	})
}
