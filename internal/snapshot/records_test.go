package snapshot_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestOpenAt reads the records of stored snapshots in S3 without the whole, and finds those that
// etcd sent.
func TestOpenAt(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	bucket, _ := newS3(t)
	id := newIdentity(t)
	want := records(t, bytes.NewReader(db.raw), int64(len(db.raw)))
	if len(want) < 50 {
		t.Fatalf("%d records in the database", len(want))
	}
	for name, o := range map[string]codec.Options{
		"none": {}, "zstd": {Compress: codec.Zstd}, "zstd+age": encryptTo(t, id.Recipient().String()),
		"age": {Recipients: encryptTo(t, id.Recipient().String()).Recipients},
	} {
		taker := newTaker(t, source, bucket)
		taker.cluster, taker.Codec = "at-"+name[:3]+name[len(name)-1:], o
		m := take(t, taker)
		c := in(bucket).Cluster(m.Cluster)
		r, err := snapshot.OpenAt(t.Context(), c, m, codec.Identities{id})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := records(t, r, r.Size()-sha256.Size)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", name, len(got), len(want))
		}
		for i := range got {
			if got[i].Revision != want[i].Revision || !bytes.Equal(got[i].Raw, want[i].Raw) {
				t.Fatalf("%s: record %d is %+v, want %+v", name, i, got[i], want[i])
			}
		}
		cut := *m
		cut.Stored.Bytes--
		var defect *backup.DefectError
		_, err = snapshot.OpenAt(t.Context(), c, &cut, nil)
		if !errors.As(err, &defect) || defect.Kind != backup.Truncated {
			t.Errorf("%s: another size: %v", name, err)
		}
		_, err = snapshot.OpenAt(t.Context(), c, m, nil)
		if o.Recipients.Len() > 0 && !errors.Is(err, codec.ErrNoIdentity) {
			t.Errorf("%s: without identity: %v", name, err)
		}
	}
}

func records(t *testing.T, r io.ReaderAt, size int64) (out []etcddb.Record) {
	t.Helper()
	db, err := etcddb.OpenRecords(r, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.From(0, func(x etcddb.Record) bool { out = append(out, x); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}
