package location_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/storage/file"
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
	s, err := location.Open(t.Context(), "file://"+t.TempDir(), location.Options{})
	if _, ok := s.(*file.Store); err != nil || !ok {
		t.Errorf("got %T, %v", s, err)
	}
	o := location.Options{S3: s3.Options{Endpoint: "http://127.0.0.1:1"}}
	s, err = location.Open(t.Context(), "s3://bucket/prefix", o)
	if b, ok := s.(*s3.Store); err != nil || !ok || b.Bucket() != "bucket" {
		t.Errorf("got %T, %v", s, err)
	}
	_, err = location.Open(t.Context(), "s3://bucket/prefix", location.Options{S3: s3.Options{Checksum: "crc"}})
	want := `s3://bucket/prefix: configure s3 store: checksum "crc": want auto, sha256, md5 or none`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := location.Open(t.Context(), "nowhere", location.Options{}); err == nil {
		t.Error("nowhere was opened")
	}
}

// TestSettings: each has all that a flag and a key need, and is where it says.
func TestSettings(t *testing.T) {
	var o location.Options
	seen := map[string]bool{}
	for _, s := range o.Settings() {
		name := s.Section + "-" + s.Key
		if s.Section == "" || s.Key == "" || s.Usage == "" || seen[name] {
			t.Errorf("got %+v", s)
		}
		seen[name] = true
		*s.Value = name
	}
	placed := o.S3.Endpoint == "s3-endpoint" && o.S3.SSECKeyFile == "s3-sse-c-key-file" && o.S3.Bucket == ""
	if len(seen) != 11 || !placed {
		t.Errorf("got %+v of %v", o, seen)
	}
}

func TestLocation_Options(t *testing.T) {
	folder, bucket := location.Location{Path: "/var/backups"}, location.Location{Bucket: "bucket", Prefix: "prefix"}
	for name, tt := range map[string]struct {
		o         s3.Options
		unused    string // of the folder
		encrypted bool   // of the bucket
	}{
		"None":    {s3.Options{}, "", false},
		"Default": {s3.Options{Checksum: "auto"}, "", false},
		"Region":  {s3.Options{Region: "eu-central-1"}, "s3", false},
		"SSE":     {s3.Options{SSE: "AES256"}, "s3", false},
		"KMS":     {s3.Options{SSE: "aws:kms"}, "s3", true},
		"Key":     {s3.Options{SSECKeyFile: "/key"}, "s3", true},
	} {
		o := location.Options{S3: tt.o}
		if got := folder.Unused(o); got != tt.unused {
			t.Errorf("%s: in a folder %q has no effect, want %q", name, got, tt.unused)
		}
		if got := bucket.Unused(o); got != "" {
			t.Errorf("%s: of a bucket %q has no effect", name, got)
		}
		if folder.EncryptedByKey(o) || bucket.EncryptedByKey(o) != tt.encrypted {
			t.Errorf("%s: encrypted: %v, %v", name, folder.EncryptedByKey(o), bucket.EncryptedByKey(o))
		}
		if text, err := folder.Policy(o, true); text != "" || err != nil {
			t.Errorf("%s: policy of a folder: %s, %v", name, text, err)
		}
		if text, err := bucket.Policy(o, true); !strings.Contains(text, "arn:aws:s3:::bucket/prefix/*") || err != nil {
			t.Errorf("%s: policy of a bucket: %s, %v", name, text, err)
		}
	}
}
