package companion_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const secretDir = "/kubernetes.io/secrets/prod/etcd.keys"

// asked are Secrets of a server that has one of them.
func asked(t *testing.T) (*testserver.FakeKube, companion.Files) {
	t.Helper()
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/etcd.keys", map[string]string{"tls.key": "parsley", "empty": ""})
	return kube, companion.Files{Secrets: []string{"prod/gone", "prod/etcd.keys"}, Kubeconfig: kube.Kubeconfig, Host: "h1"}
}

// TestSecrets: a Secret is files that come back as they were, with nothing that a server adds, and
// one that is not there costs nothing else. The manifest holds none of the content.
func TestSecrets(t *testing.T) {
	kube, files := asked(t)
	dir := tree(t)
	files.Paths = []string{dir + "/etcd.conf"}
	s := mem.New()
	m := stored(t, s, files.Collect(t.Context()), codec.Options{})
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("parsley")) || bytes.Contains(raw, []byte(testserver.KubeToken)) {
		t.Errorf("the manifest repeats it: %s", raw)
	}
	c := m.Companions
	var got []string
	for _, f := range c.Files {
		if backup.Reserved(f.Path) {
			got = append(got, fmt.Sprint(f.Path, " ", f.Mode, " ", f.Bytes))
		}
	}
	want := []string{secretDir + "/data/empty 0600 0", secretDir + "/data/tls.key 0600 7", secretDir + "/secret.json 0600"}
	if len(got) != 3 || !slices.Equal(got[:2], want[:2]) || !strings.HasPrefix(got[2], want[2]) ||
		!slices.Equal(c.Secrets, []string{"prod/etcd.keys", "prod/gone"}) || len(c.Files) != 4 {
		t.Errorf("%q, %q", got, c.Secrets)
	}
	if len(c.Missing) != 1 || c.Missing[0].Path != "/kubernetes.io/secrets/prod/gone" ||
		c.Missing[0].Reason != "not found: the API server at "+kube.URL+" has no such Secret" {
		t.Errorf("missing: %+v", c.Missing)
	}
	if err := companion.Incomplete(m); err == nil ||
		!strings.Contains(err.Error(), "but without the Secret prod/gone: not found") {
		t.Error(err)
	}

	content, err := companion.Read(t.Context(), data(s), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := content.Extract(out); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(out + secretDir + "/data/tls.key"); string(raw) != "parsley" {
		t.Errorf("%q, %v", raw, err)
	}
	if info, err := os.Stat(out + secretDir + "/secret.json"); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	raw, err = os.ReadFile(out + secretDir + "/secret.json")
	var object struct {
		APIVersion, Kind, Type string
		Metadata               map[string]any
		Data                   map[string][]byte
	}
	if err != nil || json.Unmarshal(raw, &object) != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if object.Kind != "Secret" || object.APIVersion != "v1" || object.Type != "Opaque" || len(object.Metadata) != 4 ||
		fmt.Sprint(object.Metadata["annotations"]) != "map[note:kept]" || string(object.Data["tls.key"]) != "parsley" {
		t.Errorf("%s", raw)
	}
	if _, differ := content.Here(); len(differ) > 0 {
		t.Errorf("they differ from this host: %q", differ)
	}
	if absent, _ := content.Here(); len(absent) > 0 {
		t.Errorf("Secrets are not on a host, and it says so: %q", absent)
	}
}

// TestSecrets_Changed: a Secret that has changed, has come or has gone is seen, from whichever host;
// what the server alone counts is not a change.
func TestSecrets_Changed(t *testing.T) {
	kube, f := asked(t)
	m := &backup.Manifest{}
	if !f.Changed(t.Context(), m) {
		t.Error("the Secrets are not in the snapshot")
	}
	m.Companions = f.Collect(t.Context()).About
	same := func(what string, f companion.Files, want bool) {
		t.Helper()
		for _, host := range []string{"h1", "h2"} {
			f.Host = host
			if got := f.Changed(t.Context(), m); got != want {
				t.Errorf("%s, on %s: changed %v, want %v", what, host, got, want)
			}
		}
	}
	same("the same", f, false)
	kube.Set("prod/etcd.keys", map[string]string{"tls.key": "parsley", "empty": ""}) // another resourceVersion
	same("written again", f, false)
	kube.Set("prod/etcd.keys", map[string]string{"tls.key": "sage", "empty": ""})
	same("other data", f, true)
	kube.Set("prod/etcd.keys", map[string]string{"tls.key": "parsley", "empty": ""})
	kube.Set("prod/gone", map[string]string{})
	same("one has come", f, true)
	kube.Set("prod/gone", nil)
	same("it has gone again", f, false)
	same("none is asked for", companion.Files{}, true)
	less := f
	less.Secrets = f.Secrets[1:]
	same("fewer are asked for", less, true)
	kube.Answer(func(w http.ResponseWriter, _ *http.Request) { testserver.KubeStatus(w, 403, "Forbidden", "", "") })
	same("it is forbidden now", f, true)
	m.Companions = f.Collect(t.Context()).About
	same("it is still forbidden", f, false)
	kube.Answer(nil)
	same("it is allowed again", f, true)

	// Files of another host are not compared, and the Secrets beside them are.
	dir := tree(t)
	f.Paths = []string{dir + "/etcd.conf"}
	same("files are asked for as well", f, true)
	f.Host = "h1"
	m.Companions = f.Collect(t.Context()).About
	same("files and Secrets", f, false)
	put(t, dir+"/etcd.conf", "NEW", 0o640)
	f.Host = "h2"
	if f.Changed(t.Context(), m) {
		t.Error("a file of another host is compared with that of this one")
	}
	kube.Set("prod/etcd.keys", map[string]string{"tls.key": "sage"})
	same("a Secret beside files", f, true)
}

// TestSecrets_Hang: an API server that does not answer is waited for once, however many Secrets there
// are: when the time is over no other one is asked for. The files are stored.
func TestSecrets_Hang(t *testing.T) {
	kube, f := asked(t)
	defer companion.SetPatience(200 * time.Millisecond)()
	release := make(chan struct{})
	defer close(release)
	kube.Answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	for n := range 40 {
		f.Secrets = append(f.Secrets, fmt.Sprint("prod/s", n))
	}
	f.Paths = []string{tree(t) + "/etcd.conf"}
	kube.Asked()
	c := f.Collect(t.Context()).About
	if n := len(kube.Asked()); n == 0 || n > 4 {
		t.Errorf("%d Secrets were asked for, want those that are asked for at once", n)
	}
	if len(c.Files) != 1 || len(c.Missing) != 42 {
		t.Errorf("%d files, %d missing", len(c.Files), len(c.Missing))
	}
	for _, m := range c.Missing {
		if m.Reason != "unreachable: the API server at "+kube.URL+" gave no answer in time" {
			t.Fatalf("%+v", m)
		}
	}
}

// TestSecrets_Large: a Secret is stored as a whole or not at all, also where files want the room.
func TestSecrets_Large(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	f := companion.Files{Kubeconfig: kube.Kubeconfig, Paths: []string{tree(t) + "/etcd.conf"}}
	for n := range 30 { // each is stored twice, once in base64
		name := fmt.Sprintf("prod/s%02d", n)
		kube.Set(name, map[string]string{"k": strings.Repeat("x", 1<<20)})
		f.Secrets = append(f.Secrets, name)
	}
	s := mem.New()
	m := stored(t, s, f.Collect(t.Context()), codec.Options{})
	if _, err := companion.Read(t.Context(), data(s), m, nil); err != nil {
		t.Fatal(err)
	}
	files := map[string]int{}
	for _, f := range m.Companions.Files {
		name, _ := backup.SecretOf(f.Path)
		files[name]++
	}
	missing := 0
	for _, of := range m.Companions.Missing {
		name, _ := backup.SecretOf(of.Path)
		if !strings.Contains(of.Reason, "more than 64 MiB") || files[name] != 0 {
			t.Errorf("%s: %s, with %d files", name, of.Reason, files[name])
		}
		missing++
	}
	for _, name := range f.Secrets {
		if n := files[name]; n != 0 && n != 2 {
			t.Errorf("%s has %d files", name, n)
		}
	}
	if missing == 0 || missing > 5 || files[""] != 1 {
		t.Errorf("%d are missing, %d files of the host", missing, files[""])
	}
}

// TestSecrets_Many: as large, by the number of files.
func TestSecrets_Many(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	f := companion.Files{Kubeconfig: kube.Kubeconfig}
	data := map[string]string{}
	for n := range 400 {
		data[fmt.Sprint("k", n)] = "v"
	}
	for _, name := range []string{"prod/a", "prod/b", "prod/c"} {
		kube.Set(name, data)
		f.Secrets = append(f.Secrets, name)
	}
	c := f.Collect(t.Context()).About
	if len(c.Files) != 2*401 || len(c.Missing) != 1 || c.Missing[0].Path != backup.SecretPath("prod/c") ||
		!strings.Contains(c.Missing[0].Reason, "more files") {
		t.Errorf("%d files, missing %+v", len(c.Files), c.Missing)
	}
}

// TestReserved: no file of a host takes the place of a Secret, by whatever way it is named.
func TestReserved(t *testing.T) {
	for path, want := range map[string]bool{
		"/kubernetes.io": true, "/kubernetes.io/secrets/prod/keys": true, "/kubernetes.iox": false,
		"/etc/kubernetes.io": false,
	} {
		err := companion.CheckPaths([]string{path})
		if (err != nil) != want || want && !strings.Contains(err.Error(), "reserved for Secrets") {
			t.Errorf("%s: %v, want an error: %v", path, err, want)
		}
	}
	trace := func([]string) (companion.Traced, error) {
		return companion.Traced{Read: []string{"/kubernetes.io/secrets/x/y"}}, nil
	}
	c := companion.Files{From: []string{"/none"}, Trace: trace}.Collect(t.Context()).About
	if i := slices.IndexFunc(c.Missing, func(m backup.MissingCompanion) bool {
		return strings.Contains(m.Reason, "reserved for Secrets")
	}); i < 0 {
		t.Errorf("missing: %+v", c.Missing)
	}
}

// TestSecrets_NoFiles: a Secret is no file of the host, neither by its path nor by a link that leads to it.
func TestSecrets_NoFiles(t *testing.T) {
	_, files := asked(t)
	dir := t.TempDir()
	if err := os.Symlink(secretDir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	files.Paths = []string{dir}
	s := mem.New()
	content, err := companion.Read(t.Context(), data(s), stored(t, s, files.Collect(t.Context()), codec.Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{secretDir, dir + "/link"} {
		if raw, err := content.ReadFile(at + "/secret.json"); !errors.As(err, new(*companion.UnknownError)) {
			t.Errorf("%s: %q, %v", at, raw, err)
		}
		if in, err := content.ReadDir(at); !errors.As(err, new(*companion.UnknownError)) {
			t.Errorf("%s: %v, %v", at, in, err)
		}
	}
	if in, err := content.ReadDir("/"); err != nil || slices.ContainsFunc(in, func(e fs.DirEntry) bool {
		return e.Name() == "kubernetes.io"
	}) {
		t.Errorf("%v, %v", in, err)
	}
}
