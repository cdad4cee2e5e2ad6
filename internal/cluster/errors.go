package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ErrPermission is returned if etcd's auth refuses a request.
var ErrPermission = errors.New("etcd refuses")

// Errors that a new login may cure.
var (
	errPassword = fmt.Errorf("%w: wrong user name or password", ErrPermission)
	errToken    = fmt.Errorf("%w: the login is no longer valid", ErrPermission)
	errOldToken = fmt.Errorf("%w, because users or roles have changed", errToken)
)

func loginRefused(err error) bool { return errors.Is(err, errPassword) || errors.Is(err, errToken) }

// NoMemberError is returned when no member could serve a snapshot. It says why
// each was passed over.
type NoMemberError struct {
	Refusals []Refusal
}

// Refusal says why one endpoint was passed over.
type Refusal struct {
	Endpoint string
	Err      error
}

func (e *NoMemberError) Error() string {
	parts := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		parts[i] = fmt.Sprintf("%s: %v", r.Endpoint, r.Err)
	}
	return "no member can serve a snapshot: " + strings.Join(parts, "; ")
}

func (e *NoMemberError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// ProxyError says that an endpoint belongs to no member: a proxy passes each request on to
// some member, as etcd's own grpc-proxy does. Which member gives an answer, or sends a
// database, is not known.
type ProxyError struct{ reason string }

func (e *ProxyError) Error() string {
	return "a proxy answers there, and not one member: " + e.reason
}

// InsecureError says that a member advertises a client URL that is less secure than the
// endpoints. Nobody connects to it.
type InsecureError struct{ URL, Why string }

func (e *InsecureError) Error() string {
	return fmt.Sprintf("it advertises %s, %s: nothing is sent there (name its https URL as an endpoint)", e.URL, e.Why)
}

func proxyError(format string, args ...any) error {
	return backup.WithHints(&ProxyError{fmt.Sprintf(format, args...)},
		"name the client URLs of the members themselves: --endpoints (ETCDCTL_ENDPOINTS)",
		"name the client URLs of the members themselves in endpoints")
}

// sameMember returns an error unless an answer is of the member that answered before.
func sameMember(first backup.MemberID, answer *pb.ResponseHeader) error {
	if second := backup.MemberID(answer.GetMemberId()); second != first {
		return proxyError("member %s has answered, and then member %s", first, second)
	}
	return nil
}

// rawPermissionDenied is the text by which etcd 3.5 refuses a snapshot: from a
// stream it sends the error of its auth store unchanged, without a code.
const rawPermissionDenied = "auth: permission denied"

// saidError is an error of etcd in its own words.
type saidError struct {
	said string
	err  error
}

func (e *saidError) Error() string { return "etcd says: " + e.said }
func (e *saidError) Unwrap() error { return e.err }

// explain turns etcd's answers into errors a person can act on.
func explain(err error) error {
	if err == nil {
		return nil
	}
	switch etcd := rpctypes.Error(err); {
	case errors.Is(etcd, rpctypes.ErrPermissionDenied) || status.Convert(err).Message() == rawPermissionDenied:
		return backup.WithHint(fmt.Errorf("%w: permission denied: the user lacks the role root", ErrPermission),
			"snapshots and HashKV need etcd's role root: etcdctl user grant-role USER root")
	case errors.Is(etcd, rpctypes.ErrAuthFailed):
		return backup.WithHint(errPassword, "check the user name, and the password or its file")
	case errors.Is(etcd, rpctypes.ErrInvalidAuthToken):
		return errToken
	case errors.Is(etcd, rpctypes.ErrAuthOldRevision):
		return errOldToken
	case errors.Is(etcd, rpctypes.ErrUserEmpty):
		return backup.WithHints(fmt.Errorf("%w: auth is enabled and no user was given", ErrPermission),
			"give --user NAME:PASSWORD (ETCDCTL_USER) of a user with the role root",
			"give user and password-file of a user with the role root")
	case errors.Is(etcd, rpctypes.ErrUserNotFound):
		const otherwise = " of a user with the role root; without it the common name of the client certificate is the user"
		return backup.WithHints(fmt.Errorf("%w: no such user", ErrPermission),
			"give --user NAME:PASSWORD"+otherwise, "give user and password-file"+otherwise)
	case errors.Is(etcd, rpctypes.ErrAuthNotEnabled):
		return backup.WithHints(err, "auth is not enabled on this cluster: leave --user out",
			"auth is not enabled on this cluster: leave user and password-file out")
	}
	switch said := status.Convert(err).Message(); {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", err)
	case status.Code(err) == codes.DeadlineExceeded:
		// The server watches our deadline too, and may notice first.
		return fmt.Errorf("no answer in time (%s): %w", said, context.DeadlineExceeded)
	case status.Code(err) == codes.Unavailable:
		if strings.HasPrefix(said, "etcdserver: ") {
			return &saidError{said, err} // it is there, and cannot do it now
		}
		return newUnreachable(said)
	case status.Code(err) == codes.Unimplemented:
		return backup.WithHint(fmt.Errorf("what answers there does not know the request: %s", said),
			"is it an etcd, at least 3.4, and its client URL?")
	case status.Code(err) != codes.Unknown && status.Code(err) != codes.Canceled:
		return &saidError{said, err}
	}
	return err
}
