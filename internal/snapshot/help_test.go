package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var errFault = errors.New("the store is on fire")

// connect returns the cluster behind the endpoints, with a stall time-out fit
// for members that are made to stall.
func connect(t *testing.T, endpoints ...string) *cluster.Cluster {
	t.Helper()
	return connectBy(t, cluster.Config{Endpoints: endpoints})
}

func connectBy(t *testing.T, conf cluster.Config) *cluster.Cluster {
	t.Helper()
	conf.InsecureTransport = true
	if conf.RequestTimeout == 0 {
		conf.RequestTimeout = 20 * time.Second // a busy machine is no dead member
	}
	if conf.StallTimeout == 0 {
		conf.StallTimeout = 20 * time.Second
	}
	c, err := cluster.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// newTaker returns a taker with a spool folder that must be empty in the end.
func newTaker(t *testing.T, source *cluster.Cluster, s storage.Store) *snapshot.Taker {
	t.Helper()
	spool := t.TempDir()
	t.Cleanup(func() { wantEmpty(t, spool) })
	return &snapshot.Taker{
		Source: source, Store: s, Cluster: "prod", Spool: spool, Tool: "test", RetryPause: time.Millisecond,
		Codec: codec.Options{Compress: codec.Zstd},
	}
}

func take(t *testing.T, taker *snapshot.Taker) *backup.Manifest {
	t.Helper()
	m, err := taker.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// verify verifies in full, and returns what Verify returns.
func verify(t *testing.T, s storage.Store, m *backup.Manifest, ids ...age.Identity) error {
	t.Helper()
	v := snapshot.Verifier{Store: s, Identities: ids, Spool: t.TempDir()}
	_, err := v.Verify(t.Context(), entry(m))
	return err
}

func entry(m *backup.Manifest) snapshot.Entry {
	return snapshot.Entry{Cluster: m.Cluster, ID: m.ID, Suspect: !m.Verified()}
}

func entries(t *testing.T, s storage.Store) []snapshot.Entry {
	t.Helper()
	all, err := snapshot.Entries(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantKeys checks that the store holds the marker, what belongs to the
// snapshots, and nothing else.
func wantKeys(t *testing.T, s storage.Store, of ...*backup.Manifest) {
	t.Helper()
	want := []string{backup.MarkerKey}
	for _, m := range of {
		want = append(want, m.Key(), m.DataKey())
	}
	slices.Sort(want)
	var got []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
}

// readData decodes a whole snapshot.
func readData(ctx context.Context, s storage.Store, m *backup.Manifest, ids ...age.Identity) ([]byte, error) {
	r, err := snapshot.OpenData(ctx, s, m, ids, nil)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	return raw, errors.Join(err, r.Close())
}

func readObject(t *testing.T, s storage.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

func create(t *testing.T, s storage.Store, key string, raw []byte) {
	t.Helper()
	if err := s.Create(t.Context(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

func newS3(t testing.TB) (storage.Store, *testserver.S3) {
	t.Helper()
	server := testserver.StartS3(t)
	return openS3(t, server, server.Endpoint), server
}

// newProxiedS3 returns a bucket as it is, and behind a proxy.
func newProxiedS3(t *testing.T) (direct, proxied storage.Store, proxy *testserver.Proxy) {
	t.Helper()
	server := testserver.StartS3(t)
	proxy = testserver.StartProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	return openS3(t, server, server.Endpoint), openS3(t, server, proxy.URL), proxy
}

func openS3(t testing.TB, server *testserver.S3, endpoint string) storage.Store {
	t.Helper()
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	credentials := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = " + server.AccessKey + "\naws_secret_access_key = " + server.SecretKey + "\n"
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Endpoint: endpoint, Region: server.Region, CredentialsFile: credentials})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// encryptTo returns options that encrypt to the recipient.
func encryptTo(t *testing.T, recipient string) codec.Options {
	t.Helper()
	r, err := codec.ParseRecipients([]string{recipient}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return codec.Options{Compress: codec.Zstd, Recipients: r}
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// eventually polls until ok. It may be called from any goroutine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Errorf("%s: not in 30 s", what)
			return
		}
	}
}

// settle waits until every member of a new cluster has its storage version,
// which etcd writes some seconds after the first leader.
func settle(t *testing.T, real *testserver.Cluster) {
	t.Helper()
	client := real.Client(t)
	eventually(t, "all members have storage version 3.7.0", func() bool {
		for _, url := range real.Endpoints() {
			if st, err := client.Status(t.Context(), url); err != nil || st.StorageVersion != "3.7.0" {
				return false
			}
		}
		return true
	})
}

// run runs a command and returns its standard output.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// database is a small real database, as a member streamed it.
type database struct {
	raw   []byte // without trailer
	facts *etcddb.Facts
}

// realDatabase makes one with real etcd, once for all tests.
func realDatabase(t *testing.T) database {
	t.Helper()
	madeDatabase.Do(func() {
		real := testserver.StartCluster(t, testserver.Options{})
		testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 50, Compact: true})
		path := filepath.Join(t.TempDir(), "db")
		saver := snapshot.Saver{Source: connect(t, real.Endpoints()...)}
		if _, err := saver.Save(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		facts, err := etcddb.Inspect(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		theDatabase = database{raw[:len(raw)-sha256.Size], facts}
	})
	if theDatabase.facts == nil {
		t.Fatal("an earlier test could not make a database")
	}
	return theDatabase
}

var (
	madeDatabase sync.Once
	theDatabase  database
)

// fakes is a cluster of fake members with ids 1, 2, ..., all of the database
// db. They are tried in this order, and answer to a Snapshot as told.
type fakes struct {
	urls    []string
	streams atomic.Int64 // begun

	mu      sync.Mutex
	members []*pb.Member // guarded by mu; what all of them list
}

func (f *fakes) add(m *pb.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
}

func startFakes(t *testing.T, db database, snapshots ...testserver.SnapshotFunc) *fakes {
	t.Helper()
	f := &fakes{}
	header := func(id uint64) *pb.ResponseHeader {
		return &pb.ResponseHeader{ClusterId: 0xc1, MemberId: id, Revision: int64(db.facts.Revision), RaftTerm: 2}
	}
	for i, send := range snapshots {
		id := uint64(i + 1)
		url := testserver.StartFakeMember(t, testserver.FakeMember{
			ID: id,
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				return &pb.StatusResponse{Header: header(id), Version: "3.7.3", DbSize: int64(len(db.raw)), Leader: 99, RaftTerm: 2, RaftAppliedIndex: 4}, nil
			},
			HashKV: func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				return &pb.HashKVResponse{Header: header(id), Hash: db.facts.HashKV.Hash, CompactRevision: int64(db.facts.HashKV.CompactRevision)}, nil
			},
			MemberList: func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				return &pb.MemberListResponse{Header: header(id), Members: slices.Clone(f.members)}, nil
			},
			Snapshot: func(r *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
				f.streams.Add(1)
				return send(r, s)
			},
		})
		f.add(&pb.Member{ID: id, Name: "fake", PeerURLs: []string{"http://127.0.0.1:1"}, ClientURLs: []string{url}})
		f.urls = append(f.urls, url)
	}
	return f
}

var (
	idPattern   = regexp.MustCompile(`\d{8}T\d{6}Z-r\d+-[a-z2-7]{6}`)
	timePattern = regexp.MustCompile(`\d{8}T\d{6}Z`)
	namePattern = regexp.MustCompile(`\d{8}T\d{6}Z-[a-z2-7]{6}`)
)

// golden compares text, with its ids replaced, with a file in testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	got := namePattern.ReplaceAllString(idPattern.ReplaceAllString(text, "ID"), "NAME")
	got = timePattern.ReplaceAllString(got, "TIME")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%swant\n%s", path, got, want)
	}
}
