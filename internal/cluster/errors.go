package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// rawPermissionDenied is the text by which etcd 3.5 refuses a snapshot: from a
// stream it sends the error of its auth store unchanged, without a code.
const rawPermissionDenied = "auth: permission denied"

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
	case errors.Is(etcd, rpctypes.ErrUserEmpty):
		return backup.WithHint(fmt.Errorf("%w: auth is enabled and no user was given", ErrPermission),
			"give --user NAME:PASSWORD (ETCDCTL_USER) of a user with the role root")
	case errors.Is(etcd, rpctypes.ErrUserNotFound):
		return backup.WithHint(fmt.Errorf("%w: no such user", ErrPermission),
			"give --user NAME:PASSWORD of a user with the role root; "+
				"without it the common name of the client certificate is the user")
	case errors.Is(etcd, rpctypes.ErrAuthNotEnabled):
		return backup.WithHint(err, "auth is not enabled on this cluster: leave --user out")
	}
	switch said := status.Convert(err).Message(); {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", err)
	case status.Code(err) == codes.DeadlineExceeded:
		// The server watches our deadline too, and may notice first.
		return fmt.Errorf("no answer in time (%s): %w", said, context.DeadlineExceeded)
	case status.Code(err) == codes.Unavailable:
		return fmt.Errorf("unreachable: %s", said)
	}
	return err
}
