package s3

import (
	"crypto/md5" //nolint:gosec // some services want no better one
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// features are those that the service is believed to have.
type features struct {
	checksum    string // ChecksumSHA256, ChecksumMD5 or ChecksumNone
	conditional bool   // If-None-Match on uploads
}

// service is what uploads have found out about the service so far.
type service struct {
	bucket   string
	checksum string // Options.Checksum
	log      *slog.Logger

	mu       sync.Mutex
	features features // guarded by mu
}

func newService(o *Options) *service {
	s := &service{
		bucket: o.Bucket, checksum: o.Checksum, log: o.Logger,
		features: features{checksum: o.Checksum, conditional: true},
	}
	if o.Checksum == ChecksumAuto {
		s.features.checksum = ChecksumSHA256
	}
	return s
}

func (s *service) currentFeatures() features {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.features
}

// scope says which features a kind of request uses. The others cannot be the
// reason for a refusal.
type scope struct{ checksum, condition bool }

var (
	inPut      = scope{checksum: true, condition: true}
	inParts    = scope{checksum: true}
	inComplete = scope{condition: true}
)

// withFeatures calls do, and again with fewer features as long as the service
// refuses one that is not necessary. This store does not try a refused feature
// again.
func (s *service) withFeatures(in scope, do func(features) error) error {
	for {
		used := s.currentFeatures()
		err := do(used)
		if err == nil || !s.concede(err, in, used) {
			return err
		}
	}
}

// concede reports whether a refused request is worth another attempt with other
// features than those it used.
func (s *service) concede(err error, in scope, used features) bool {
	refused := refusal(err)
	refusesChecksum, refusesCondition := refused.checksum && in.checksum, refused.condition && in.condition
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !refusesChecksum && !refusesCondition:
		return false
	case s.features != used:
		return true // another upload has found out already
	case refusesCondition && used.conditional:
		s.features.conditional = false
		s.log.Warn("the S3 service has no create-if-absent (If-None-Match): asking before each upload instead",
			"err", explain(s.bucket, err))
		return true
	case refusesChecksum && used.checksum == ChecksumSHA256 && s.checksum == ChecksumAuto:
		s.features.checksum = ChecksumMD5
		s.log.Warn("the S3 service knows no SHA-256 checksum: using Content-MD5", "err", explain(s.bucket, err))
		return true
	}
	return false
}

// refusal finds out which features the service refuses. An answer of 501 may be
// about any of them; one of 400 must name the feature.
func refusal(err error) scope {
	code, status, message := response(err)
	message = strings.ToLower(message)
	named := scope{
		checksum:  strings.Contains(message, "checksum"),
		condition: strings.Contains(message, "if-none-match") || strings.Contains(message, "conditional"),
	}
	switch {
	case status == http.StatusNotImplemented && named == scope{}:
		return scope{checksum: true, condition: true}
	case status == http.StatusNotImplemented:
		return named
	case status == http.StatusBadRequest && (code == "InvalidArgument" || code == "InvalidRequest"):
		return named
	}
	return scope{}
}

func (f features) ifNoneMatch() *string {
	if f.conditional {
		return aws.String("*")
	}
	return nil
}

// checksumSHA256 returns the header for a body with the SHA-256 sum, or nil if
// uploads have another checksum.
func (f features) checksumSHA256(sum [32]byte) *string {
	if f.checksum != ChecksumSHA256 {
		return nil
	}
	return aws.String(base64.StdEncoding.EncodeToString(sum[:]))
}

func (f features) contentMD5(body []byte) *string {
	if f.checksum != ChecksumMD5 {
		return nil
	}
	sum := md5.Sum(body) //nolint:gosec // see above
	return aws.String(base64.StdEncoding.EncodeToString(sum[:]))
}
