package location_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/location"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		url, err string
		want     location.Location
	}{
		{"file:///var/backups", "", location.Location{Path: "/var/backups"}},
		{"file:///a%20b", "", location.Location{Path: "/a b"}},
		{"s3://bucket", "", location.Location{Bucket: "bucket"}},
		{"s3://bucket/a/b", "", location.Location{Bucket: "bucket", Prefix: "a/b"}},
		{"file://var", "file://var: want an absolute path, with three slashes: file:///path", location.Location{}},
		{"file:///%zz", `file:///%zz: invalid URL escape "%zz"`, location.Location{}},
		{"s3:///prefix", "s3:///prefix names no bucket", location.Location{}},
		{"", `"" is not known: want file:///path or s3://bucket/prefix`, location.Location{}},
		{"/var/backups", `"/var/backups" is not known: want file:///path or s3://bucket/prefix`, location.Location{}},
		{"gs://bucket", `"gs://bucket" is not known: want file:///path or s3://bucket/prefix`, location.Location{}},
	} {
		got, err := location.Parse(tt.url)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || text != tt.err {
			t.Errorf("%s: %v\n%s", tt.url, err, diff)
		}
	}
}

func TestOpen(t *testing.T) {
	s, err := location.Open(t.Context(), "file://"+t.TempDir(), s3.Options{})
	if _, ok := s.(*file.Store); err != nil || !ok {
		t.Errorf("got %T, %v", s, err)
	}
	s, err = location.Open(t.Context(), "s3://bucket/prefix", s3.Options{Endpoint: "http://127.0.0.1:1"})
	if b, ok := s.(*s3.Store); err != nil || !ok || b.Bucket() != "bucket" {
		t.Errorf("got %T, %v", s, err)
	}
	_, err = location.Open(t.Context(), "s3://bucket/prefix", s3.Options{Checksum: "crc"})
	if err == nil || err.Error() != `s3://bucket/prefix: configure s3 store: checksum "crc": want auto, sha256, md5 or none` {
		t.Errorf("got %v", err)
	}
	if _, err := location.Open(t.Context(), "nowhere", s3.Options{}); err == nil {
		t.Error("nowhere was opened")
	}
}
