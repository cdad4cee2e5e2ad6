package alive

import (
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Part is what the members of the new cluster that run know of one member of the plan.
type Part int

// Parts, by how much they count where the members say different things: one may be behind.
const (
	// Unknown: none of them answers.
	Unknown Part = iota
	// Never: it has not taken part yet. A restored member has no client URL until it has
	// started, and has told the others of it through the log that it has to keep.
	Never
	// Removed: it is no member any more.
	Removed
	// TookPart: it has started, and so it may have given its vote, and has confirmed entries.
	TookPart
	// Replaced: another member has its place, and joins with nothing in its folder.
	Replaced
)

// Part says what part the member m has taken in the new cluster.
func (f *Found) Part(m backup.Member) (part Part) {
	for _, a := range f.New {
		if a.Members == nil {
			continue
		}
		// One that has not taken part itself knows only the plan: it says of nobody that he has not.
		if p := partIn(a.Members, m); p != Never || partIn(a.Members, a.self()) == TookPart {
			part = max(part, p)
		}
	}
	return part
}

// self is the member that has answered, as it knows itself.
func (a *Answer) self() backup.Member {
	i := slices.IndexFunc(a.Members, func(m backup.Member) bool { return share(m.PeerURLs, []string{a.URL}) })
	if i < 0 {
		return backup.Member{}
	}
	return a.Members[i]
}

func partIn(all []backup.Member, m backup.Member) Part {
	own := slices.IndexFunc(all, func(b backup.Member) bool { return b.ID == m.ID })
	switch {
	case own >= 0 && len(all[own].ClientURLs) > 0:
		return TookPart
	case own >= 0:
		return Never
	case slices.ContainsFunc(all, func(b backup.Member) bool { return share(b.PeerURLs, m.PeerURLs) }):
		return Replaced
	}
	return Removed
}

// RefuseAgain returns a [*backup.RefusedError] if the member m, which has nothing in its
// folder, must not be restored beside the members of the new cluster that run. joins is true
// if it needs no restore: the running cluster has added it, and fills it.
func (f *Found) RefuseAgain(m backup.Member) (joins bool, err error) {
	hint := fmt.Sprintf("replace it, and the running cluster fills it: %s; --allow-again restores it all the same, "+
		"which is right only if all members are restored again", f.replaceNew(m.Name))
	part := f.Part(m)
	switch {
	case part == Replaced:
		return true, nil
	case part == TookPart:
		return false, backup.WithHint(&backup.RefusedError{Override: "--allow-again", Reason: fmt.Sprintf(
			"member %s has taken part in the new cluster, which runs (%s): restored again, it would have forgotten what "+
				"it has confirmed, and acknowledged writes would be lost", m.Name, list(f.New))}, "%s", hint)
	case part == Removed:
		return false, backup.WithHint(&backup.RefusedError{Override: "--allow-again", Reason: fmt.Sprintf(
			"member %s was removed from the new cluster, which runs (%s)", m.Name, list(f.New))}, "%s", hint)
	}
	silent := slices.Clone(f.Other)
	for _, a := range f.New {
		if a.Members == nil {
			silent = append(silent, a)
		}
	}
	if len(silent) > 0 {
		return false, backup.WithHint(&backup.RefusedError{Override: "--allow-running", Reason: fmt.Sprintf(
			"a server listens where a member of the new cluster will be, and does not say whether member %s has taken part in "+
				"its cluster: %s", m.Name, list(silent))},
			"give the certificates by which members reach one another: --peer-trusted-ca-file, --peer-cert-file, "+
				"--peer-key-file; or stop that server; --allow-running asks nobody")
	}
	return false, nil
}

// replaceNew is the command that replaces a member of the new cluster.
func (f *Found) replaceNew(name string) string {
	var of Found
	for _, a := range f.New {
		for _, m := range a.Members {
			for _, u := range m.ClientURLs {
				if m.Name != name && !slices.Contains(of.Endpoints, u) {
					of.Endpoints = append(of.Endpoints, u)
				}
			}
		}
	}
	return of.replace(name, nil) // the pods have no such files
}
