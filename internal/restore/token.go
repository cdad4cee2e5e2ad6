package restore

import (
	"fmt"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore/token"
)

// tokenOf is what the token of p must be of.
func (p *Plan) tokenOf() token.Of {
	return token.Of{
		SHA256: p.Source.SHA256, Bump: p.Request.BumpRevision, Clear: p.Request.ClearAlarms,
		NoSpace: p.clearsNoSpace(), Members: members.Format(p.Members),
	}
}

// checkToken refuses the token of another restore. One that was made up can be that
// of any restore.
func (p *Plan) checkToken() error {
	t, ours := token.Parse(p.Token)
	if p.Source.SHA256.IsZero() {
		return errNoSHA256
	}
	if !ours {
		if p.Request.Token == "" {
			return fmt.Errorf("token %q was not requested, and does not have the form of a fresh one", p.Token)
		}
		return nil
	}
	of := p.tokenOf()
	e := &TokenError{
		Token: t.String(), OtherSnapshot: !t.IsOf(of.SHA256), OtherChanges: !t.Changes(of),
		OtherMembers: !t.Sealed(of.Members),
		BumpRevision: t.Bump, ClearAlarms: t.Clear, ClearNoSpace: t.NoSpace,
	}
	if e.OtherSnapshot || e.OtherChanges || e.OtherMembers {
		return e
	}
	return nil
}

// TokenError refuses a restore with the token of another one: the members that share
// a token must have the same data.
type TokenError struct {
	Token string
	// What the token was made for: another snapshot, other changes to the database or
	// other members than requested now.
	OtherSnapshot, OtherChanges, OtherMembers bool
	// BumpRevision, ClearAlarms and ClearNoSpace are the changes that the token was made for.
	BumpRevision              uint64
	ClearAlarms, ClearNoSpace bool
}

// Error says what differs.
func (e *TokenError) Error() string { return e.refusal().Error() }

// Unwrap makes it a refusal.
func (e *TokenError) Unwrap() error { return e.refusal() }

func (e *TokenError) refusal() *backup.RefusedError {
	var what []string
	if e.OtherSnapshot {
		what = append(what, "of another snapshot")
	}
	if e.OtherChanges {
		changes := fmt.Sprintf("--bump-revision=%d, --clear-alarms=%t", e.BumpRevision, e.ClearAlarms)
		if e.ClearNoSpace {
			changes += ", alarms NOSPACE cleared"
		}
		what = append(what, "with other changes ("+changes+")")
	}
	if e.OtherMembers {
		what = append(what, "with other members (--initial-cluster), or it was not copied as it was printed")
	}
	return &backup.RefusedError{Reason: fmt.Sprintf("the token %s was made for a restore %s: "+
		"the members of the new cluster would hold different data", e.Token, strings.Join(what, ", "))}
}

// TokenBump returns the bump of a token that [NewPlan] has made. It reports false for a
// token that somebody has made up: that says nothing.
func TokenBump(s string) (by uint64, ours bool) {
	t, ours := token.Parse(s)
	return t.Bump, ours
}

// Names reports whether the token was made for the snapshot with this SHA-256.
func (e *TokenError) Names(snapshot backup.Digest) bool {
	t, _ := token.Parse(e.Token)
	return t.IsOf(snapshot)
}
