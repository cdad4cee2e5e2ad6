package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// StartS3Users is [StartS3] on a server of its own that can have users besides
// the owner of the bucket, see [S3.AddUser].
func StartS3Users(t testing.TB) *S3 {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "users")
	must(t, "make a directory for users", os.Mkdir(dir, 0o700))
	g := startGateway(t, "--iam-dir", dir)
	t.Cleanup(g.stop)
	g.awaitHealth(t)
	return g.newBucket(t)
}

// AddUser creates a user and returns the bucket as that user sees it. The user may
// do only as much as a policy of the bucket allows.
func (s *S3) AddUser(t testing.TB, name string) *S3 {
	t.Helper()
	user := *s
	user.AccessKey, user.SecretKey = name, "secret-of-"+name
	cmd := exec.CommandContext(t.Context(), VersityGW(t), "admin",
		"--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--endpoint-url", s.Endpoint,
		"create-user", "--access", user.AccessKey, "--secret", user.SecretKey, "--role", "user")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("testserver: add user %s: %v\n%s", name, err, out)
	}
	return &user
}
