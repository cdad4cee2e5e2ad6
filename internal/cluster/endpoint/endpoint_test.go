package endpoint_test

import (
	"errors"
	"testing"

	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
)

// TestCheck_More: what follows the port means nothing, and may be a secret.
func TestCheck_More(t *testing.T) {
	for _, ep := range []string{
		"http://a:1/?password=SECRET", "http://a:1?SECRET", "HTTPS://a:1#SECRET", "https://a:1/SECRET", "a:1/SECRET",
		"a:1?SECRET", "http://a:1//", "http://a:x?SECRET", "ftp://a:1/?SECRET", "http://a:1/?", "http://a:1/#",
	} {
		if err := endpoint.Check(ep, ep); !errors.Is(err, endpoint.ErrMore) {
			t.Errorf("%s: %v, want ErrMore", ep, err)
		}
	}
	for _, ep := range []string{
		"http://a:1/", "https://[::1]:1", "a:1", "a:1/", "unix:///run/etcd.sock", "unixs:///run/a?b#c", "unix://a:1",
	} {
		if err := endpoint.Check(ep, ep); err != nil {
			t.Errorf("%s: %v", ep, err)
		}
	}
}
