package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/server/callers"
)

// callers returns all callers.
func (o *Options) callers() []callers.Caller {
	out := slices.Clone(o.Callers)
	if o.ReadTokensFile != "" {
		out = append(out, callers.Caller{TokensFile: o.ReadTokensFile})
	}
	if o.OperateTokensFile != "" {
		out = append(out, callers.Caller{TokensFile: o.OperateTokensFile, Operate: true})
	}
	return out
}

// wrong returns the problem of wrong credentials.
func wrong(err error, r *http.Request) *Problem {
	if errors.Is(err, callers.ErrTooMany) {
		return newProblem(http.StatusTooManyRequests, "too many wrong tokens from %s", callers.Address(r)).
			withHint("wait a second").withHeader("Retry-After", "1")
	}
	return newProblem(http.StatusUnauthorized, "%s", err).
		withHint("compare it with the daemon's token files").
		withHeader("WWW-Authenticate", `Bearer realm="backupd", error="invalid_token"`)
}

// check returns nil if a caller with these rights may use a route, or the problem if not.
func check(g *callers.Guard, r *http.Request, has callers.Rights, t route) *Problem {
	switch {
	case t.scope == callers.None:
		return nil
	case len(has) == 0 && callers.Verified(r):
		return newProblem(http.StatusForbidden, "the client certificate names nobody who may call: it is for %s",
			strings.Join(callers.Names(r), ", ")).
			withHint("add one of these names to the callers of the daemon's configuration")
	case len(has) == 0:
		certificate := map[bool]string{true: " or a client certificate"}[g.ByCertificate()]
		return newProblem(http.StatusUnauthorized, "this needs a bearer token%s", certificate).
			withHint("send 'Authorization: Bearer TOKEN'; 'backupd status' takes --token-file").
			withHeader("WWW-Authenticate", `Bearer realm="backupd"`)
	case t.whole && !has.May(t.scope, ""):
		return newProblem(http.StatusForbidden, "this tells of all clusters; these credentials are for some of them").
			withHint("use credentials that are not limited to clusters")
	case !has.Anywhere(t.scope):
		return tooLittle(t.scope)
	}
	return nil
}

func tooLittle(need callers.Scope) *Problem {
	return newProblem(http.StatusForbidden, "this needs the scope %s; these credentials have read", need).
		withHint("use a token or a certificate that may operate").
		withHeader("WWW-Authenticate",
			fmt.Sprintf(`Bearer realm="backupd", error="insufficient_scope", scope="%s"`, need))
}

// asked is the caller's rights with the scope that the route needs.
type asked struct {
	rights callers.Rights
	need   callers.Scope
}

type askedKey struct{}

func withRights(ctx context.Context, has callers.Rights, need callers.Scope) context.Context {
	return context.WithValue(ctx, askedKey{}, asked{has, need})
}

// sees reports whether the caller of a request may know of a cluster.
func sees(ctx context.Context, cluster string) bool {
	a, _ := ctx.Value(askedKey{}).(asked)
	return a.rights.May(callers.Read, cluster)
}

// mayUse reports whether the caller of a request has the scope of its route on a cluster.
func mayUse(ctx context.Context, cluster string) bool {
	a, _ := ctx.Value(askedKey{}).(asked)
	return a.rights.May(a.need, cluster)
}
