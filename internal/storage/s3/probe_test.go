package s3_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func probe(t *testing.T, s storage.Store) []backup.Finding {
	t.Helper()
	found := storage.Probe(t.Context(), s)
	for _, f := range found {
		t.Logf("%-22s %-8s %s [%s]", f.Subject, f.Level, f.Text, f.Hint)
	}
	return found
}

func textOf(found []backup.Finding, step string) string {
	for _, f := range found {
		if f.Subject == step {
			return f.Text
		}
	}
	return "no such step"
}

// wantNotOK compares the steps that are not ok.
func wantNotOK(t *testing.T, found []backup.Finding, want map[string]backup.Level) {
	t.Helper()
	got := map[string]backup.Level{}
	for _, f := range found {
		if f.Level != backup.LevelOK {
			got[f.Subject] = f.Level
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not ok (-want +got):\n%s", diff)
	}
}

func keys(t *testing.T, s storage.Store) []string {
	t.Helper()
	var out []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o.Key)
	}
	return out
}

func TestProbe(t *testing.T) {
	server := testserver.StartS3(t)
	checkNoUploads(t, server)
	s := open(t, options(t, server))
	found := probe(t, s)
	wantNotOK(t, found, map[string]backup.Level{})
	if got := textOf(found, "checksums"); !strings.Contains(got, "SHA-256") {
		t.Errorf("checksums: %s", got)
	}
	if got := textOf(found, "object lock"); got != "off" {
		t.Errorf("object lock: %s", got)
	}
	if left := keys(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestProbe_Locked: a bucket whose new objects are locked.
func TestProbe_Locked(t *testing.T) {
	p := startProxy(t)
	p.fail("GetBucketVersioning", text(`<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`))
	p.fail("GetObjectLockConfiguration", text(`<ObjectLockConfiguration>`+
		`<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>`+
		`<Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>`))
	found := probe(t, p.open(t))
	wantNotOK(t, found, map[string]backup.Level{})
	if got := textOf(found, "versioning"); !strings.HasPrefix(got, "on") {
		t.Errorf("versioning: %s", got)
	}
	if got := textOf(found, "object lock"); got != "on: new objects are locked for 30 days (COMPLIANCE)" {
		t.Errorf("object lock: %s", got)
	}
}

// TestProbe_Lifecycle: a rule of the bucket that goes by the age of objects removes the
// marker first. Only rules that can meet objects of the repository count.
func TestProbe_Lifecycle(t *testing.T) {
	rule := func(filter, action string) string {
		return `<Rule><ID>old</ID><Status>Enabled</Status>` + filter + action + `</Rule>`
	}
	const expires, prefix = `<Expiration><Days>90</Days></Expiration>`, `<Filter><Prefix>%s</Prefix></Filter>`
	archives := func(class string) string {
		return `<Transition><Days>30</Days><StorageClass>` + class + `</StorageClass></Transition>`
	}
	p := startProxy(t)
	s := p.open(t, func(o *s3.Options) { o.Prefix = "backups/etcd" })
	for name, c := range map[string]struct{ rules, want string }{
		"None":      {"", "none removes or archives"},
		"Bucket":    {rule(`<Filter></Filter>`, expires), "rule old deletes objects after 90 days"},
		"OldShape":  {rule(`<Prefix></Prefix>`, expires), "rule old deletes objects after 90 days"},
		"Above":     {rule(fmt.Sprintf(prefix, "back"), expires), "backupd.json first"},
		"Below":     {rule(fmt.Sprintf(prefix, "backups/etcd/prod/data/"), expires), "after 90 days"},
		"Elsewhere": {rule(fmt.Sprintf(prefix, "logs/"), expires), "none removes or archives"},
		"Date": {
			rule(`<Filter></Filter>`, `<Expiration><Date>2030-01-02T00:00:00Z</Date></Expiration>`), "from 2030-01-02 on",
		},
		"Tagged": {
			rule(`<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>`, expires), "none removes or archives",
		},
		"Disabled": {
			strings.Replace(rule(`<Filter></Filter>`, expires), "Enabled", "Disabled", 1), "none removes or archives",
		},
		"Archive":     {rule(`<Filter></Filter>`, archives("GLACIER")), "rule old moves objects to GLACIER after 30 days"},
		"DeepArchive": {rule(`<Filter></Filter>`, archives("DEEP_ARCHIVE")), "DEEP_ARCHIVE after 30 days"},
		"Instant":     {rule(`<Filter></Filter>`, archives("GLACIER_IR")), "none removes or archives"},
		"Harmless": {
			rule(`<Filter></Filter>`, `<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>`+
				`</NoncurrentVersionExpiration><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>`+
				`</Expiration>`), "none removes or archives",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.fail("GetBucketLifecycleConfiguration",
				text(`<LifecycleConfiguration>`+c.rules+`</LifecycleConfiguration>`))
			found := s.Inspect(t.Context(), "folder")
			if got := textOf(found, "life-cycle rules"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			want := map[string]backup.Level{}
			if !strings.HasPrefix(c.want, "none") {
				want["life-cycle rules"] = backup.LevelWarning
			}
			wantNotOK(t, found, want)
		})
	}
}

func text(body string) fault {
	return func(_ *proxy, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// ignoreCondition stores an object as a service does that knows conditions for
// reading only.
func ignoreCondition(p *proxy, w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	in := &awss3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(readBody(r))}
	out, err := plainClient(p.server).PutObject(r.Context(), in)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("ETag", *out.ETag)
}

// ignoreConditionAtEnd does so when an upload in parts is completed.
func ignoreConditionAtEnd(p *proxy, w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	id := r.URL.Query().Get("uploadId")
	readBody(r)
	in := &awss3.ListPartsInput{Bucket: &bucket, Key: &key, UploadId: &id}
	parts, err := plainClient(p.server).ListParts(r.Context(), in)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	done := &types.CompletedMultipartUpload{}
	for _, part := range parts.Parts {
		done.Parts = append(done.Parts, types.CompletedPart{
			ETag: part.ETag, PartNumber: part.PartNumber, ChecksumSHA256: part.ChecksumSHA256,
		})
	}
	_, err = plainClient(p.server).CompleteMultipartUpload(r.Context(), &awss3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: &key, UploadId: &id, MultipartUpload: done,
	})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>`)
}

// otherBytes answers for the right range with bytes of another one.
func otherBytes(p *proxy, w http.ResponseWriter, r *http.Request) {
	resp, err := p.forward(r, nil)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	copyHeader(w, resp)
	w.WriteHeader(resp.StatusCode)
	if resp.StatusCode == http.StatusPartialContent {
		slices.Reverse(body)
	}
	_, _ = w.Write(body)
}

// wholeObject answers without looking at the range.
func wholeObject(p *proxy, w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	out, err := plainClient(p.server).GetObject(r.Context(), &awss3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		pass(p, w, r) // it is not there
		return
	}
	defer out.Body.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(*out.ContentLength, 10))
	_, _ = io.Copy(w, out.Body)
}

// shortListing answers with one key where pages are asked for, and says that it
// is all.
func shortListing(p *proxy, w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("max-keys") == "" {
		pass(p, w, r)
		return
	}
	prefix := r.URL.Query().Get("prefix")
	fmt.Fprintf(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`+
		`<Contents><Key>%sB</Key><Size>1</Size></Contents></ListBucketResult>`, prefix)
}

// TestProbe_OtherServices: each fault of a service is reported at its step.
func TestProbe_OtherServices(t *testing.T) {
	const failure, warning = backup.LevelFailure, backup.LevelWarning
	unsupported := answer(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'")
	noCondition := refusals{"If-None-Match": answer(501, "NotImplemented", "If-None-Match is not supported")}
	for name, c := range map[string]struct {
		faults map[string]fault
		want   map[string]backup.Level
		step   string
		text   string
	}{
		"IgnoresCondition": {
			map[string]fault{"PutObject": ignoreCondition},
			map[string]backup.Level{"create if absent": failure}, "create if absent", "If-None-Match",
		},
		"IgnoresConditionInParts": {
			map[string]fault{"CompleteMultipartUpload": ignoreConditionAtEnd},
			map[string]backup.Level{"large object if absent": failure}, "large object if absent", "If-None-Match",
		},
		"RefusesCondition": {
			map[string]fault{
				"PutObject": noCondition.answer, "CompleteMultipartUpload": noCondition.answer,
			},
			map[string]backup.Level{"conditional writes": warning},
			"conditional writes", "checks for the key before each upload",
		},
		"RefusesChecksum": {
			map[string]fault{
				"PutObject":             refusals{"X-Amz-Checksum-Sha256": unsupported}.answer,
				"UploadPart":            refusals{"X-Amz-Checksum-Sha256": unsupported}.answer,
				"CreateMultipartUpload": refusals{"X-Amz-Checksum-Algorithm": unsupported}.answer,
			},
			map[string]backup.Level{}, "checksums", "MD5",
		},
		"LiesInRanges": {
			map[string]fault{"GetObject": otherBytes},
			map[string]backup.Level{"read ranges": failure, "large object": failure}, "read ranges", "other bytes",
		},
		"IgnoresRanges": {
			map[string]fault{"GetObject": wholeObject},
			map[string]backup.Level{"read ranges": failure, "large object": failure}, "read ranges",
			"ignored the range",
		},
		"LosesPages": {
			map[string]fault{"ListObjectsV2": shortListing},
			map[string]backup.Level{"list pages": failure}, "list pages", "pages of two",
		},
		"NoVersioning": {
			map[string]fault{
				"GetBucketVersioning":        answer(501, "NotImplemented", "no"),
				"GetObjectLockConfiguration": answer(403, "AccessDenied", "no"),
			},
			map[string]backup.Level{}, "object lock", "not known: 403 AccessDenied",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			checkNoUploads(t, p.server)
			for op, f := range c.faults {
				p.fail(op, repeat(100, f)...)
			}
			s := p.open(t)
			found := probe(t, s)
			wantNotOK(t, found, c.want)
			if got := textOf(found, c.step); !strings.Contains(got, c.text) {
				t.Errorf("%s: got %q, want %q", c.step, got, c.text)
			}
			if left := keys(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// allow lets a user of the real server do what a policy says.
func allow(t *testing.T, server, user *testserver.S3, policy string) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(policy), &doc); err != nil {
		t.Fatal(err)
	}
	for _, s := range doc["Statement"].([]any) {
		// A policy of a bucket names its users; one of a user does not.
		s.(map[string]any)["Principal"] = map[string]any{"AWS": user.AccessKey}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	in := &awss3.PutBucketPolicyInput{Bucket: &server.Bucket, Policy: &text}
	if _, err := plainClient(server).PutBucketPolicy(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// TestPolicy_IsEnough: with the policy, and nothing else, everything works on a
// real server; without the right to delete everything but that.
func TestPolicy_IsEnough(t *testing.T) {
	for name, prefix := range map[string]string{"Prefix": "some/prefix", "Bucket": ""} {
		t.Run(name, func(t *testing.T) {
			server := testserver.StartS3Users(t)
			user := server.AddUser(t, "writer")
			o := options(t, user)
			o.Prefix = prefix
			allow(t, server, user, policyOf(t, o, true))
			s := open(t, o)
			wantNotOK(t, probe(t, s), map[string]backup.Level{})
			if _, err := s.AbortStaleUploads(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if left := keys(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}

			allow(t, server, user, policyOf(t, o, false))
			found := probe(t, s)
			wantNotOK(t, found, map[string]backup.Level{"delete": backup.LevelWarning})
			left := keys(t, s)
			if len(left) < 6 {
				t.Errorf("left: %q", left)
			}
			for _, key := range left {
				if !strings.Contains(textOf(found, "delete"), key) {
					t.Errorf("the warning does not name %s", key)
				}
			}
		})
	}
	t.Run("OtherPrefix", func(t *testing.T) {
		server := testserver.StartS3Users(t)
		user := server.AddUser(t, "writer")
		o := options(t, user)
		o.Prefix = "mine"
		allow(t, server, user, policyOf(t, o, true))
		o.Prefix = "another"
		found := probe(t, open(t, o))
		wantNotOK(t, found, map[string]backup.Level{"create": backup.LevelFailure})
		if !strings.Contains(found[0].Hint, "s3:PutObject") {
			t.Errorf("got %+v", found[0])
		}
	})
}

// TestPolicy_IsMinimal: without any of the actions some step fails.
func TestPolicy_IsMinimal(t *testing.T) {
	server := testserver.StartS3Users(t)
	user := server.AddUser(t, "writer")
	o := options(t, user)
	whole := policyOf(t, o, true)
	bucketActions := []string{
		"s3:ListBucket", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration",
		"s3:ListBucketMultipartUploads",
	}
	for _, action := range []string{
		"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject",
		"s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:ListBucketMultipartUploads",
		// Not s3:GetLifecycleConfiguration: the server knows no such rules.
	} {
		t.Run(action, func(t *testing.T) {
			without := strings.Replace(whole, `"`+action+`"`, `"s3:GetObjectTagging"`, 1)
			if slices.Contains(bucketActions, action) {
				without = strings.Replace(whole, `"`+action+`"`, `"s3:GetBucketTagging"`, 1)
			}
			if action == "s3:ListBucket" { // whose condition no other action of a bucket has
				without = strings.Replace(without, "StringLike", "StringNotLike", 1)
				without = strings.Replace(without, `"s3:GetBucketTagging"`, `"s3:ListBucketVersions"`, 1)
			}
			allow(t, server, user, without)
			s := open(t, o)
			missed := false
			for _, f := range probe(t, s) {
				missed = missed || f.Level != backup.LevelOK || strings.HasPrefix(f.Text, "not known: 403")
			}
			if _, err := s.AbortStaleUploads(t.Context(), 0); err != nil {
				missed = true
			}
			if !missed {
				t.Error("everything works without it")
			}
		})
	}
}

func policyOf(t *testing.T, o s3.Options, mayDelete bool) string {
	t.Helper()
	p, err := s3.Policy(o, mayDelete)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicy_Text(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:1:key/k"
	for name, c := range map[string]struct {
		o    s3.Options
		want []string
		not  []string
	}{
		"Prefix": {
			s3.Options{Bucket: "b", Prefix: "/a/b/"},
			[]string{`"arn:aws:s3:::b/a/b/*"`, `"s3:prefix": "a/b/*"`}, []string{"kms", "Delete"},
		},
		"Bucket": {
			s3.Options{Bucket: "b"},
			[]string{`"arn:aws:s3:::b/*"`}, []string{"Condition"},
		},
		"China": {
			s3.Options{Bucket: "b", Region: "cn-north-1"},
			[]string{`"arn:aws-cn:s3:::b"`}, []string{"arn:aws:"},
		},
		"GovCloud": {
			s3.Options{Bucket: "b", Region: "us-gov-west-1"},
			[]string{`"arn:aws-us-gov:s3:::b"`}, []string{"arn:aws:"},
		},
		"OwnKey": {
			s3.Options{Bucket: "b", SSE: s3.SSEKMS},
			nil, []string{"kms"},
		},
		"KeyARN": {
			s3.Options{Bucket: "b", SSE: s3.SSEKMS, SSEKMSKeyID: arn},
			[]string{`"kms:GenerateDataKey"`, `"kms:Decrypt"`, `"` + arn + `"`}, nil,
		},
		"KeyID": {
			s3.Options{Bucket: "b", SSE: s3.SSEKMS, SSEKMSKeyID: "k"},
			[]string{`"arn:aws:kms:*:*:key/k"`}, nil,
		},
		"KeyAlias": {
			s3.Options{Bucket: "b", SSE: s3.SSEKMS, SSEKMSKeyID: "alias/k"},
			[]string{`"kms:ResourceAliases": "alias/k"`}, nil,
		},
		"AliasARN": {
			s3.Options{Bucket: "b", SSE: s3.SSEKMS, SSEKMSKeyID: "arn:aws:kms:r:1:alias/k"},
			[]string{`"kms:ResourceAliases": "alias/k"`}, nil,
		},
		"NoKMSHere": {
			s3.Options{Bucket: "b", SSE: s3.SSES3},
			nil, []string{"kms"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := policyOf(t, c.o, false)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("want %s in\n%s", want, got)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("want no %s in\n%s", not, got)
				}
			}
		})
	}
}
