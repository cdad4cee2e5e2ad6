package s3_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestNew_Refuses(t *testing.T) {
	isolate(t)
	short := write(t, "short", "0123456789")
	key := write(t, "key", strings.Repeat("k", 32))
	creds := write(t, "creds", "[default]\naws_access_key_id=a\naws_secret_access_key=s\n")
	for name, o := range map[string]s3.Options{
		"no bucket":      {},
		"slash":          {Bucket: "a/b"},
		"prefix":         {Bucket: "b", Prefix: "a/../b", Region: "r"},
		"path style":     {Bucket: "b", PathStyle: "yes", Region: "r"},
		"checksum":       {Bucket: "b", Checksum: "crc", Region: "r"},
		"sse":            {Bucket: "b", SSE: "yes", Region: "r"},
		"kms key":        {Bucket: "b", SSEKMSKeyID: "k", Region: "r"},
		"two keys":       {Bucket: "b", SSE: s3.SSES3, SSECKeyFile: key, Region: "r"},
		"small parts":    {Bucket: "b", PartBytes: 1 << 20, Region: "r"},
		"no region":      {Bucket: "b"},
		"endpoint":       {Bucket: "b", Endpoint: "ftp://host"},
		"endpoint host":  {Bucket: "b", Endpoint: "http://"},
		"no CA file":     {Bucket: "b", Endpoint: "host", CAFile: "/no/such/file"},
		"empty CA file":  {Bucket: "b", Endpoint: "host", CAFile: key},
		"key over http":  {Bucket: "b", Endpoint: "http://host", SSECKeyFile: key},
		"short key":      {Bucket: "b", Endpoint: "host", SSECKeyFile: short},
		"no credentials": {Bucket: "b", Endpoint: "host", CredentialsFile: "/no/such/file"},
		"no profile":     {Bucket: "b", Endpoint: "host", CredentialsFile: creds, Profile: "p"},
		"no keys":        {Bucket: "b", Endpoint: "host", CredentialsFile: write(t, "creds", "[default]\nregion=x\n")},
	} {
		if s, err := s3.New(t.Context(), o); err == nil {
			t.Errorf("%s: got a store %v", name, s)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTLS(t *testing.T) {
	server := testserver.StartS3TLS(t)
	o := options(t, server)
	s := open(t, o)
	for key, n := range inOrder {
		if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(t.Context(), key, 10, -1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != string(content(n)[10:]) {
			t.Fatalf("read %d bytes, error %v", len(got), err)
		}
		_ = r.Close()
	}
	o.CAFile = ""
	start := time.Now()
	err := open(t, o).Create(t.Context(), "other", stream(nil))
	var hint *backup.HintError
	if err == nil || !strings.Contains(err.Error(), "certificate") || !errors.As(err, &hint) {
		t.Fatalf("got error %v", err)
	}
	// No attempt after the first would end otherwise.
	if took := time.Since(start); took > 10*time.Second || strings.Contains(err.Error(), "attempts") {
		t.Fatalf("took %v: %v", took, err)
	}
}

func TestCredentials_None(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	// A metadata service that takes connections and answers nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, metadata := range map[string]map[string]string{
		"Disabled": {"AWS_EC2_METADATA_DISABLED": "true"},
		"Silent": {
			"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + l.Addr().String(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range metadata {
				t.Setenv(name, value)
			}
			s := open(t, o)
			start := time.Now()
			_, err := s.Stat(t.Context(), "key")
			var hint *backup.HintError
			if err == nil || !strings.Contains(err.Error(), "no credentials") || !errors.As(err, &hint) {
				t.Fatalf("got error %v", err)
			}
			if took := time.Since(start); took > 12*time.Second {
				t.Fatalf("took %v", took)
			}
			t.Logf("after %v: %v", time.Since(start), err)
		})
	}
}

func TestCredentials_File(t *testing.T) {
	server := testserver.StartS3(t)
	o := options(t, server)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the file goes before the environment")
	o.CredentialsFile = write(t, "creds",
		"[other]\naws_access_key_id="+server.AccessKey+"\naws_secret_access_key="+server.SecretKey+"\n")
	o.Profile = "other"
	if err := open(t, o).Create(t.Context(), "key", stream(content(small))); err != nil {
		t.Fatal(err)
	}
}

// recorder is a service that takes everything and remembers the headers.
type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]http.Header // by operation; guarded by mu
	body int64                  // bytes taken; guarded by mu
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	rec := &recorder{seen: make(map[string]http.Header)}
	rec.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.body += n
		rec.seen[operation(r)] = r.Header.Clone()
		w.Header().Set("ETag", `"etag"`)
		switch operation(r) {
		case "CreateMultipartUpload":
			_, _ = io.WriteString(w,
				`<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>`)
		case "CompleteMultipartUpload":
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>`)
		}
	}))
	rec.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail here on purpose
	rec.StartTLS()
	t.Cleanup(rec.Close)
	return rec
}

func (rec *recorder) open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rec.Certificate().Raw})
	o.Bucket, o.Endpoint, o.CAFile = "bucket", rec.URL, write(t, "ca", string(cert))
	return open(t, o)
}

func (rec *recorder) want(t *testing.T, op string, headers map[string]string) {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for name, want := range headers {
		if got := rec.seen[op].Get(name); got != want && (want != "*" || got == "") {
			t.Errorf("%s: %s is %q, want %q", op, name, got, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	key := strings.Repeat("k", 32)
	customer := map[string]string{
		"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256",
		"X-Amz-Server-Side-Encryption-Customer-Key":       base64.StdEncoding.EncodeToString([]byte(key)),
		"X-Amz-Server-Side-Encryption-Customer-Key-Md5":   "mT2HRsMGJ5IX5C+0rreZ8Q==",
		"X-Amz-Server-Side-Encryption":                    "",
	}
	kms := map[string]string{
		"X-Amz-Server-Side-Encryption":                    "aws:kms",
		"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id":     "my-key",
		"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "true",
		"X-Amz-Storage-Class":                             "STANDARD_IA",
	}
	none := map[string]string{
		"X-Amz-Server-Side-Encryption": "", "X-Amz-Server-Side-Encryption-Customer-Algorithm": "",
		"X-Amz-Storage-Class": "",
	}
	for name, test := range map[string]struct {
		o           s3.Options
		write, read map[string]string
	}{
		"Plain":       {s3.Options{}, none, none},
		"CustomerKey": {s3.Options{SSECKeyFile: write(t, "key", key)}, customer, customer},
		"CustomerKeyBase64": {
			s3.Options{SSECKeyFile: write(t, "key", base64.StdEncoding.EncodeToString([]byte(key))+"\n")}, customer,
			customer,
		},
		"KMS": {s3.Options{SSE: s3.SSEKMS, SSEKMSKeyID: "my-key", StorageClass: "STANDARD_IA"}, kms, none},
	} {
		t.Run(name, func(t *testing.T) {
			rec := startRecorder(t)
			test.o.PartBytes = 5 << 20
			s := rec.open(t, test.o)
			for key, n := range inOrder {
				if err := s.Create(t.Context(), key, stream(content(n))); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Stat(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Open(t.Context(), "key", 0, -1); err != nil {
				t.Fatal(err)
			} else if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			rec.want(t, "PutObject", test.write)
			rec.want(t, "CreateMultipartUpload", test.write)
			rec.want(t, "HeadObject", test.read)
			rec.want(t, "GetObject", test.read)
			if name != "KMS" {
				rec.want(t, "UploadPart", test.read)
			}
			// Every body is signed and has a plain checksum; nothing is chunked.
			sent := map[string]string{
				"X-Amz-Checksum-Sha256": "*", "X-Amz-Content-Sha256": "*", "Content-Encoding": "", "X-Amz-Trailer": "",
			}
			rec.want(t, "PutObject", sent)
			rec.want(t, "UploadPart", sent)
			rec.want(t, "CreateMultipartUpload", map[string]string{"X-Amz-Checksum-Algorithm": "SHA256"})
			for _, op := range []string{"PutObject", "UploadPart"} {
				if h := rec.seen[op].Get("X-Amz-Content-Sha256"); len(h) != 64 {
					t.Errorf("%s: payload hash %q", op, h)
				}
			}
			for op, h := range rec.seen {
				if strings.Contains(h.Get("Authorization"), "accept-encoding") {
					t.Errorf("%s: signs Accept-Encoding", op)
				}
			}
			rec.want(t, "PutObject", map[string]string{"If-None-Match": "*"})
			rec.want(t, "CompleteMultipartUpload", map[string]string{"If-None-Match": "*"})
		})
	}
}

func TestTLS_AtLeast12(t *testing.T) {
	rec := startRecorder(t)
	rec.TLS.MaxVersion = tls.VersionTLS11
	_, err := rec.open(t, s3.Options{}).Hurry().Stat(t.Context(), "key")
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Fatalf("got error %v", err)
	}
}

func TestTLS_PlainServer(t *testing.T) {
	o := options(t, testserver.StartS3(t))
	o.Endpoint = strings.TrimPrefix(o.Endpoint, "http://") // https is assumed
	_, err := open(t, o).Stat(t.Context(), "key")
	var hint *backup.HintError
	if !errors.Is(err, http.ErrSchemeMismatch) || !errors.As(err, &hint) || strings.Contains(err.Error(), "attempts") {
		t.Fatalf("got error %v", err)
	}
}

// TestCreate_Memory uploads far more than its buffers hold.
func TestCreate_Memory(t *testing.T) {
	rec := startRecorder(t)
	s := rec.open(t, s3.Options{})
	const size, limit = 256 << 20, 110 << 20 // four buffers of 16 MiB, and the service in this process
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Create(t.Context(), "key", io.LimitReader(zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if rec.body < size {
		t.Fatalf("%d bytes arrived", rec.body)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > limit {
		t.Fatalf("allocated %d MiB for an upload of %d MiB", n>>20, size>>20)
	} else {
		t.Logf("allocated %d MiB", n>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
