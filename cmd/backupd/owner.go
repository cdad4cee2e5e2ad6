package main

import (
	"errors"
	"fmt"
	"math"
	"os/user"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// parseOwner parses user:group, each a name of this host or a number.
func parseOwner(text string) (*restore.Owner, error) {
	name, group, both := strings.Cut(text, ":")
	if !both || name == "" || group == "" {
		return nil, errors.New("want user:group, by names or numbers")
	}
	uid, err := ownerID(name, "user", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return nil, err
	}
	gid, err := ownerID(group, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return nil, err
	}
	return &restore.Owner{UID: uid, GID: gid}, nil
}

// ownerID returns the number that the text is or, if it is a name, stands for. The largest
// number of 32 bits means "no change" to the kernel, which cuts longer ones.
func ownerID(text, what string, lookup func(name string) (string, error)) (int, error) {
	if strings.Trim(text, "0123456789") != "" {
		id, err := lookup(text)
		if errors.As(err, new(user.UnknownUserError)) || errors.As(err, new(user.UnknownGroupError)) {
			return 0, fmt.Errorf("this host has no %s %q: give its number", what, text)
		}
		if err != nil {
			return 0, fmt.Errorf("look up %s %q: %w", what, text, err)
		}
		text = id
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == math.MaxUint32 {
		return 0, fmt.Errorf("%s %s: want a number less than %d", what, text, uint32(math.MaxUint32))
	}
	return int(id), nil
}
