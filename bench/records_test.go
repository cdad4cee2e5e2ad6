package bench

import (
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// BenchmarkRecords looks up 100 records by their revisions at random places of a snapshot in S3. It
// fails if more than 64 MiB were moved, whatever the size of the snapshot.
func BenchmarkRecords(b *testing.B) {
	for _, data := range dataSets {
		b.Run(data.name, func(b *testing.B) {
			w := newWorldWith(b, 1, data.containers)
			w.backupd(b, "init")
			w.backupd(b, "backup")
			direct := w.openS3(b)
			var moved, requests atomic.Int64
			store := storage.WithObserver(direct, func(e storage.Event) {
				if e.Op == storage.OpOpen {
					moved.Add(e.Bytes)
					requests.Add(1)
				}
			})
			c := repository.At(store, "bench").Cluster("bench")
			var m *backup.Manifest
			for item, err := range c.Items(b.Context()) {
				if err != nil {
					b.Fatal(err)
				}
				if m, err = c.Manifest(b.Context(), item); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				moved.Store(0)
				requests.Store(0)
				lookUp(b, c, m)
			}
			b.ReportMetric(float64(moved.Load())/(1<<20), "moved-MiB")
			b.ReportMetric(float64(requests.Load()), "requests")
			b.ReportMetric(float64(m.Plain.Bytes)/(1<<20), "plain-MiB")
			b.ReportMetric(float64(m.Stored.Bytes)/float64(m.Plain.Bytes), "stored-ratio")
			if moved.Load() > 64<<20 {
				b.Errorf("%d bytes were moved for 100 records", moved.Load())
			}
		})
	}
}

// openS3 opens the store of the repository.
func (w *world) openS3(b *testing.B) storage.Store {
	b.Helper()
	credentials := filepath.Join(w.dir, "credentials")
	text := "[default]\naws_access_key_id = " + w.s3.AccessKey + "\naws_secret_access_key = " + w.s3.SecretKey + "\n"
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := s3.New(b.Context(), s3.Options{Bucket: w.s3.Bucket, Prefix: "bench", Endpoint: w.s3.Endpoint,
		Region: w.s3.Region, CredentialsFile: credentials})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func lookUp(b *testing.B, c *repository.Cluster, m *backup.Manifest) {
	b.Helper()
	r, err := snapshot.OpenAt(b.Context(), c, m, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	records, err := etcddb.OpenRecords(r, r.Size()-sha256.Size)
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		want := 2 + backup.Revision(rng.Int64N(int64(m.Revision)-1))
		found := backup.Revision(0)
		if err := records.From(want, func(x etcddb.Record) bool { found = x.Revision; return false }); err != nil {
			b.Fatal(err)
		}
		if found != want {
			b.Fatalf("found revision %d, want %d", found, want)
		}
	}
}
