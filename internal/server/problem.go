package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ProblemType is the content type of every error.
const ProblemType = "application/problem+json"

// Problem is an error in the form of RFC 9457, with a hint.
type Problem struct {
	Type   string `json:"type" jsonschema:"always about:blank: the status is the kind of the problem"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty" jsonschema:"what is wrong, and where"`
	Hint   string `json:"hint,omitempty" jsonschema:"what to do about it"`

	header http.Header
}

func (p *Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail) }

func newProblem(status int, detail string, args ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(detail, args...),
	}
}

func (p *Problem) withHint(hint string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(hint, args...)
	return p
}

func (p *Problem) withHeader(name, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// problemOf maps an error to a status. No other function does.
func problemOf(err error) *Problem {
	var (
		problem *Problem
		refused *backup.RefusedError
		hinted  *backup.HintError
	)
	if errors.As(err, &problem) {
		return problem
	}
	p := newProblem(http.StatusInternalServerError, "%s", err)
	switch {
	case errors.Is(err, ErrNotFound):
		p = newProblem(http.StatusNotFound, "%s", err)
	case errors.Is(err, ErrConflict):
		p = newProblem(http.StatusConflict, "%s", err)
	case errors.As(err, &refused): // a flag that would override it is none of this API
		p = newProblem(http.StatusConflict, "%s", err)
	case errors.Is(err, context.DeadlineExceeded):
		p = newProblem(http.StatusGatewayTimeout, "%s", err).
			withHint("the repository or the cluster answers too slowly; try again")
	case errors.Is(err, context.Canceled):
		p = newProblem(http.StatusServiceUnavailable, "%s", err).withHint("the daemon is stopping; try again")
	}
	if errors.As(err, &hinted) {
		p.Hint = hinted.Configured()
	}
	return p
}

func (p *Problem) write(w http.ResponseWriter) {
	raw, err := json.Marshal(p)
	if err != nil {
		panic("server: internal error: encode problem: " + err.Error())
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", ProblemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(raw, '\n')) // if the caller is gone, no answer is needed
}
