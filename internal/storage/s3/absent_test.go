package s3_test

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// page is the answer of a load balancer that knows no such host, or no such path.
func page(status int, text string) fault {
	return func(_ *proxy, w http.ResponseWriter, r *http.Request) {
		readBody(r)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// foreign are answers of 404 that do not say that an object is missing.
var foreign = map[string]fault{
	"Page":        page(404, "<html>gone fishing</html>"),
	"NoXML":       page(404, "<!DOCTYPE html><p>404 & gone<br>"),
	"Empty":       page(404, ""),
	"UnknownUser": answer(404, "XAdminUserNotFound", "No user exists with the provided access key ID."),
	"UnknownCode": answer(404, "NoSuchTenant", "no"),
}

// TestErrors_Foreign404: who takes these for missing objects marks every snapshot as damaged,
// and makes a repository where there is one.
func TestErrors_Foreign404(t *testing.T) {
	for name, f := range foreign {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			s := p.open(t)
			if err := s.Create(t.Context(), "key", stream(content(small))); err != nil {
				t.Fatal(err)
			}
			for _, op := range []string{"HeadObject", "GetObject", "ListObjectsV2", "DeleteObject", "PutObject",
				"CreateMultipartUpload", "ListMultipartUploads"} {
				p.fail(op, repeat(20, f)...)
			}
			for op, err := range operations(t.Context(), s) {
				var hint *backup.HintError
				if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || !errors.As(err, &hint) ||
					!strings.Contains(err.Error(), "404") {
					t.Errorf("%s: got error %v", op, err)
				}
			}
		})
	}
}

// TestErrors_Foreign404Once: one such answer alone is got over.
func TestErrors_Foreign404Once(t *testing.T) {
	for name, f := range foreign {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			for _, op := range []string{"GetObject", "ListObjectsV2", "DeleteObject", "PutObject",
				"CreateMultipartUpload", "ListMultipartUploads"} {
				p.fail(op, f)
			}
			p.fail("HeadObject", pass, f) // the first is for a key that is not there
			s := p.open(t)
			for key, n := range inOrder {
				if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
					t.Errorf("create %s: %v", key, err)
				}
			}
			if _, err := s.Stat(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("stat of nothing: %v", err)
			}
			if o, err := s.Stat(t.Context(), "small"); err != nil || o.Size != small {
				t.Errorf("stat: got %+v, %v", o, err)
			}
			if n := p.count("HeadObject"); n != 3 {
				t.Errorf("%d HEAD requests, want 3", n)
			}
			for _, err := range s.List(t.Context(), "", "") {
				if err != nil {
					t.Errorf("list: %v", err)
				}
			}
			if err := s.Delete(t.Context(), "small"); err != nil {
				t.Errorf("delete: %v", err)
			}
			if _, err := s.AbortStaleUploads(t.Context(), 0); err != nil {
				t.Errorf("abort: %v", err)
			}
		})
	}
}

// TestErrors_UnknownKey is versitygw's answer to an access key that it does not know.
func TestErrors_UnknownKey(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
	for op, err := range operations(t.Context(), open(t, o)) {
		var hint *backup.HintError
		if err == nil || errors.Is(err, fs.ErrNotExist) || !errors.As(err, &hint) ||
			!strings.Contains(hint.Hint, "access key") {
			t.Errorf("%s: got error %v", op, err)
		}
	}
}

// TestList_NotAList: an empty list of a page would be a repository without snapshots.
func TestList_NotAList(t *testing.T) {
	p := startProxy(t)
	p.fail("ListObjectsV2", page(200, "<html>gone fishing</html>"))
	var last error
	for _, err := range p.open(t).List(t.Context(), "", "") {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "not a list") {
		t.Errorf("got %v", last)
	}
}
