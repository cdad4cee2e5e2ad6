package testserver_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestStartCluster(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			c := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
			client := c.Client(t)
			if _, err := client.Put(t.Context(), "key", "value"); err != nil {
				t.Fatal(err)
			}
			members, err := client.MemberList(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(members.Members) != 3 {
				t.Errorf("got %d members, want 3", len(members.Members))
			}
			for _, url := range c.Endpoints() {
				status, err := client.Status(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				if got := status.Version[:3]; got != version {
					t.Errorf("got server %s, want %s", got, version)
				}
			}
		})
	}
}

func TestStartCluster_TLS(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3, TLS: true, Name: "tls-"})
	if _, err := c.Client(t).Put(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
}
