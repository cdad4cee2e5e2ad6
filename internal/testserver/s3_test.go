package testserver_test

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestStartS3(t *testing.T) {
	a := testserver.StartS3(t)
	b := testserver.StartS3(t)
	if a.Endpoint != b.Endpoint || a.Bucket == b.Bucket {
		t.Errorf("got %s/%s and %s/%s, want one server and two buckets", a.Endpoint, a.Bucket, b.Endpoint, b.Bucket)
	}
	putGet(t, a)
	if _, err := b.Do(t.Context(), http.MethodGet, "dir/object", nil); err == nil {
		t.Error("an object of one bucket is in the other")
	}
}

func TestStartS3_CleanUp(t *testing.T) {
	var first *testserver.S3
	t.Run("Server", func(t *testing.T) {
		first = testserver.StartS3(t)
	})
	if conn, err := net.Dial("tcp", strings.TrimPrefix(first.Endpoint, "http://")); err == nil {
		conn.Close()
		t.Error("the server listens after its last test")
	}
	if _, err := os.Stat(first.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bucket's directory: got %v, want it gone", err)
	}
	putGet(t, testserver.StartS3(t))
}

func TestStartS3TLS(t *testing.T) {
	s := testserver.StartS3TLS(t)
	putGet(t, s)
	if _, err := http.Get(s.Endpoint + "/healthz"); err == nil {
		t.Error("the certificate is trusted without its CA file")
	}
}

func putGet(t *testing.T, s *testserver.S3) {
	t.Helper()
	want := []byte("bytes of an object")
	if _, err := s.Do(t.Context(), http.MethodPut, "dir/object", want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Do(t.Context(), http.MethodGet, "dir/object", nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got object %q, want %q", got, want)
	}
	onDisk, err := os.ReadFile(filepath.Join(s.Dir(), "dir", "object"))
	if err != nil {
		t.Fatal(err)
	}
	if string(onDisk) != string(want) {
		t.Errorf("got file %q, want %q", onDisk, want)
	}
	wrong := *s
	wrong.SecretKey = "wrong"
	if _, err := wrong.Do(t.Context(), http.MethodGet, "dir/object", nil); err == nil {
		t.Error("a wrong secret key reads the object")
	}
}
