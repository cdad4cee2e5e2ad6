package s3

import (
	"crypto/md5" // some services want no better one
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

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
	features features // guarded by mu, like what follows
	// full are the features without those that it named as refused. Until then it is
	// believed not to have the others; zero: there are none.
	full  features
	until time.Time
}

// believed is how long a service is believed not to have a feature that it has not named:
// the answer may have come from something in between.
const believed = 10 * time.Minute

func newService(o *Options) *service {
	s := &service{
		bucket: o.Bucket, checksum: o.Checksum, log: o.Logger,
		features: features{checksum: o.Checksum, conditional: true},
	}
	if o.Checksum == ChecksumAuto {
		s.features.checksum = ChecksumSHA256
	}
	s.full = s.features
	return s
}

func (s *service) currentFeatures() features {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() && time.Now().After(s.until) {
		s.features, s.until = s.full, time.Time{}
	}
	return s.features
}

// reinstate is for a request that was refused without the features, too: they were not the
// reason.
func (s *service) reinstate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.features, s.until = s.full, time.Time{}
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
// refuses one that is not necessary. A feature that it names as refused is not tried again.
// One that it does not name is, after a while, and one such answer alone is no refusal.
func (s *service) withFeatures(in scope, do func(features) error) error {
	for unnamed := 0; ; {
		used := s.currentFeatures()
		err := do(used)
		if err == nil {
			return nil
		}
		refused, named := refusal(err)
		if !named && refused != (scope{}) {
			if unnamed++; unnamed == 1 {
				continue
			}
		}
		if !s.concede(err, in, used) {
			if unnamed > 0 {
				s.reinstate()
			}
			return err
		}
	}
}

// concede reports whether a refused request is worth another attempt with other
// features than those it used.
func (s *service) concede(err error, in scope, used features) bool {
	refused, named := refusal(err)
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
		s.full.conditional = s.full.conditional && !named
		s.log.Warn("the S3 service has no create-if-absent (If-None-Match): asking before each upload instead",
			"named", named, "err", explain(s.bucket, err))
	case refusesChecksum && used.checksum == ChecksumSHA256 && s.checksum == ChecksumAuto:
		s.features.checksum = ChecksumMD5
		if named {
			s.full.checksum = ChecksumMD5
		}
		s.log.Warn("the S3 service knows no SHA-256 checksum: using Content-MD5",
			"named", named, "err", explain(s.bucket, err))
	default:
		return false
	}
	if !named {
		s.until = time.Now().Add(believed)
	}
	return true
}

// refusal finds out which features the service refuses, and whether it names them. An
// answer of 501 may be about any of them; one of 400 must name the feature.
func refusal(err error) (refused scope, named bool) {
	code, status, message := response(err)
	message = strings.ToLower(message)
	in := scope{
		checksum:  strings.Contains(message, "checksum"),
		condition: strings.Contains(message, "if-none-match") || strings.Contains(message, "conditional"),
	}
	switch {
	case status == http.StatusNotImplemented && in == scope{}:
		return scope{checksum: true, condition: true}, false
	case status == http.StatusNotImplemented,
		status == http.StatusBadRequest && (code == "InvalidArgument" || code == "InvalidRequest"):
		return in, true
	}
	return scope{}, false
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
	sum := md5.Sum(body) // see above
	return aws.String(base64.StdEncoding.EncodeToString(sum[:]))
}
