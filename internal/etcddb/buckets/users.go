package buckets

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/authpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// root is the name of the user and of the role without which etcd does not enable auth.
const root = "root"

// strictText is the oldest version whose servers end at their start over a text that is no
// UTF-8: they have another library for protobuf.
var strictText = version{3, 7}

// access is what a database tells of users and roles.
type access struct {
	badRole *badRole          // the first, or nil
	badName string            // of a user or a role, or empty
	granted map[string]string // role to one of the users who have it
	roles   map[string]bool
	hasRoot bool // the user root has the role root
}

// badRole is a role with a name that is no UTF-8, and one of the users who have it.
type badRole struct{ user, role string }

// readUser decodes a user. A server that reads one under another's name refuses its
// owner. The error does not show the value, which holds a password's hash.
func (a *access) readUser(key, value []byte) error {
	m := &authpb.User{}
	value, roles := splitRoles(value)
	if err := decode(value, m); err != nil {
		return fmt.Errorf("user %q: decode: %w", clip(key), err)
	}
	if string(m.Name) != string(key) {
		return fmt.Errorf("user %q: calls itself %q", clip(key), clip(m.Name))
	}
	a.look("user", key)
	for _, role := range roles {
		a.grant(string(key), role)
	}
	if string(key) == root {
		at := sort.SearchStrings(roles, root) // as etcd does: in another order it does not find it
		a.hasRoot = at < len(roles) && roles[at] == root
	}
	return nil
}

// look looks whether a name is text.
func (a *access) look(kind string, name []byte) {
	if a.badName == "" && !utf8.Valid(name) {
		a.badName = fmt.Sprintf("%s %q", kind, clip(name))
	}
}

// grant remembers a role of a user.
func (a *access) grant(user, role string) {
	if a.granted == nil {
		a.granted = map[string]string{}
	}
	if _, known := a.granted[role]; !known {
		a.granted[role] = user
	}
	if a.badRole == nil && !utf8.ValidString(role) {
		a.badRole = &badRole{user, role}
	}
}

func (a *access) readRole(key, value []byte) error {
	m := &authpb.Role{}
	if err := decode(value, m); err != nil {
		return fmt.Errorf("role %q: decode: %w", clip(key), err)
	}
	if string(m.Name) != string(key) {
		return fmt.Errorf("role %q: calls itself %q", clip(key), clip(m.Name))
	}
	a.look("role", key)
	if a.roles == nil {
		a.roles = map[string]bool{}
	}
	a.roles[string(key)] = true
	return nil
}

// splitRoles returns a user without roles, and the roles. The name of a role is text in a
// user only, and need not be UTF-8: elsewhere names are bytes.
func splitRoles(user []byte) (rest []byte, roles []string) {
	field := (&authpb.User{}).ProtoReflect().Descriptor().Fields().ByName("roles").Number()
	for b := user; len(b) > 0; {
		n, kind, size := protowire.ConsumeField(b)
		if size < 0 {
			return user, nil // which is none
		}
		if n == field && kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			role, _ := protowire.ConsumeBytes(b[tag:])
			roles = append(roles, string(role))
		} else {
			rest = append(rest, b[:size]...)
		}
		b = b[size:]
	}
	return rest, roles
}

// check returns cautions. It refuses a text over which the servers end that have written
// the database, by its versions: it was damaged since. Servers before them write it, and
// read it.
func (a *access) check(versions ...string) (cautions []string, err error) {
	if bad := a.badRole; bad != nil {
		why := fmt.Sprintf("user %q has the role %q, a name that is no UTF-8", clip([]byte(bad.user)), clip([]byte(bad.role)))
		for _, s := range versions {
			if v, err := parseVersion("", s); err == nil && !v.less(strictText) {
				return nil, fmt.Errorf("bucket %q: %s: no etcd %s has started with it", AuthUsers, why, v)
			}
		}
		cautions = append(cautions, fmt.Sprintf("%s: etcd %s does not start with it (before an upgrade, revoke the "+
			"role from all users and grant one with another name)", why, strictText))
	}
	if a.badName != "" && a.badRole == nil {
		cautions = append(cautions, fmt.Sprintf("the name of %s is no UTF-8: etcd %s starts with it, but its lists of "+
			"users or roles fail (before an upgrade, delete it)", a.badName, strictText))
	}
	for _, role := range slices.Sorted(maps.Keys(a.granted)) {
		if role != root && !a.roles[role] { // etcd grants the role root without one of that name
			return append(cautions, fmt.Sprintf("user %q has the role %q, which is not there: the database is damaged, or "+
				"etcd 3.0 deleted the role", clip([]byte(a.granted[role])), clip([]byte(role)))), nil
		}
	}
	return cautions, nil
}
