package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

const (
	small = 1000
	large = 11 << 20 // three parts
)

var noise = sync.OnceValue(func() []byte {
	raw := make([]byte, large)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return raw
})

// content returns n bytes, which must not be changed.
func content(n int) []byte { return noise()[:n:n] }

// stream hides that a reader could be rewound.
func stream(raw []byte) io.Reader { return io.MultiReader(bytes.NewReader(raw)) }

// wantStored checks, without the proxy, that the server has exactly raw.
func (p *proxy) wantStored(t *testing.T, key string, raw []byte) {
	t.Helper()
	got, err := p.server.Do(context.WithoutCancel(t.Context()), http.MethodGet, "some/prefix/"+key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, raw) {
		t.Fatalf("%s: the server has %d bytes that are not the %d created", key, len(got), len(raw))
	}
}

func (p *proxy) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if _, err := p.server.Do(context.WithoutCancel(t.Context()), http.MethodHead, "some/prefix/"+key, nil); err == nil {
		t.Fatalf("%s is there", key)
	}
}

// TestCreate_Survives runs a Create through every fault that the next attempt
// gets over.
func TestCreate_Survives(t *testing.T) {
	faults := map[string]fault{
		"ResponseLost":   dropResponse,
		"RequestLost":    dropRequest,
		"InternalError":  answer(500, "InternalError", "try again"),
		"SlowDown":       answer(503, "SlowDown", "try again"),
		"BadGateway":     answer(502, "", "<html>"),
		"RequestTimeout": answer(408, "RequestTimeout", "try again"),
		"TooMany":        answer(429, "TooManyRequests", "try again"),
		"Conflict":       answer(409, "ConditionalRequestConflict", "try again"),
		"Canceled":       answer(400, "RequestCanceled", "try again"),
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			// A new upload that nobody knows of is left when the answer to its
			// beginning is lost; AbortStaleUploads is there for those.
			if name != "ResponseLost" {
				checkNoUploads(t, p.server)
			}
			for _, op := range []string{"PutObject", "CreateMultipartUpload", "CompleteMultipartUpload"} {
				p.fail(op, f, f)
			}
			p.fail("UploadPart", f, pass, f, f)
			s := p.open(t)
			for key, n := range inOrder {
				if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
					t.Fatalf("create %s: %v", key, err)
				}
				p.wantStored(t, key, content(n))
			}
		})
	}
}

func TestCreate_ErrorIn200(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	p.fail("CompleteMultipartUpload", answer(200, "InternalError", "try again"))
	if err := p.open(t).Create(t.Context(), "large", stream(content(large))); err != nil {
		t.Fatal(err)
	}
	p.wantStored(t, "large", content(large))
}

// TestCreate_AllAnswersLost: no answer says that the object was stored.
func TestCreate_AllAnswersLost(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	p.fail("PutObject", append(repeat(1, dropResponse), repeat(9, dropRequest)...)...)
	p.fail("CompleteMultipartUpload", append(repeat(1, dropResponse), repeat(9, dropRequest)...)...)
	s := p.open(t)
	for key, n := range inOrder {
		if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
			t.Fatalf("create %s: %v", key, err)
		}
		p.wantStored(t, key, content(n))
	}
}

func TestCreate_GivesUp(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	for _, op := range []string{"PutObject", "UploadPart"} {
		p.fail(op, repeat(40, answer(503, "SlowDown", "not now"))...)
	}
	s := p.open(t)
	for key, n := range inOrder {
		err := s.Create(t.Context(), key, stream(content(n)))
		if err == nil || !strings.Contains(err.Error(), "503 SlowDown: not now (10 attempts)") {
			t.Fatalf("create %s: got error %v", key, err)
		}
		p.wantAbsent(t, key)
	}
	if n := p.count("PutObject"); n != 10 {
		t.Fatalf("%d attempts", n)
	}
}

// TestCreate_ExistsAfterRetry: a lost answer must not make another's object
// ours, not even one of the same length.
func TestCreate_ExistsAfterRetry(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	direct := open(t, options(t, p.server))
	p.fail("PutObject", dropRequest)
	p.fail("CompleteMultipartUpload", dropRequest)
	s := p.open(t)
	for key, n := range inOrder {
		theirs := make([]byte, n)
		if err := direct.Create(t.Context(), key, stream(theirs)); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), key, stream(content(n))); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("create %s: got error %v, want fs.ErrExist", key, err)
		}
		p.wantStored(t, key, theirs)
	}
}

func TestCreate_Forbidden(t *testing.T) {
	for _, op := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
		t.Run(op, func(t *testing.T) {
			p := startProxy(t)
			checkNoUploads(t, p.server)
			p.fail(op, repeat(10, answer(403, "AccessDenied", "Access Denied."))...)
			n := large
			if op == "PutObject" {
				n = small
			}
			err := p.open(t).Create(t.Context(), "key", stream(content(n)))
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "403 AccessDenied: Access Denied") {
				t.Fatalf("got error %v, want fs.ErrPermission", err)
			}
			if p.count(op) > 2*3 { // each of the parts in flight once more: see onceMore
				t.Fatalf("%d attempts", p.count(op))
			}
			p.wantAbsent(t, "key")
		})
	}
}

// TestCreate_AbortForbidden: credentials that may not abort an upload do not turn the fault of
// the service into a lack of permission, which nobody tries again.
func TestCreate_AbortForbidden(t *testing.T) {
	p := startProxy(t)
	p.fail("UploadPart", repeat(100, answer(503, "SlowDown", "no"))...)
	p.fail("AbortMultipartUpload", repeat(10, answer(403, "AccessDenied", "no"))...)
	err := p.open(t).Create(t.Context(), "key", stream(content(large)))
	if err == nil || errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "503 SlowDown") ||
		!strings.Contains(err.Error(), "abort multipart upload: 403 AccessDenied") {
		t.Errorf("got %v", err)
	}
}

// TestRefused_OnceMore: a bit that was flipped on its way makes a service refuse a request
// that is right. It is sent once more, and after a second refusal no more.
func TestRefused_OnceMore(t *testing.T) {
	signature := answer(403, "SignatureDoesNotMatch", "no")
	p := startProxy(t)
	checkNoUploads(t, p.server)
	s := p.open(t)
	if err := s.Create(t.Context(), "there", stream(content(small))); err != nil {
		t.Fatal(err)
	}
	n := 0
	create := func(size int) func() error {
		return func() error { n++; return s.Create(t.Context(), fmt.Sprint("key", n), stream(content(size))) }
	}
	for op, c := range map[string]struct {
		refusal fault
		do      func() error
	}{
		"PutObject":               {answer(403, "AccessDenied", "no"), create(small)},
		"CreateMultipartUpload":   {answer(400, "AuthorizationHeaderMalformed", "no"), create(large)},
		"UploadPart":              {signature, create(large)},
		"CompleteMultipartUpload": {answer(400, "MalformedXML", "no"), create(large)},
		"HeadObject":              {answer(400, "", ""), func() error { _, err := s.Stat(t.Context(), "there"); return err }},
		"DeleteObject":            {signature, func() error { return s.Delete(t.Context(), "none") }},
		"GetObject": {signature, func() error {
			r, err := s.Open(t.Context(), "there", 0, -1)
			if err == nil {
				err = r.Close()
			}
			return err
		}},
		"ListObjectsV2": {signature, func() (last error) {
			for _, err := range s.List(t.Context(), "", "") {
				last = err
			}
			return last
		}},
	} {
		p.fail(op, c.refusal)
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if op == "UploadPart" {
			continue // TestCreate_Forbidden has the parts
		}
		before := p.count(op)
		p.fail(op, c.refusal, c.refusal)
		if err := c.do(); err == nil || p.count(op) != before+2 {
			t.Errorf("%s: got %v after %d requests", op, err, p.count(op)-before)
		}
	}
	p.fail("DeleteObject", answer(403, "AccessDenied", "Access Denied because object protected by object lock."))
	if err := s.Delete(t.Context(), "there"); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("got %v", err)
	}
}

// TestCreate_UploadVanished: a Complete that finds no upload has not won.
func TestCreate_UploadVanished(t *testing.T) {
	p := startProxy(t)
	p.fail("CompleteMultipartUpload", answer(404, "NoSuchUpload", "gone"))
	err := p.open(t).Create(t.Context(), "key", stream(content(large)))
	if err == nil || !strings.Contains(err.Error(), "404 NoSuchUpload") {
		t.Fatalf("got error %v", err)
	}
	p.wantAbsent(t, "key")
}

// TestCreate_CancelledTooLate: the object was stored before the cancelling
// arrived, and Create says so.
func TestCreate_CancelledTooLate(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	for op, n := range map[string]int{"PutObject": small, "CompleteMultipartUpload": large} {
		ctx, cancel := context.WithCancel(t.Context())
		p.fail(op, func(p *proxy, _ http.ResponseWriter, r *http.Request) {
			if resp, err := p.forward(r, readBody(r)); err == nil {
				resp.Body.Close()
			}
			cancel()
			panic(http.ErrAbortHandler)
		})
		if err := p.open(t).Create(ctx, op, stream(content(n))); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		p.wantStored(t, op, content(n))
	}
}

// TestCreate_Cancelled stops while parts hang: at once, and nothing is left.
func TestCreate_Cancelled(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	ctx, cancel := context.WithCancel(t.Context())
	p.fail("UploadPart", func(p *proxy, w http.ResponseWriter, r *http.Request) {
		cancel()
		stall(p, w, r)
	}, stall, stall)
	if err := p.open(t).Create(ctx, "key", stream(content(large))); !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v", err)
	}
	p.wantAbsent(t, "key")
}

// TestCreate_SourceFailsWhilePartsHang: nobody waits for parts of an object
// that will not be.
func TestCreate_SourceFailsWhilePartsHang(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	broken := errors.New("the source broke")
	p.fail("UploadPart", stall, stall, stall)
	start := time.Now()
	err := p.open(t).Create(t.Context(), "key", io.MultiReader(bytes.NewReader(content(large)), brokenReader{broken}))
	if !errors.Is(err, broken) {
		t.Fatalf("got error %v", err)
	}
	if took := time.Since(start); took > 30*time.Second { // the progress timeout is 60 s
		t.Fatalf("took %v", took)
	}
	p.wantAbsent(t, "key")
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// TestCreate_Damaged: the server refuses what was damaged on the way, whatever
// the checksum, and the next attempt is intact.
func TestCreate_Damaged(t *testing.T) {
	for _, checksum := range []string{s3.ChecksumSHA256, s3.ChecksumMD5, s3.ChecksumNone} {
		t.Run(checksum, func(t *testing.T) {
			p := startProxy(t)
			checkNoUploads(t, p.server)
			p.fail("PutObject", flipBit)
			p.fail("UploadPart", flipBit, flipBit)
			s := p.open(t, func(o *s3.Options) { o.Checksum = checksum })
			for key, n := range inOrder {
				if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
					t.Fatalf("create %s: %v", key, err)
				}
				p.wantStored(t, key, content(n))
			}
		})
	}
}

func TestCreate_TooManyParts(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	s := p.open(t).LimitParts(2)
	err := s.Create(t.Context(), "key", stream(content(large)))
	if err == nil || !strings.Contains(err.Error(), "more than 2 parts") {
		t.Fatalf("got error %v", err)
	}
	p.wantAbsent(t, "key")
	if err := s.Create(t.Context(), "key", stream(content(10<<20))); err != nil {
		t.Fatal(err)
	}
}

// TestProgressTimeout: whatever hangs is tried again.
func TestProgressTimeout(t *testing.T) {
	p := startProxy(t)
	checkNoUploads(t, p.server)
	for _, op := range []string{
		"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
		"GetObject", "HeadObject", "ListObjectsV2",
	} {
		p.fail(op, stall)
	}
	s := p.open(t, func(o *s3.Options) { o.ProgressTimeout = 300 * time.Millisecond })
	for key, n := range inOrder {
		if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
			t.Fatalf("create %s: %v", key, err)
		}
		p.wantStored(t, key, content(n))
	}
	o, err := s.Stat(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	p.fail("GetObject", pass, stallAfter(1<<20))
	for range 2 {
		r := storage.Download(t.Context(), s, o)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content(large)) {
			t.Fatalf("read %d bytes, error %v", len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpen_Stalled(t *testing.T) {
	p := startProxy(t)
	s := p.open(t, func(o *s3.Options) { o.ProgressTimeout = 300 * time.Millisecond })
	if err := s.Create(t.Context(), "key", stream(content(large))); err != nil {
		t.Fatal(err)
	}
	p.fail("GetObject", stallAfter(1000))
	r, err := s.Open(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err = io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "no byte moved in 300ms") {
		t.Fatalf("got error %v", err)
	}
}

func TestOpen_Cut(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	if err := s.Create(t.Context(), "key", stream(content(large))); err != nil {
		t.Fatal(err)
	}
	p.fail("GetObject", cutAfter(100_000))
	r, err := s.Open(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if len(got) > 100_000 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read %d bytes, error %v, want io.ErrUnexpectedEOF", len(got), err)
	}
	_ = r.Close()

	cuts := []fault{cutAfter(1), cutAfter(1 << 20), cutAfter(0), cutAfter(12345), pass, cutAfter(3 << 20)}
	p.fail("GetObject", append(cuts, cuts...)...)
	if err := s.Create(t.Context(), "range", stream(content(7<<20))); err != nil {
		t.Fatal(err)
	}
	for key, size := range map[string]int{"key": large, "range": 7 << 20} { // of two ranges and of one
		o, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		r := storage.Download(t.Context(), s, o)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content(size)) {
			t.Fatalf("%s: read %d bytes, error %v", key, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDownload_Replaced: bytes of two objects never mix.
func TestDownload_Replaced(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	const size = 7 << 20 // one range
	if err := s.Create(t.Context(), "key", stream(content(size))); err != nil {
		t.Fatal(err)
	}
	o, err := s.Stat(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	p.fail("GetObject", cutAfter(1<<20), func(p *proxy, w http.ResponseWriter, r *http.Request) {
		err := errors.Join(
			s.Delete(t.Context(), "key"),
			s.Create(t.Context(), "key", stream(make([]byte, size))),
		)
		if err != nil {
			t.Error(err)
		}
		pass(p, w, r)
	})
	r := storage.Download(t.Context(), s, o)
	defer r.Close()
	if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "replaced while it was read") {
		t.Fatalf("got error %v", err)
	}
}
