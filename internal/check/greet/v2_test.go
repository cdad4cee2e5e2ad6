package greet_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/etcd-backupd/backupd/internal/check/greet"
)

// TestHasV2Keys: the answers are those of etcd 3.5.
func TestHasV2Keys(t *testing.T) {
	const id = "X-Etcd-Cluster-Id"
	for _, c := range []struct {
		name   string
		status int
		header string
		body   string
		hidden string // of /_etcd, if it is there
		want   bool
	}{
		{"Keys", 200, id, `{"action":"get","node":{"dir":true,"nodes":[{"key":"/old","value":"v"}]}}`, "", true},
		{"NoKeys", 200, id, `{"action":"get","node":{"dir":true}}`, "", false},
		{
			"Discovery", 200, id, `{"action":"get","node":{"dir":true}}`,
			`{"action":"get","node":{"key":"/_etcd","dir":true,"nodes":[{"key":"/_etcd/registry","dir":true}]}}`, true,
		},
		{
			"NoDiscovery", 200, id, `{"action":"get","node":{"dir":true}}`,
			`{"action":"get","node":{"key":"/_etcd","dir":true}}`, false,
		},
		{"Login", 401, id, `{"message":"Insufficient credentials"}`, "", true},
		{"LoginOfAnother", 401, "X-Proxy", "", "", false},
		{"SwitchedOff", 404, "", "404 page not found", "", false},
		{"Another", 200, "", "<html>", "", false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.header != "" {
				w.Header().Set(c.header, "1")
			}
			status, body := c.status, c.body
			if r.URL.Path == "/v2/keys/_etcd" && status == http.StatusOK {
				if body = c.hidden; body == "" {
					status, body = 404, `{"errorCode":100,"message":"Key not found","cause":"/_etcd","index":3}`
				}
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		if got := greet.HasV2Keys(t.Context(), server.URL, nil); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		server.Close()
		if greet.HasV2Keys(t.Context(), server.URL, nil) {
			t.Errorf("%s: without a server there are keys", c.name)
		}
	}
}
