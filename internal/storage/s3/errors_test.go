package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// operations runs each method of a store and yields its error.
func operations(ctx context.Context, s *s3.Store) map[string]error {
	errs := make(map[string]error)
	errs["create small"] = s.Create(ctx, "small", stream(content(small)))
	errs["create large"] = s.Create(ctx, "large", stream(content(large)))
	_, errs["open"] = s.Open(ctx, "key", 0, -1)
	_, errs["open nothing"] = s.Open(ctx, "key", 0, 0)
	_, errs["stat"] = s.Stat(ctx, "key")
	for _, err := range s.List(ctx, "", "") {
		errs["list"] = err
	}
	errs["delete"] = s.Delete(ctx, "key")
	_, errs["abort"] = s.AbortStaleUploads(ctx, 0)
	return errs
}

func TestErrors_NoBucket(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	o.Bucket = "no-such-bucket"
	for op, err := range operations(t.Context(), open(t, o)) {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bucket no-such-bucket does not exist") {
			t.Errorf("%s: got error %v", op, err)
		}
	}
	_, err := repository.Create(t.Context(), open(t, o))
	if err == nil || !strings.Contains(err.Error(), "bucket no-such-bucket does not exist") {
		t.Errorf("init repository: got error %v", err)
	}
}

func TestErrors_WrongSecret(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	for op, err := range operations(t.Context(), open(t, o)) {
		var hint *backup.HintError
		denied := errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist)
		if !denied || !strings.Contains(err.Error(), "403") || !errors.As(err, &hint) {
			t.Errorf("%s: got error %v", op, err)
		}
	}
}

// TestErrors_Cancelled includes the waiting between attempts.
func TestErrors_Cancelled(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	o.Endpoint = "http://127.0.0.1:1" // nobody listens
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s := open(t, o) // at its own pace, which would be a minute
	start := time.Now()
	_, err := s.Stat(ctx, "key")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Fatalf("after %v: got error %v", time.Since(start), err)
	}
}

func TestErrors_NobodyListens(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	o.Endpoint = "http://127.0.0.1:1"
	_, err := open(t, o).Hurry().Stat(t.Context(), "key")
	want := "stat key: head object: dial tcp 127.0.0.1:1: connect: connection refused (10 attempts)"
	if err == nil || err.Error() != want {
		t.Fatalf("got error %v, want %s", err, want)
	}
	var hint *backup.HintError
	const todo = "does the service run, is http://127.0.0.1:1 its endpoint, and can this host reach it?"
	if !errors.As(err, &hint) || hint.Hint != todo {
		t.Errorf("got %+v, want the hint %s", hint, todo)
	}
}

func TestErrors_Status(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	if err := s.Create(t.Context(), "key", stream(content(small))); err != nil {
		t.Fatal(err)
	}
	p.fail("HeadObject", answer(403, "", ""))
	_, err := s.Stat(t.Context(), "key")
	var hint *backup.HintError
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, "may not list the bucket") {
		t.Errorf("stat: got error %v", err)
	}
	if !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("stat: got error %v", err)
	}
	p.fail("GetObject", answer(403, "AccessDenied", "no"))
	_, err = s.Open(t.Context(), "key", 0, -1)
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, "may not list the bucket") {
		t.Errorf("open: got error %v", err)
	}
	p.fail("HeadObject", func(_ *proxy, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
		w.WriteHeader(http.StatusMovedPermanently)
	})
	_, err = s.Stat(t.Context(), "key")
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "region eu-central-1") {
		t.Errorf("stat: got error %v", err)
	}
	p.fail("ListObjectsV2", answer(403, "AccessDenied", "no"))
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("list: got error %v", err)
		}
	}
	p.fail("DeleteObject", answer(403, "AccessDenied", "no"))
	if err := s.Delete(t.Context(), "key"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("delete: got error %v", err)
	}
	p.fail("DeleteObject", answer(404, "NoSuchKey", "no"), answer(503, "SlowDown", "no"))
	for range 2 {
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}

// TestOpen_WrongRange: a service that sends other bytes than were asked for.
func TestOpen_WrongRange(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	if err := s.Create(t.Context(), "key", stream(content(small))); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		status int
		header string
	}{{200, ""}, {206, "bytes 0-9/1000"}, {206, "bytes 10-14/1000"}, {206, "bytes 10-10/"}, {206, "nonsense"}} {
		p.fail("GetObject", func(_ *proxy, w http.ResponseWriter, _ *http.Request) {
			if r.header != "" {
				w.Header().Set("Content-Range", r.header)
			}
			w.WriteHeader(r.status)
			_, _ = io.WriteString(w, "0123456789")
		})
		if body, err := s.Open(t.Context(), "key", 10, 10); err == nil {
			t.Errorf("%d %q was believed", r.status, r.header)
			_ = body.Close()
		}
	}
}

// TestList_NeverEnds: services that go round in circles.
func TestList_NeverEnds(t *testing.T) {
	page := func(token string, keys ...string) fault {
		return func(_ *proxy, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<ListBucketResult><IsTruncated>true</IsTruncated>`+
				`<NextContinuationToken>%s</NextContinuationToken>`, token)
			for _, key := range keys {
				fmt.Fprintf(w, `<Contents><Key>some/prefix/%s</Key><Size>1</Size></Contents>`, key)
			}
			fmt.Fprint(w, `</ListBucketResult>`)
		}
	}
	for name, pages := range map[string][]fault{
		"SameToken": {page("a", "k1"), page("a", "k2"), page("a", "k3")},
		"NoToken":   {page("", "k1")},
		"SameKeys":  {page("a", "k1", "k2"), page("b", "k1", "k2"), page("a", "k1")},
		"Unordered": {page("a", "k2", "k1")},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			p.fail("ListObjectsV2", pages...)
			var last error
			for _, err := range p.open(t).List(t.Context(), "", "") {
				last = err
			}
			if last == nil || !strings.Contains(last.Error(), "the service") {
				t.Fatalf("got error %v", last)
			}
		})
	}
}

func TestAbortStaleUploads(t *testing.T) {
	server := testserver.StartS3(t)
	s := open(t, options(t, server))
	name := backup.NewDataName(time.Now())
	data := backup.Key{Cluster: "c1", Kind: backup.KindData, Data: name, Suffix: ".zst"}.String()
	ours := "some/prefix/" + data
	foreign := []string{"some/prefix/c1/data/foreign", "other/" + data}
	for _, key := range append(foreign, ours, "some/prefix/backupd.json") {
		in := &awss3.CreateMultipartUploadInput{Bucket: &server.Bucket, Key: &key}
		_, err := plainClient(server).CreateMultipartUpload(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.AbortStaleUploads(t.Context(), time.Hour); n != 0 || err != nil {
		t.Fatalf("aborted %d young uploads, error %v", n, err)
	}
	if n, err := s.AbortStaleUploads(t.Context(), 0); n != 2 || err != nil {
		t.Fatalf("aborted %d uploads, want 2, error %v", n, err)
	}
	left := uploads(t, server)
	if len(left) != 2 || strings.Contains(strings.Join(left, " "), ours) {
		t.Fatalf("left: %q", left)
	}
}

// TestErrors_Archived: no credentials help against an object in an archive.
func TestErrors_Archived(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	if err := s.Create(t.Context(), "key", stream(content(small))); err != nil {
		t.Fatal(err)
	}
	p.fail("GetObject", answer(403, "InvalidObjectState", "The operation is not valid for the object's storage class"))
	_, err := s.Open(t.Context(), "key", 0, -1)
	var hint *backup.HintError
	command := "restore-object --bucket " + p.server.Bucket + " --key some/prefix/key "
	if !errors.Is(err, backup.ErrArchived) || errors.Is(err, fs.ErrPermission) || !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, command) || strings.Contains(hint.Hint, "policy") {
		t.Errorf("got error %v, hint %+v", err, hint)
	}
}

// TestErrors_OldList: a service that answers with a page of the first version of the list.
func TestErrors_OldList(t *testing.T) {
	p := startProxy(t)
	p.fail("ListObjectsV2", func(_ *proxy, w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<ListBucketResult><Marker/><NextMarker>some/prefix/k1</NextMarker>`+
			`<IsTruncated>true</IsTruncated><Contents><Key>some/prefix/k1</Key></Contents></ListBucketResult>`)
	})
	var last error
	for _, err := range p.open(t).List(t.Context(), "k", "") {
		last = err
	}
	var hint *backup.HintError
	if last == nil || strings.Contains(last.Error(), "token") || !errors.As(last, &hint) ||
		!strings.Contains(hint.Hint, "ListObjectsV2") {
		t.Errorf("got error %v, hint %+v", last, hint)
	}
}
