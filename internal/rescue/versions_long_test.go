//go:build long

package rescue_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongRun_Versions rescues clusters of each etcd, with a learner that was promoted after the
// leader had sent it its database, and with keys of the v2 API where there is one.
func TestLongRun_Versions(t *testing.T) {
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			dead := crash(t, version, func(c *testserver.Cluster) {
				c.AddMember(t)
				if version == "3.5" {
					putV2(t, c.Members[0].ClientURL+"/v2/keys/flannel", "network")
				}
			})
			asItself(t, dead, version)
			if version != "3.5" {
				return
			}
			out, err := run(t, rescue.Take, rescue.Folder{DataDir: dead.cluster.Members[0].DataDir})
			must(t, err)
			if !slices.ContainsFunc(out.Notes, func(n string) bool { return strings.Contains(n, " requests of the v2 API") }) {
				t.Errorf("nothing is said of keys of the v2 API: %q", out.Notes)
			}
		})
	}
}

// putV2 stores a key by the v2 API.
func putV2(t *testing.T, address, value string) {
	t.Helper()
	body := strings.NewReader(url.Values{"value": {value}}.Encode())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address, body)
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s: %s", address, resp.Status)
	}
}
