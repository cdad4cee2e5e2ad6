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
		{"s3://bucket/a@b", "", location.Location{Bucket: "bucket", Prefix: "a@b"}},
		{"file:///a@b", "", location.Location{Path: "/a@b"}},
		{"s3://AK:SECRET@bucket", location.ErrCredentials.Error(), location.Location{}},
		{"s3://AK:SEC/RET@bucket/prefix", location.ErrCredentials.Error(), location.Location{}},
		{"s3://AK:SECRET", location.ErrCredentials.Error(), location.Location{}},
		{"s3://bucket?secret=SECRET", location.ErrSettings.Error(), location.Location{}},
		{"s3://bucket/prefix?secret=SECRET", location.ErrSettings.Error(), location.Location{}},
		{"file:///a?b", "", location.Location{Path: "/a?b"}},
		{"s3:/AK:SECRET@bucket", location.ErrCredentials.Error(), location.Location{}},
		{"https://AK:SECRET@s3.example.net/bucket", location.ErrCredentials.Error(), location.Location{}},
		{"https://s3.example.net/bucket?X-Amz-Signature=SECRET",
			`"https://s3.example.net/bucket?***" is not known: want file:///path or s3://bucket/prefix`, location.Location{}},
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
	dir := t.TempDir()
	s, err := location.Open(t.Context(), "file://"+dir, location.Options{})
	if err == nil {
		err = s.Create(t.Context(), "a", strings.NewReader("a"))
	}
	if _, below := file.New(dir).Stat(t.Context(), "a"); err != nil || below != nil {
		t.Errorf("got %T, %v, %v", s, err, below)
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
	_, err = location.Open(t.Context(), "file:///x", location.Options{File: file.Options{MinFree: "much"}})
	if err == nil || !strings.Contains(err.Error(), "file:///x: file min-free: want a size") {
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
	if len(seen) != 12 || !placed {
		t.Errorf("got %+v of %v", o, seen)
	}
}

func TestLocation_FileOptions(t *testing.T) {
	o := location.Options{File: file.Options{MinFree: "1GiB"}}
	folder, bucket := location.Location{Path: "/var/backups"}, location.Location{Bucket: "bucket"}
	if a, b := folder.Unused(o), bucket.Unused(o); a != "" || b != "file" {
		t.Errorf("in a folder %q has no effect, in a bucket %q", a, b)
	}
	o.S3.Endpoint = "https://s3.example" // by the environment, for other commands
	if got, want := o.Flags("file:///x"), "--repo file:///x --file-min-free 1GiB"; got != want {
		t.Errorf("got %s", got)
	}
	if got, want := o.Flags("s3://b"), "--repo s3://b --s3-endpoint https://s3.example"; got != want {
		t.Errorf("got %s", got)
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

func TestOptions_Removal(t *testing.T) {
	var o location.Options
	key := "prod/streams/20260101T000000Z.json"
	if got := o.Removal("file:///my%20backups", key); got != "rm '/my backups/"+key+"'" {
		t.Errorf("got %s", got)
	}
	if got := o.Removal("s3://b/p/", key); got != "aws s3 rm s3://b/p/"+key {
		t.Errorf("got %s", got)
	}
	o.S3.Endpoint = "https://s3.example.net"
	if got := o.Removal("s3://b/p", key); got != "aws s3 rm s3://b/p/"+key+" --endpoint-url https://s3.example.net" {
		t.Errorf("got %s", got)
	}
}
