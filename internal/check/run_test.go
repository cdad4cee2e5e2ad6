package check_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// bucket is a configuration with one cluster, whose repository is in a bucket.
func bucket(t *testing.T, s3 *testserver.S3, endpoints []string, repository, cluster string) *config.Config {
	t.Helper()
	credentials := writeFile(t, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
		s3.AccessKey, s3.SecretKey))
	return load(t, fmt.Sprintf(`
repositories:
  main:
    url: %s
    s3: {endpoint: '%s', region: %s, credentials-file: %s}
%s
clusters:
- name: prod
  endpoints: [%s]
  snapshot: {schedule: '@hourly', request-timeout: 20s}
  retention: {keep-hourly: 24}
%s
daemon:
  server: {listen: 127.0.0.1:0}
  spool: {folder: %%, min-free: 0B}
`, s3.URL("prefix"), s3.Endpoint, s3.Region, credentials, "  "+indent(repository),
		strings.Join(endpoints, ", "), indent(cluster)))
}

// take stores a snapshot as the daemon would.
func take(t *testing.T, conf *config.Config) string {
	t.Helper()
	ctx := t.Context()
	repo := conf.Repositories[conf.Clusters[0].Repository]
	store, err := repo.Open(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := conf.Clusters[0].ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	source, err := cluster.New(client)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	options, err := repo.Codec()
	if err != nil {
		t.Fatal(err)
	}
	survey, err := source.Survey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	to, err := repository.Create(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	taker := snapshot.Taker{
		Source: source, Codec: options, Spool: spool.Folder{Dir: t.TempDir(), MinFree: disk.ReserveOf(0)}, Tool: "test",
	}
	m, err := taker.Take(ctx, survey, snapshot.Target{Cluster: to.Cluster(conf.Clusters[0].Name)})
	if err != nil {
		t.Fatal(err)
	}
	return string(m.ID)
}

// identity makes an age key: the public part, and a file with the secret one.
func identity(t *testing.T) (recipient, file string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String(), writeFile(t, id.String()+"\n")
}

// files lists everything below a folder, but the gateway's own.
func files(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == ".sgwtmp" {
			return fs.SkipDir
		}
		if path != root {
			out = append(out, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func isBeside(f backup.Finding) bool {
	return strings.Contains(f.Text, "shares a file system with an etcd")
}

// TestRun_Everything is a configuration in which all is right, against real
// servers: nothing is found, nothing is left, nothing secret is shown.
func TestRun_Everything(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3, TLS: true})
	c.EnableAuth(t, "the password of root")
	s3 := testserver.StartS3(t)
	recipient, idFile := identity(t)
	password := writeFile(t, "the password of root")
	conf := bucket(t, s3, c.Endpoints(), "recipients: ["+recipient+"]\n",
		tlsOf(c.CAFile, c.CertFile, c.KeyFile)+"user: root\npassword-file: "+password+
			"\nverify: {identity-files: ["+idFile+"]}\n")
	hook := &receiver{}
	srv := httptest.NewServer(hook)
	defer srv.Close()
	conf.Daemon.Notifications = []config.Notification{{
		Webhook: &config.Webhook{URL: config.Secret(srv.URL + "/secret-path")}, On: []string{"failure", "recovery"},
	}}
	take(t, conf)
	s3Before := files(t, s3.Dir())

	got := check.Run(t.Context(), conf, check.Options{Notify: true})
	for _, section := range []string{
		check.SectionConfiguration, check.SectionCluster, check.SectionSpool,
		check.SectionRepository, check.SectionServer, check.SectionNotifications,
	} {
		wantNone(t, slices.DeleteFunc(slices.Clone(got), isBeside), section, ok)
	}
	want(t, got, check.SectionSpool, warning, "it shares a file system with an etcd") // the one of this test
	for section, text := range map[string]string{
		check.SectionConfiguration: "can be read and are what they should be",
		check.SectionCluster:       "a snapshot may be taken",
		check.SectionSpool:         "can be written",
		check.SectionServer:        "the server can start",
		check.SectionNotifications: "failure was delivered",
	} {
		want(t, got, section, ok, text)
	}
	for _, text := range []string{
		"it is repository", "encrypted (recipients: 1)", "create if absent", "read ranges",
		"delete", "(1 verified, 0 unconfirmed, 0 suspect, 0 pinned)", "can be decrypted", "decrypt data for",
	} {
		want(t, got, check.SectionRepository, ok, text)
	}
	if n := len(hook.bodies); n != 2 || !strings.Contains(hook.bodies[0], "this is a test") {
		t.Errorf("%d events arrived: %q", n, hook.bodies)
	}

	if after := files(t, s3.Dir()); strings.Join(after, "\n") != strings.Join(s3Before, "\n") {
		t.Errorf("in the bucket are\n%s\nand were\n%s", strings.Join(after, "\n"), strings.Join(s3Before, "\n"))
	}
	if left := files(t, conf.Daemon.Spool.Folder); len(left) > 0 {
		t.Errorf("left in the spool: %q", left)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"the password of root", s3.SecretKey, "secret-path", "AGE-SECRET-KEY"} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%q is shown: %s", secret, raw)
		}
	}
}

// receiver keeps what it is sent.
type receiver struct {
	mu     sync.Mutex
	status int
	bodies []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var body strings.Builder
	_ = req.Write(&body)
	r.bodies = append(r.bodies, body.String())
	if r.status != 0 {
		w.WriteHeader(r.status)
	}
}

func TestRepository_Bucket(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	s3 := testserver.StartS3(t)

	got := run(t, bucket(t, s3, c.Endpoints(), "", ""))
	want(t, got, check.SectionRepository, failure, "backupd init --repo "+s3.URL("prefix"))
	want(t, got, check.SectionRepository, ok, "create if absent: ") // what else is missing is shown at once
	const may = "create-if-missing: true\n"
	got = run(t, bucket(t, s3, c.Endpoints(), may, ""))
	wantNone(t, got, check.SectionRepository, warning)
	want(t, got, check.SectionRepository, warning, "new snapshots are not encrypted")
	want(t, got, check.SectionRepository, warning, "there is no verified snapshot")
	want(t, got, check.SectionRepository, ok, "there is no repository yet")
	if left := files(t, s3.Dir()); len(left) > 0 {
		t.Errorf("left in the bucket: %q", left)
	}

	if _, err := s3.Do(t.Context(), http.MethodPut, "prefix/holiday.jpg", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, bucket(t, s3, c.Endpoints(), may, "")), check.SectionRepository, warning,
		"holds objects and is no repository")

	if _, err := s3.Do(t.Context(), http.MethodPut, "prefix/backupd.json",
		[]byte(`{"format": "backupd/repository/v9"}`)); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, bucket(t, s3, c.Endpoints(), "", "")), check.SectionRepository, failure, "use a newer backupd")

	missing := *s3
	missing.Bucket = "no-such-bucket"
	want(t, run(t, bucket(t, &missing, c.Endpoints(), "", "")), check.SectionRepository, failure,
		"bucket no-such-bucket does not exist")

	denied := *s3
	denied.SecretKey = "another-secret-key"
	got = run(t, bucket(t, &denied, c.Endpoints(), "", ""))
	want(t, got, check.SectionRepository, failure, "the access key or the secret key is wrong")
}

// TestRepository_MayNotDelete has credentials that may neither delete nor list
// the buckets of the account.
func TestRepository_MayNotDelete(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	s3 := testserver.StartS3(t)
	service, err := url.Parse(s3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(service)
		r.Out.Host = r.In.Host // it is signed
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete || r.URL.Path == "/" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	s3.Endpoint = front.URL

	for range 2 { // what the first left must not disturb the second
		got := run(t, bucket(t, s3, c.Endpoints(), "create-if-missing: true\n", ""))
		wantNone(t, got, check.SectionRepository, warning)
		want(t, got, check.SectionRepository, warning,
			"the credentials may not delete, so these objects stay: .backupd-probe-")
		want(t, got, check.SectionRepository, ok, "there is no repository yet")
	}
	take(t, bucket(t, s3, c.Endpoints(), "", ""))
	want(t, run(t, bucket(t, s3, c.Endpoints(), "", "")), check.SectionRepository, ok,
		"(1 verified, 0 unconfirmed, 0 suspect, 0 pinned)")
}

func TestRepository_Identities(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	s3 := testserver.StartS3(t)
	recipient, idFile := identity(t)
	other, otherFile := identity(t)
	take(t, bucket(t, s3, c.Endpoints(), "recipients: ["+recipient+"]\n", ""))

	keys := func(recipient, file string) []backup.Finding {
		more := ""
		if file != "" {
			more = "verify: {identity-files: [" + file + "]}\n"
		}
		return run(t, bucket(t, s3, c.Endpoints(), "recipients: ["+recipient+"]\n", more))
	}
	got := keys(recipient, idFile)
	wantNone(t, got, check.SectionRepository, ok)
	want(t, got, check.SectionRepository, ok, "can be decrypted")
	got = keys(recipient, "")
	wantNone(t, got, check.SectionRepository, ok)
	want(t, got, check.SectionRepository, ok, "backupd verify --identity FILE")
	got = keys(recipient, otherFile)
	want(t, got, check.SectionRepository, failure, "cannot be decrypted")
	want(t, got, check.SectionRepository, failure, "do not decrypt data for")
	// The keys were changed: the old snapshot is good, and the next will not be.
	got = keys(other, idFile)
	want(t, got, check.SectionRepository, ok, "can be decrypted")
	want(t, got, check.SectionRepository, failure, "do not decrypt data for")
	got = run(t, bucket(t, s3, c.Endpoints(), "", "")) // the recipients were lost
	want(t, got, check.SectionRepository, warning, "new snapshots are not encrypted, although snapshot 2")
	want(t, got, check.SectionRepository, warning, "give the repository its recipients again (backupd show --")
}

func TestRepository_Folder(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	conf := forCluster(t, c.Endpoints(), "")
	root := strings.TrimPrefix(conf.Repositories["main"].URL, "file://")
	for _, may := range []bool{false, true} { // a folder is never made
		repo := conf.Repositories["main"]
		repo.CreateIfMissing = may
		conf.Repositories["main"] = repo
		got := run(t, conf)
		want(t, got, check.SectionRepository, warning, "on a disk of this host")
		want(t, got, check.SectionRepository, warning, root+" shares a file system with an etcd (")
		want(t, got, check.SectionRepository, failure, "folder "+root+" does not exist")
		want(t, got, check.SectionRepository, failure, "not mounted? If there never was one, make it: backupd init")
		if _, err := os.Stat(root); !os.IsNotExist(err) {
			t.Errorf("the check made %s: %v, %q", root, err, files(t, root))
		}
	}

	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	first := take(t, conf)
	id := take(t, conf)
	if err := os.Remove(filepath.Join(root, "prod/data", dataFile(t, root, first))); err != nil {
		t.Fatal(err)
	}
	before := files(t, root)
	got := run(t, conf)
	want(t, got, check.SectionRepository, failure, "snapshot "+first+" is damaged")
	want(t, got, check.SectionRepository, ok, "the newest verified snapshot is")
	if after := files(t, root); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("in the repository are %q, and were %q", after, before)
	}

	// The cluster was made again: it is not the one that was backed up.
	again := testserver.StartCluster(t, testserver.Options{Name: "n"})
	conf.Clusters[0].Endpoints = again.Endpoints()
	want(t, run(t, conf), check.SectionConfiguration, warning, "the newest snapshot "+id+" is of etcd cluster")

	// Where a file is in the way nothing can be stored.
	conf.Repositories["main"] = config.Repository{URL: "file://" + writeFile(t, "x"), Compression: "zstd"}
	want(t, run(t, conf), check.SectionRepository, failure, "")
}

// dataFile returns the name of a snapshot's data.
func dataFile(t *testing.T, root, id string) string {
	t.Helper()
	random := id[strings.LastIndex(id, "-"):]
	found, err := filepath.Glob(filepath.Join(root, "prod/data/*"+random+".db*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	return filepath.Base(found[0])
}

// TestRepository_ID: the repository must be the one that the configuration names.
func TestRepository_ID(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	conf := forCluster(t, c.Endpoints(), "")
	repo := conf.Repositories["main"]
	if err := os.Mkdir(strings.TrimPrefix(repo.URL, "file://"), 0o700); err != nil {
		t.Fatal(err)
	}
	with := func(id string) []backup.Finding {
		repo.ID = id
		conf.Repositories["main"] = repo
		return run(t, conf)
	}
	const other = "n4qk7v2x5yj3m6d7r2t4w6z5ae"
	want(t, with(other), check.SectionRepository, failure, "repository "+other+" is not at its address")
	store, err := repo.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := repository.Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	want(t, with(""), check.SectionRepository, ok, "set repository-id: "+made.ID())
	want(t, with(made.ID()), check.SectionRepository, ok, "as repository-id says")
	got := with(other)
	want(t, got, check.SectionRepository, failure, "another repository ("+made.ID()+")")
	want(t, got, check.SectionRepository, failure, "is another disk mounted?")
}
