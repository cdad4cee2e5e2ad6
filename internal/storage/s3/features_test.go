package s3_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// refusals answers with an error where a request has one of the headers, as
// services do that do not know them.
type refusals map[string]fault

func (f refusals) answer(p *proxy, w http.ResponseWriter, r *http.Request) {
	for header, refuse := range f {
		if r.Header.Get(header) != "" {
			refuse(p, w, r)
			return
		}
	}
	pass(p, w, r)
}

// TestCreate_OtherVendors runs against services that lack something.
func TestCreate_OtherVendors(t *testing.T) {
	const checksum, algorithm, condition = "X-Amz-Checksum-Sha256", "X-Amz-Checksum-Algorithm", "If-None-Match"
	unnamed := answer(501, "NotImplemented", "A header you provided implies functionality that is not implemented.")
	unsupported := func(header string) fault {
		return answer(400, "InvalidArgument", "Unsupported header '"+header+"'")
	}
	for name, f := range map[string]refusals{
		"NoCondition":       {condition: unnamed},
		"NoConditionNamed":  {condition: answer(501, "NotImplemented", "If-None-Match is not supported")},
		"NoCondition400":    {condition: answer(400, "InvalidArgument", "conditional writes are not supported")},
		"NoChecksum":        {checksum: unsupported(checksum)},
		"NoChecksum501":     {checksum: answer(501, "NotImplemented", "x-amz-checksum-sha256 not implemented")},
		"NoChecksumUnnamed": {checksum: unnamed},
		"Neither":           {checksum: unsupported(checksum), algorithm: unsupported(algorithm), condition: unnamed},
		"NeitherUnnamed":    {checksum: unnamed, algorithm: unnamed, condition: unnamed},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			checkNoUploads(t, p.server)
			for _, op := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
				p.fail(op, repeat(100, f.answer)...)
			}
			s := p.open(t)
			for key, n := range inOrder {
				if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
					t.Fatalf("create %s: %v", key, err)
				}
				p.wantStored(t, key, content(n))
				if err := s.Create(t.Context(), key, stream(nil)); !errors.Is(err, fs.ErrExist) {
					t.Fatalf("create %s again: got error %v", key, err)
				}
				if err := s.Create(t.Context(), key, stream(make([]byte, large))); !errors.Is(err, fs.ErrExist) {
					t.Fatalf("create %s again: got error %v", key, err)
				}
				p.wantStored(t, key, content(n))
			}
			before := p.count("PutObject")
			if err := s.Create(t.Context(), "another", stream(content(small))); err != nil {
				t.Fatal(err)
			}
			if n := p.count("PutObject") - before; n != 1 {
				t.Fatalf("%d requests: a refused feature was tried again", n)
			}
		})
	}
}

// inOrder yields the key and size of a small and then a large object.
func inOrder(yield func(string, int) bool) {
	_ = yield("small", small) && yield("large", large)
}

// TestCreate_RefusedInParts: a service ignores the announcement of checksums
// and refuses those of the parts, which are under way by then. Nothing was said
// against create-if-absent.
func TestCreate_RefusedInParts(t *testing.T) {
	for name, refuse := range map[string]fault{
		"Named": answer(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'"),
		"Unnamed": answer(501, "NotImplemented",
			"A header you provided implies functionality that is not implemented."),
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			checkNoUploads(t, p.server)
			key := "some/prefix/key"
			p.fail("CreateMultipartUpload", func(p *proxy, w http.ResponseWriter, r *http.Request) {
				in := &awss3.CreateMultipartUploadInput{Bucket: &p.server.Bucket, Key: &key}
				out, err := plainClient(p.server).CreateMultipartUpload(r.Context(), in)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				fmt.Fprintf(w, `<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>`,
					*out.UploadId)
			})
			p.fail("UploadPart", repeat(100, refusals{"X-Amz-Checksum-Sha256": refuse}.answer)...)
			conditional := false
			p.fail("CompleteMultipartUpload", func(p *proxy, w http.ResponseWriter, r *http.Request) {
				conditional = r.Header.Get("If-None-Match") == "*"
				pass(p, w, r)
			})
			if err := p.open(t).Create(t.Context(), "key", stream(content(large))); err != nil {
				t.Fatal(err)
			}
			p.wantStored(t, "key", content(large))
			if !conditional {
				t.Error("the upload was completed without a condition")
			}
		})
	}
}

// TestCreate_ChecksumInsistedOn: a checksum that was chosen by name is used,
// or uploads fail.
func TestCreate_ChecksumInsistedOn(t *testing.T) {
	p := startProxy(t)
	p.fail("PutObject", repeat(3, refusals{
		"X-Amz-Checksum-Sha256": answer(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'"),
	}.answer)...)
	s := p.open(t, func(o *s3.Options) { o.Checksum = s3.ChecksumSHA256 })
	if err := s.Create(t.Context(), "key", stream(content(small))); err == nil {
		t.Fatal("created without the checksum")
	}
	p.wantAbsent(t, "key")
}

// TestCreate_NotRefused: an answer of something in between, such as a load balancer, is no
// proof that the service lacks create-if-absent.
func TestCreate_NotRefused(t *testing.T) {
	unnamed := answer(501, "NotImplemented", "")
	page := func(_ *proxy, w http.ResponseWriter, r *http.Request) {
		readBody(r)
		w.WriteHeader(http.StatusNotImplemented)
		fmt.Fprint(w, "<html>not now</html>")
	}
	for name, c := range map[string]struct {
		faults    []fault
		ok, later bool // the upload succeeds; the condition comes back only after a while
	}{
		"Once":      {[]fault{unnamed}, true, false},
		"OncePage":  {[]fault{page}, true, false},
		"Twice":     {[]fault{unnamed, unnamed}, true, true},
		"Always":    {repeat(20, unnamed), false, false},
		"5xx":       {[]fault{answer(502, "", ""), answer(504, "", "If-None-Match")}, true, false},
		"ThreePage": {[]fault{page, page, page}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			s := p.open(t)
			conditional := func(key string) bool {
				t.Helper()
				found := false
				p.mu.Lock()
				p.faults["PutObject"] = []fault{func(p *proxy, w http.ResponseWriter, r *http.Request) {
					found = r.Header.Get("If-None-Match") == "*"
					pass(p, w, r)
				}}
				p.mu.Unlock()
				if err := s.Create(t.Context(), key, stream(content(small))); err != nil {
					t.Fatal(err)
				}
				return found
			}
			p.fail("PutObject", c.faults...)
			if err := s.Create(t.Context(), "first", stream(content(small))); (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			if got := conditional("second"); got == c.later {
				t.Errorf("the next upload has a condition: %v", got)
			}
			s.Lapse()
			if !conditional("third") {
				t.Error("the condition did not come back")
			}
		})
	}
}
