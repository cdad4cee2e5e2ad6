package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var errFault = errors.New("the store is on fire")

// connect returns the cluster behind the endpoints.
func connect(t *testing.T, endpoints ...string) *cluster.Cluster {
	t.Helper()
	return testserver.Connect(t, cluster.Config{Endpoints: endpoints})
}

// newTaker returns a taker with a spool folder that must be empty in the end.
func newTaker(t *testing.T, source *cluster.Cluster, s storage.Store) *taker {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { wantEmpty(t, dir) })
	out := &taker{store: s, cluster: "prod", Taker: snapshot.Taker{
		Source: source, Spool: spool.Folder{Dir: dir, MinFree: disk.ReserveOf(0)}, Tool: "test",
		Codec: codec.Options{Compress: codec.Zstd},
	}}
	out.SetRetryPause(time.Millisecond)
	return out
}

// taker takes snapshots of one cluster into a store, as a daemon does.
type taker struct {
	snapshot.Taker
	store   storage.Store
	cluster string
	id      string // why the repository is down; nil if it is not
	down    error
}

// Take opens the repository, or makes it, stores the pending snapshots, and takes
// a snapshot.
func (t *taker) Take(ctx context.Context) (*backup.Manifest, error) {
	to, err := t.target(ctx)
	if err != nil {
		return nil, err
	}
	survey, err := t.Source.Survey(ctx)
	if err != nil {
		return nil, err
	}
	return t.Taker.Take(ctx, survey, to)
}

func (t *taker) target(ctx context.Context) (to snapshot.Target, err error) {
	if t.down != nil {
		return snapshot.Target{Cluster: repository.At(t.store, t.id).Cluster(t.cluster), Down: t.down}, nil
	}
	repo, err := repository.Create(ctx, t.store)
	if err != nil {
		return to, err
	}
	to.Cluster = repo.Cluster(t.cluster)
	if t.Spool.Keep {
		_, _ = t.Taker.StorePending(ctx, to.Cluster) // a snapshot that cannot be stored yet goes on waiting
	}
	to.Timelines, err = repository.ReadTimelines(ctx, to.Cluster)
	if err != nil && t.Spool.Keep && ctx.Err() == nil {
		to.Down, err = err, nil
	}
	return to, err
}

// StorePending stores the pending snapshots of the repository.
func (t *taker) StorePending(ctx context.Context) ([]*backup.Manifest, error) {
	repo, err := repository.Open(ctx, t.store, "")
	if err != nil {
		return nil, err
	}
	return t.Taker.StorePending(ctx, repo.Cluster(t.cluster))
}

func take(t *testing.T, taker *taker) *backup.Manifest {
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
	v := newVerifier(s, m.Cluster, t.TempDir())
	v.Identities = ids
	_, err := v.Verify(t.Context(), item(m))
	return err
}

func newVerifier(s storage.Store, cluster, dir string) *snapshot.Verifier {
	return &snapshot.Verifier{Cluster: in(s).Cluster(cluster), Spool: spool.Folder{Dir: dir, MinFree: disk.ReserveOf(0)}}
}

// in returns the repository in a store.
func in(s storage.Store) *repository.Repository { return repository.At(s, "any") }

// item is a snapshot as the name of its manifest describes it.
func item(m *backup.Manifest) repository.Item { return itemOf(m.ObjectKey()) }

func itemOf(k backup.Key) repository.Item {
	return repository.Item{
		Cluster: k.Cluster, ID: k.ID, Name: k.ID.DataName(), Exists: true, Timeline: k.Timeline, Index: k.Index,
		Taken: k.State,
	}
}

// open reads the manifest that is stored.
func open(ctx context.Context, s storage.Store, m *backup.Manifest) (*backup.Manifest, error) {
	return in(s).Cluster(m.Cluster).Manifest(ctx, item(m))
}

// items returns everything that is stored of all clusters, the newest first of
// each.
func items(t *testing.T, s storage.Store) []repository.Item {
	t.Helper()
	clusters, err := in(s).Clusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []repository.Item
	for _, name := range clusters {
		from := len(out)
		for i, err := range in(s).Cluster(name).Items(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, i)
		}
		slices.Reverse(out[from:])
	}
	return out
}

// entries returns the snapshots of all clusters, the newest first of each.
func entries(t *testing.T, s storage.Store) []backup.Key {
	t.Helper()
	var out []backup.Key
	for _, i := range items(t, s) {
		if i.Exists {
			out = append(out, i.Key())
		}
	}
	return out
}

// orphans returns the data that no manifest names.
func orphans(t *testing.T, s storage.Store) []repository.Item {
	t.Helper()
	return slices.DeleteFunc(items(t, s), func(i repository.Item) bool { return i.Exists })
}

// addManifest stores a manifest as it is.
func addManifest(t *testing.T, s storage.Store, m *backup.Manifest) {
	t.Helper()
	create(t, s, m.Key(), []byte(marshal(t, m)))
}

func marshal(t *testing.T, m *backup.Manifest) string {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// wantKeys checks that the store holds the marker, the objects of the snapshots,
// and nothing else.
func wantKeys(t *testing.T, s storage.Store, of ...*backup.Manifest) {
	t.Helper()
	want := []string{backup.MarkerKey}
	for _, m := range of {
		want = append(append(want, m.Key()), m.DataKeys()...)
	}
	slices.Sort(want)
	var got []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(o.Key, ".removed.json") { // which outlives its snapshot
			got = append(got, o.Key)
		}
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
	r, err := snapshot.Open(ctx, in(s).Cluster(m.Cluster), m, ids, nil)
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

// newProxiedS3 returns a bucket twice: directly, and through a proxy.
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
	text := "[default]\naws_access_key_id = " + server.AccessKey + "\naws_secret_access_key = " + server.SecretKey +
		"\n"
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Endpoint: endpoint, Region: server.Region,
		CredentialsFile: credentials})
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

// fakes is a cluster of fake members with ids 1, 2, ..., all with the database db.
// They are tried in this order. The test decides how each answers to a Snapshot.
type fakes struct {
	noQuorum atomic.Bool // they refuse linearizable reads
	urls     []string
	streams  atomic.Int64 // begun

	mu      sync.Mutex   // guards what follows
	members []*pb.Member // that all of them list
	// status changes an answer, and hashKV gives another; both may be nil.
	status func(id uint64, st *pb.StatusResponse)
	hashKV func(id uint64, r *pb.HashKVRequest) (*pb.HashKVResponse, error)
}

// lie makes the members give other answers.
func (f *fakes) lie(
	status func(id uint64, st *pb.StatusResponse), hashKV func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error),
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.hashKV = status, hashKV
}

func (f *fakes) lies() (
	status func(id uint64, st *pb.StatusResponse), hashKV func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error),
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, f.hashKV
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
				st := &pb.StatusResponse{Header: header(id), Version: "3.7.3", DbSize: int64(len(db.raw)), Leader: 99,
					RaftTerm: 2, RaftAppliedIndex: 4, RaftIndex: db.facts.ConsistentIndex}
				if status, _ := f.lies(); status != nil {
					status(id, st)
				}
				return st, nil
			},
			HashKV: func(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				if _, hashKV := f.lies(); hashKV != nil {
					resp, err := hashKV(id, r)
					if err == nil {
						resp.Header = header(id)
					}
					return resp, err
				}
				return &pb.HashKVResponse{Header: header(id), Hash: db.facts.HashKV.Hash,
					CompactRevision: int64(db.facts.HashKV.CompactRevision)}, nil
			},
			MemberList: func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				return &pb.MemberListResponse{Header: header(id), Members: slices.Clone(f.members)}, nil
			},
			Range: func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
				if f.noQuorum.Load() {
					return nil, status.Error(codes.Unavailable, "etcdserver: no leader")
				}
				return &pb.RangeResponse{Header: header(id)}, nil
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

// golden compares a trace with a file in testdata.
func golden(t *testing.T, name, trace string) {
	t.Helper()
	storagetest.Golden(t, name, storagetest.Generic(trace), *update)
}
