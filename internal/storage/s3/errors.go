package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// response returns the answer of the service: its error code and message, and the
// HTTP status. All are zero if it did not answer.
func response(err error) (code string, status int, message string) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		status = resp.HTTPStatusCode()
	}
	return code, status, message
}

func codeOf(err error) string {
	code, _, _ := response(err)
	return code
}

func statusOf(err error) int {
	_, status, _ := response(err)
	return status
}

// isNoSuchKey reports whether the service says that there is no such object. The status
// alone says nothing: whatever stands before the service answers 404 as well, and some
// services to an unknown access key.
func isNoSuchKey(err error) bool {
	code, status, message := response(err)
	return status == http.StatusNotFound &&
		(code == "NoSuchKey" || code == "NotFound" && !madeOfStatus(code, status, message))
}

// madeOfStatus reports whether the answer named no code. The SDK then makes one, and a
// message, of the status.
func madeOfStatus(code string, status int, message string) bool {
	text := http.StatusText(status)
	return code == "" || code == strings.ReplaceAll(text, " ", "") && message == text
}

// notFoundCodes are S3's own for what is missing. An answer of 404 without one of them is of
// something else.
var notFoundCodes = []string{
	"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NoSuchVersion", "NoSuchLifecycleConfiguration",
	"ObjectLockConfigurationNotFoundError",
}

func isForeign(err error) bool {
	code, status, _ := response(err)
	return status == http.StatusNotFound && !slices.Contains(notFoundCodes, code) && !isNoSuchKey(err)
}

// requestError is an error of the SDK in fewer words: "403 AccessDenied: ..."
type requestError struct {
	text string
	kind error // fs.ErrNotExist, fs.ErrPermission, storage.ErrLocked, backup.ErrArchived or nil
	err  error
}

func (e *requestError) Error() string { return e.text }

func (e *requestError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.err}
	}
	return []error{e.kind, e.err}
}

// explain translates an error of the SDK about a bucket. It returns nil for nil.
func explain(bucket string, err error) error {
	if err == nil {
		return nil
	}
	code, status, message := response(err)
	e := &requestError{err: err}
	switch {
	case code == "NoSuchBucket":
		e.kind, e.text = fs.ErrNotExist, fmt.Sprintf("bucket %s does not exist", bucket)
		return e
	case isNoSuchKey(err):
		e.kind = fs.ErrNotExist
	case isLocked(code, status, message):
		e.kind = storage.ErrLocked
	case code == archived:
		e.kind = backup.ErrArchived
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		e.kind = fs.ErrPermission
	}
	if status != 0 {
		e.text = answerText(code, status, message)
	} else {
		e.text = causeText(err)
	}
	var gaveUp *retry.MaxAttemptsError
	if errors.As(err, &gaveUp) {
		e.text += fmt.Sprintf(" (%d attempts)", gaveUp.Attempt)
	}
	if hint := hintFor(err, code, status); hint != "" {
		return backup.WithHint(e, "%s", hint)
	}
	return e
}

// isLocked reports whether an object is locked rather than forbidden. Most
// services, Amazon's first, call both AccessDenied, so that only the message
// shows the difference. Without such a message a locked object looks forbidden.
func isLocked(code string, status int, message string) bool {
	switch code {
	case "ObjectLocked", "ObjectUnderActiveHold", "RetentionPolicyNotMet", "FileImmutable":
		return true
	case "AccessDenied", "InvalidRequest", "MethodNotAllowed", "Forbidden":
	default:
		return false
	}
	message = strings.ToLower(message)
	return status/100 == 4 && slices.ContainsFunc([]string{"object lock", "worm", "legal hold", "retention period"},
		func(word string) bool { return strings.Contains(message, word) })
}

func answerText(code string, status int, message string) string {
	text := strconv.Itoa(status)
	// An answer to HEAD has no body; the SDK then makes a code of the status.
	if code != "" && code != text {
		text += " " + code
	} else {
		text += " " + http.StatusText(status)
	}
	if message != "" && message != http.StatusText(status) {
		text += ": " + strings.TrimSuffix(message, ".")
	}
	return text
}

// causeText drops the layers of the SDK, each of which says that something
// failed.
func causeText(err error) string {
	var creds *credentialsError
	if errors.As(err, &creds) {
		return creds.Error()
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	var canceled *smithy.CanceledError
	if errors.As(err, &canceled) && canceled.Err != nil {
		return canceled.Err.Error()
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		var gaveUp *retry.MaxAttemptsError
		if errors.As(op.Err, &gaveUp) {
			return gaveUp.Err.Error()
		}
		return op.Err.Error()
	}
	return err.Error()
}

// archived is the code for an object that a life-cycle rule has moved to a class of storage
// that does not give objects at once.
const archived = "InvalidObjectState"

// foreignHint is for answers that no service of S3 gives.
const foreignHint = "S3 does not answer so: see whether the endpoint is right, and which proxy or load balancer is " +
	"in between"

// unknownUser is versitygw's code for an unknown access key. Its status is 404.
const unknownUser = "XAdminUserNotFound"

func hintFor(err error, code string, status int) string {
	var (
		creds *credentialsError
		cert  *tls.CertificateVerificationError
		resp  *smithyhttp.ResponseError
	)
	switch {
	case errors.As(err, &creds):
		return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a credentials file, or run with a role"
	case errors.As(err, &cert):
		return "if the service has a certificate of a private authority, name its CA file"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the endpoint speaks plain HTTP: write it with http://"
	case code == "RequestTimeTooSkewed":
		return "set this machine's clock"
	case slices.Contains([]string{"InvalidAccessKeyId", "SignatureDoesNotMatch", unknownUser}, code):
		return "the access key or the secret key is wrong"
	case code == "ExpiredToken":
		return "the credentials have expired: renew them"
	case isForeign(err):
		return foreignHint
	}
	if status == http.StatusMovedPermanently && errors.As(err, &resp) {
		if region := resp.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			return "the bucket is in region " + region
		}
		return "the bucket is in another region"
	}
	if status == 0 {
		return unreachedHint(err)
	}
	return ""
}

// unreachedHint names the endpoint of a service that does not answer.
func unreachedHint(err error) string {
	var u *url.Error
	if !errors.As(err, &u) || errors.Is(err, context.Canceled) {
		return ""
	}
	at, perr := url.Parse(u.URL)
	if perr != nil {
		return ""
	}
	return fmt.Sprintf("does the service run, is %s://%s its endpoint, and can this host reach it?", at.Scheme, at.Host)
}

// orContext returns the error of ctx if that has ended, rather than the error
// that its end has caused in a request.
func orContext(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	return err
}
