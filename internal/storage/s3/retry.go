package s3

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const maxAttempts = 10

// backoff is the pause before another attempt: random, below a limit that
// doubles from base to most.
type backoff struct{ base, most time.Duration }

func (b backoff) pause(attempt int) time.Duration {
	limit := b.most
	if attempt < 30 { // a shift of more would overflow
		limit = min(b.base<<max(attempt-1, 0), b.most)
	}
	return rand.N(limit)
}

// attempts are how a request is tried: the pauses between attempts, and how long
// one may take.
type attempts struct {
	delay   backoff
	timeout time.Duration // of one attempt, apart from its body
	bucket  string
	log     *slog.Logger
}

func newAttempts(o *Options) attempts {
	return attempts{
		delay:   backoff{250 * time.Millisecond, 30 * time.Second},
		timeout: o.ProgressTimeout,
		bucket:  o.Bucket,
		log:     o.Logger,
	}
}

// retryer is the SDK's, with more patience and without its token bucket, which
// is empty after a long outage and then lets every call fail at once.
func (a *attempts) retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(isRetryable)}, o.Retryables...)
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
			say := a.log.Debug
			if attempt > 2 {
				say = a.log.Warn // by now people notice
			}
			say("S3 request failed, trying again", "attempt", attempt, "err", explain(a.bucket, err))
			return a.delay.pause(attempt), nil
		})
	})
}

// retryableCodes and retryableStatus are what the SDK's own lists lack.
var (
	retryableCodes = map[string]bool{
		"RequestCanceled":             true,
		"ConditionalRequestConflict":  true, // another conditional write of the key is under way
		"OperationAborted":            true,
		"InternalError":               true,
		"ServiceUnavailable":          true,
		"IncompleteBody":              true, // cut or damaged on the way
		"BadDigest":                   true,
		"XAmzContentChecksumMismatch": true,
		"XAmzContentSHA256Mismatch":   true,
	}
	retryableStatus = map[int]bool{408: true, 429: true}
)

func isRetryable(err error) aws.Ternary {
	var (
		creds  *credentialsError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
	)
	code, status, _ := response(err)
	switch {
	case errors.As(err, &creds):
		return aws.BoolTernary(creds.transient)
	case errors.As(err, &cert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return aws.FalseTernary // by itself the SDK retries all errors of a connection
	case retryableCodes[code] || retryableStatus[status] || errors.As(err, new(*damagedError)):
		return aws.TrueTernary
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return aws.UnknownTernary
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return aws.TrueTernary // an answer that was cut
	}
	return aws.UnknownTernary
}

// damagedError is the refusal of a request that may have been damaged on its way, for the
// first time.
type damagedError struct{ error }

func (e *damagedError) Unwrap() error { return e.error }

// mayBeDamaged reports whether a service can have refused a request because of a bit that
// was flipped on its way, or whether it was not the service that answered. A missing
// permission looks the same in a few services; it is believed at once unless a whole backup
// depends on it.
func mayBeDamaged(err error, operation string) bool {
	code, status, message := response(err)
	switch {
	case code == "InvalidObjectState" || isLocked(code, status, message):
		return false
	case status == http.StatusBadRequest:
		return true
	case status == http.StatusNotFound: // after HEAD, a GET asks once more
		return isForeign(err) && operation != "HeadObject"
	case status != http.StatusForbidden:
		return false
	}
	switch operation {
	case "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		return true
	}
	return code != "AccessDenied" && code != "Forbidden"
}

// tries is the key of the number of refusals of a request in its context.
type tries struct{}

// onceMore lets a request that was refused be tried once more: it may have been damaged on
// its way.
func onceMore(stack *middleware.Stack) error {
	count := middleware.FinalizeMiddlewareFunc("CountRefusals", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		return next.HandleFinalize(context.WithValue(ctx, tries{}, new(int)), in)
	})
	tell := middleware.FinalizeMiddlewareFunc("TellRefusal", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleFinalize(ctx, in)
		n, counted := ctx.Value(tries{}).(*int)
		if err != nil && counted && mayBeDamaged(err, awsmiddleware.GetOperationName(ctx)) {
			if *n++; *n == 1 {
				err = &damagedError{err}
			}
		}
		return out, meta, err
	})
	return errors.Join(stack.Finalize.Insert(count, "Retry", middleware.Before),
		stack.Finalize.Insert(tell, "Retry", middleware.After))
}

// slowestBytes per second is the speed for which an attempt has time. Parts in
// flight share the line, so this is far below the speed of any useful line.
const slowestBytes = 32 << 10

// limit ends an attempt that moves, but too slowly, so that another one
// is made. It spares GetObject, whose answer is read after the attempt.
func (a *attempts) limit(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("LimitAttempt", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		var limit time.Duration
		switch awsmiddleware.GetOperationName(ctx) {
		case "GetObject":
			return next.HandleFinalize(ctx, in)
		case "CompleteMultipartUpload":
			limit = 10 * time.Minute // some services copy everything now
		default:
			limit = a.timeout
			if req, ok := in.Request.(*smithyhttp.Request); ok && req.ContentLength > 0 {
				limit += time.Duration(req.ContentLength) * time.Second / slowestBytes
			}
		}
		attempt, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		out, meta, err := next.HandleFinalize(attempt, in)
		if err != nil && attempt.Err() != nil && ctx.Err() == nil {
			err = &stalledError{fmt.Sprintf("attempt not finished in %v", limit)}
		}
		return out, meta, err
	}), "Retry", middleware.After)
}

// unsignAcceptEncoding stops the SDK from signing a header that Google's
// service rewrites before it checks the signature.
func unsignAcceptEncoding(stack *middleware.Stack) error {
	_, _ = stack.Finalize.Remove("DisableAcceptEncodingGzip") // not every operation has it
	return nil
}

// signPayload signs the body by the hash that is known already. The SDK would
// compute it again over http, and leave the body unsigned over https.
func signPayload(sum [32]byte) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("SignPayload", func(
				ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
			) (middleware.FinalizeOutput, middleware.Metadata, error) {
				return next.HandleFinalize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
			}), "ComputePayloadHash", middleware.Before)
		})
	}
}
