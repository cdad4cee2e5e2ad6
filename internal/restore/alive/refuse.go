package alive

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Refusal returns a [*backup.RefusedError] if the restore of the named member must not begin
// now, or nil. The name is empty if all members are restored; from are the operator's files of
// that member. joins is true if members of the new cluster may run already: then one that does
// not tell its cluster may be one of them.
func (f *Found) Refusal(name string, joins bool, from ...string) error {
	const all = "--allow-running restores all the same, if the new data will be started elsewhere or later"
	switch {
	case f.Living > f.Voters/2:
		return backup.WithHint(&backup.RefusedError{Override: "--allow-running", Reason: fmt.Sprintf(
			"the old cluster lives: %d of its %d members answer (%s), and a restore makes another cluster beside it",
			f.Living, f.Voters, list(f.Old))},
			"to replace one member of a living cluster, restore nothing: %s; to go back to the snapshot, stop all old members "+
				"first; %s", f.replace(name, from), all)
	case len(f.Old) > 0:
		return backup.WithHint(&backup.RefusedError{Override: "--allow-running", Reason: fmt.Sprintf(
			"members of the old cluster still answer, and may serve clients beside the new one: %s", list(f.Old))},
			"stop them for good first; %s", all)
	case len(f.Other) > 0 && !joins:
		return backup.WithHint(&backup.RefusedError{Override: "--allow-running", Reason: fmt.Sprintf(
			"a server listens where a member of the new cluster will be: %s", list(f.Other))},
			"stop it first; %s", all)
	}
	others := slices.DeleteFunc(slices.Clone(f.Other), func(a Answer) bool { return a.Cluster == 0 })
	if len(others) > 0 {
		return backup.WithHint(&backup.RefusedError{Override: "--allow-running", Reason: fmt.Sprintf(
			"a server of another cluster listens where a member of the new one will be: %s", list(others))},
			"stop it first, or look whether the token is the right one; %s", all)
	}
	return nil
}

// Note says which servers may be of the new cluster, or not; it is empty if there is none.
func (f *Found) Note() string {
	if len(f.Other) == 0 {
		return ""
	}
	return "a server listens there and does not say whether it is of the new cluster, as with client certificates: " +
		list(f.Other)
}

// replace is the command for a living cluster.
func (f *Found) replace(name string, from []string) string {
	if name == "" {
		name = "NAME"
	}
	words := []string{"backupd", "member", "replace", "--name=" + name}
	for _, file := range from {
		words = append(words, "--from="+file)
	}
	if len(f.Endpoints) > 0 {
		words = append(words, "--endpoints="+strings.Join(f.Endpoints, ","))
	}
	return shellquote.Join(words...)
}

// list names servers, each with its first URL.
func list(all []Answer) string {
	var out, named []string
	for _, a := range all {
		if slices.Contains(named, a.Member) {
			continue
		}
		named = append(named, a.Member)
		what := "peer"
		if a.Client {
			what = "client"
		}
		out = append(out, fmt.Sprintf("%s, a %s URL of member %s", a.URL, what, a.Member))
	}
	return strings.Join(out, "; ")
}
