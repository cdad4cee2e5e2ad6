package etcddb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/child"
)

// role is that of the children of this package.
const role child.Role = "etcddb"

type operation string

const (
	opInspect operation = "inspect"
	opNewest  operation = "newest"
	opHash    operation = "hash"
	opPrepare operation = "prepare"
)

// request is the work of a child, and response its answer.
type request struct {
	Op              operation       `json:"op"`
	Revision        backup.Revision `json:"revision,omitempty"`
	CompactRevision backup.Revision `json:"compactRevision,omitempty"`
	Path            string          `json:"path,omitempty"`
	Prepare         *PrepareOptions `json:"prepare,omitempty"`
}

type response struct {
	Facts  *Facts          `json:"facts,omitempty"`
	Newest backup.Revision `json:"newest,omitempty"`
	HashKV *backup.HashKV  `json:"hashKV,omitempty"`
	Error  *childError     `json:"error,omitempty"`
}

// childError carries an error through JSON, with the properties that callers
// branch on.
type childError struct {
	Text       string `json:"text"`
	Corrupt    bool   `json:"corrupt,omitempty"`
	NotExist   bool   `json:"notExist,omitempty"`
	Permission bool   `json:"permission,omitempty"`
}

func newChildError(err error) *childError {
	return &childError{
		Text:       err.Error(),
		Corrupt:    errors.Is(err, backup.ErrCorrupt),
		NotExist:   errors.Is(err, fs.ErrNotExist),
		Permission: errors.Is(err, fs.ErrPermission),
	}
}

func (e *childError) Error() string { return e.Text }

func (e *childError) Is(target error) bool {
	return e.Corrupt && target == backup.ErrCorrupt ||
		e.NotExist && target == fs.ErrNotExist ||
		e.Permission && target == fs.ErrPermission
}

// ChildMain must be the first call in main, or in the TestMain of a test, of every
// program that uses this package. In a process that this package started as its
// child, it does the child's work and returns ok; then main must exit with the
// code.
func ChildMain() (code int, ok bool) {
	return child.Main(role, func(req request) *response {
		resp, err := serve(req)
		if err != nil {
			return &response{Error: newChildError(err)}
		}
		return resp
	})
}

// serve does the work of a request, in the child.
func serve(req request) (resp *response, err error) {
	resp = &response{}
	if req.Op == opPrepare {
		return resp, prepare(req.Path, *req.Prepare)
	}
	err = withImage(child.Database(), func(im *image) (err error) {
		switch req.Op {
		case opInspect:
			resp.Facts, err = inspect(im)
		case opNewest:
			resp.Newest, err = newest(im)
		case opHash:
			resp.HashKV, err = hashAtCompaction(im, req.Revision, req.CompactRevision)
		default:
			err = fmt.Errorf("operation %q is not known", req.Op)
		}
		return err
	})
	return resp, err
}

// runChild lets a child do the work of req. The child inherits database, if not nil,
// as an open file.
func runChild(ctx context.Context, req request, database *os.File) (*response, error) {
	resp, err := child.Run[response](ctx, role, req, database)
	if err != nil {
		return nil, explain(err)
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	return resp, nil
}

// memoryMiB is how much an inspection asks of the system at most, from three million keys on: see
// [keysAtOnce]. It uses a third of that.
const memoryMiB = 320

// explain marks what only a damaged database can cause, and what lack of memory does.
func explain(err error) error {
	var death *child.DeathError
	var memory *child.MemoryError
	switch {
	case errors.As(err, &memory):
		return backup.WithHint(err, "give the host or the container more memory: an inspection asks for up to %d MiB, "+
			"and may take three quarters of what is free", memoryMiB)
	case errors.As(err, &death):
		return backup.Corruptf("database is damaged: working on it %w", death)
	case errors.Is(err, child.ErrTooLong):
		return backup.Corruptf("database lists more than %d bytes of members and alarms", child.MaxAnswerBytes)
	}
	return err
}
