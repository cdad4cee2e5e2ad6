package restore

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// token is the token of a new cluster in our own form:
//
//	backupd-<random>-<source><seal>[-bump<N>][-clear]
//
// The random part keeps old members out of the new cluster. The rest says of which
// restore it is the token: members that share it have the same data.
type token struct {
	random string // 16 characters, new for each restore
	source string // 12 characters of the SHA-256 of the snapshot
	seal   string // 8 characters of a SHA-256 of everything else here, and the members
	bump   uint64
	clear  bool
}

var tokenForm = regexp.MustCompile(
	`^backupd-([a-z2-7]{16})-([a-z2-7]{12})([a-z2-7]{8})(?:-bump([1-9][0-9]{0,18}))?(-clear)?$`)

// newToken makes a fresh token for a restore of o with these members.
func newToken(o Origin, r Request, members []backup.Member) token {
	t := token{random: backup.RandomName(16), source: short(o.SHA256, 12), bump: r.BumpRevision, clear: r.ClearAlarms}
	t.seal = t.sealed(members)
	return t
}

// parseToken reports false for a token that somebody has made up.
func parseToken(s string) (t token, ours bool) {
	m := tokenForm.FindStringSubmatch(s)
	if m == nil {
		return t, false
	}
	t = token{random: m[1], source: m[2], seal: m[3], clear: m[5] != ""}
	if m[4] != "" {
		var err error
		t.bump, err = strconv.ParseUint(m[4], 10, 64)
		return t, err == nil
	}
	return t, true
}

func (t token) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "backupd-%s-%s%s", t.random, t.source, t.seal)
	if t.bump > 0 {
		fmt.Fprintf(&b, "-bump%d", t.bump)
	}
	if t.clear {
		b.WriteString("-clear")
	}
	return b.String()
}

func (t token) sealed(members []backup.Member) string {
	what := fmt.Sprintf("%s %s %d %t %s", t.random, t.source, t.bump, t.clear, FormatMembers(members))
	return short(sha256.Sum256([]byte(what)), 8)
}

// short spells the beginning of a digest in n characters.
func short(d backup.Digest, n int) string {
	return strings.ToLower(base32.StdEncoding.EncodeToString(d[:]))[:n]
}

// TokenError refuses a restore with the token of another one: the members that share
// a token must have the same data.
type TokenError struct {
	Token string
	// What the token was made for: another snapshot, other changes to the database or
	// other members than requested now.
	OtherSnapshot, OtherChanges, OtherMembers bool
	// BumpRevision and ClearAlarms are the changes that the token was made for.
	BumpRevision uint64
	ClearAlarms  bool
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
		what = append(what, fmt.Sprintf("with other changes (--bump-revision=%d, --clear-alarms=%t)",
			e.BumpRevision, e.ClearAlarms))
	}
	if e.OtherMembers {
		what = append(what, "with other members (--initial-cluster), or it was not copied as it was printed")
	}
	return &backup.RefusedError{Reason: fmt.Sprintf("the token %s was made for a restore %s: "+
		"the members of the new cluster would hold different data", e.Token, strings.Join(what, ", "))}
}

// check refuses a token that was not made for this restore. The error is a
// [*TokenError].
func (t token) check(o Origin, r Request, members []backup.Member) error {
	e := &TokenError{
		Token: t.String(), OtherSnapshot: t.source != short(o.SHA256, 12),
		OtherChanges: t.bump != r.BumpRevision || t.clear != r.ClearAlarms,
		OtherMembers: t.seal != t.sealed(members), BumpRevision: t.bump, ClearAlarms: t.clear,
	}
	if e.OtherSnapshot || e.OtherChanges || e.OtherMembers {
		return e
	}
	return nil
}

// Names reports whether the token was made for the snapshot with this SHA-256.
func (e *TokenError) Names(snapshot backup.Digest) bool {
	t, _ := parseToken(e.Token)
	return t.source == short(snapshot, 12)
}
