// Package token spells and reads the cluster tokens that a restore makes. Such a token
// says of which restore it is: members that share it have the same data.
package token

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Of is everything in which two restores with one token must not differ.
type Of struct {
	SHA256 backup.Digest // of the snapshot
	// Bump, Clear and NoSpace are changes to the database: the bump of its revision, and
	// whether all alarms are removed, or those for which there is no space.
	Bump           uint64
	Clear, NoSpace bool
	Members        string // as in --initial-cluster
}

// Token is the token of a new cluster in our own form:
//
//	backupd-<random>-<source><seal>[-bump<N>][-clear|-nospace][-plan<digest>]
//
// The random part keeps old members out of the new cluster. The rest says of which
// restore it is the token.
type Token struct {
	random string // 16 characters, new for each restore
	source string // 12 characters of the SHA-256 of the snapshot
	seal   string // 8 characters of a SHA-256 of everything else here, and the members
	plan   string // 12 characters of the digest of the plan; empty if there is none

	// Bump, Clear and NoSpace are those of [Of].
	Bump           uint64
	Clear, NoSpace bool
}

var form = regexp.MustCompile(`^backupd-([a-z2-7]{16})-([a-z2-7]{12})([a-z2-7]{8})` +
	`(?:-bump([1-9][0-9]{0,18}))?(?:-(clear|nospace))?(?:-plan([a-z2-7]{12}))?$`)

// New makes a fresh token. The digest is that of the plan of the restore, which lists all
// that the token seals and more; zero if there is no plan that could be carried around.
func New(of Of, plan backup.Digest) Token {
	t := Token{
		random: backup.RandomName(16), source: short(of.SHA256, 12), Bump: of.Bump, Clear: of.Clear, NoSpace: of.NoSpace,
	}
	if !plan.IsZero() {
		t.plan = short(plan, 12)
	}
	t.seal = t.sealed(of.Members)
	return t
}

// Parse reports false for a token that somebody has made up.
func Parse(s string) (t Token, ours bool) {
	m := form.FindStringSubmatch(s)
	if m == nil {
		return t, false
	}
	t = Token{random: m[1], source: m[2], seal: m[3], Clear: m[5] == "clear", NoSpace: m[5] == "nospace", plan: m[6]}
	if m[4] != "" {
		var err error
		t.Bump, err = strconv.ParseUint(m[4], 10, 64)
		return t, err == nil
	}
	return t, true
}

// String spells t.
func (t Token) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "backupd-%s-%s%s", t.random, t.source, t.seal)
	if t.Bump > 0 {
		fmt.Fprintf(&b, "-bump%d", t.Bump)
	}
	switch {
	case t.Clear:
		b.WriteString("-clear")
	case t.NoSpace:
		b.WriteString("-nospace")
	}
	if t.plan != "" {
		b.WriteString("-plan" + t.plan)
	}
	return b.String()
}

// IsOf reports whether the token was made for the snapshot with this SHA-256.
func (t Token) IsOf(snapshot backup.Digest) bool { return t.source == short(snapshot, 12) }

// IsOfPlan reports whether the token was made for the plan with this digest.
func (t Token) IsOfPlan(plan backup.Digest) bool { return t.plan == short(plan, 12) }

// Changes reports whether the token was made for these changes to the database.
func (t Token) Changes(of Of) bool {
	return t.Bump == of.Bump && t.Clear == of.Clear && t.NoSpace == of.NoSpace
}

// Sealed reports whether the token was made for these members, and is as it was made.
func (t Token) Sealed(members string) bool { return t.seal == t.sealed(members) }

func (t Token) sealed(members string) string {
	what := fmt.Sprintf("%s %s %d %t %t %s %s", t.random, t.source, t.Bump, t.Clear, t.NoSpace, t.plan, members)
	return short(sha256.Sum256([]byte(what)), 8)
}

// short spells the beginning of a digest in n characters.
func short(d backup.Digest, n int) string {
	return strings.ToLower(base32.StdEncoding.EncodeToString(d[:]))[:n]
}
