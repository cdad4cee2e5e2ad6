package snapshot_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// putV2 writes a key by the v2 API, and deleteV2 deletes one.
func putV2(t *testing.T, endpoint, key string) {
	t.Helper()
	changeV2(t, http.MethodPut, endpoint+"/v2/keys"+key, url.Values{"value": {"v"}}.Encode(), http.StatusCreated)
}

func deleteV2(t *testing.T, endpoint, key string) {
	t.Helper()
	changeV2(t, http.MethodDelete, endpoint+"/v2/keys"+key+"?recursive=true", "", http.StatusOK)
}

func changeV2(t *testing.T, method, url, form string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
}

// TestTaker_V2Keys: keys of the v2 API are in no snapshot. The log, the manifest and the
// plan of a restore say so, and so does a snapshot to a file.
func TestTaker_V2Keys(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Version: "3.5", Args: []string{"--enable-v2=true"}})
	taker := newTaker(t, connect(t, real.Endpoints()...), mem.New())
	var log bytes.Buffer
	taker.Log = slog.New(slog.NewTextHandler(&log, nil))
	saver := snapshot.Saver{Source: taker.Source, Log: taker.Log}
	for _, key := range []string{"", "/old", "/_etcd/registry/token/_config/size"} {
		has := key != ""
		if has {
			putV2(t, real.Endpoints()[0], key)
		}
		log.Reset()
		m := take(t, taker)
		if warned := strings.Contains(log.String(), "v2 API"); m.V2Keys != has || warned != has {
			t.Errorf("with v2 keys %v: the manifest says %v, the log: %s", has, m.V2Keys, log.String())
		}
		warnings := strings.Join(snapshot.NewSource(nil, m, nil).About().Warnings, "\n")
		if strings.Contains(warnings, "v2 API") != has {
			t.Errorf("with v2 keys %v: a restore says %q", has, warnings)
		}
		log.Reset()
		if _, err := saver.Save(t.Context(), filepath.Join(t.TempDir(), "s.db")); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log.String(), "v2 API") != has {
			t.Errorf("with v2 keys %v: snapshot save logs %s", has, log.String())
		}
		if key == "/old" { // the next stands alone, and the root does not list it
			deleteV2(t, real.Endpoints()[0], key)
		}
	}
}
