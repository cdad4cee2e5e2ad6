package testserver_test

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestCluster_EnableAuth(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{TLS: true})
	c.AddUser(t, "writer", "secret", "writers")
	c.AddUser(t, c.CN, "", "writers")
	c.EnableAuth(t, "root-secret")

	if _, err := c.Client(t).HashKV(t.Context(), c.Members[0].ClientURL, 0); err != nil {
		t.Errorf("hash as root: %v", err)
	}
	// The user of the certificate may write, and nothing else.
	for _, user := range []string{"writer", ""} {
		client := c.ClientAs(t, user, "secret")
		if _, err := client.Put(t.Context(), "key", "value"); err != nil {
			t.Errorf("put as %q: %v", user, err)
		}
		_, err := client.HashKV(t.Context(), c.Members[0].ClientURL, 0)
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("hash as %q: got %v, want permission denied", user, err)
		}
	}
	c.Members[0].Kill()
	c.Members[0].Restart(t)
	c.WaitReady(t)
}
