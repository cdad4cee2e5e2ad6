package unit

import (
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// RecognizeVariables is true for an environment file with settings of etcd: nothing is in
// it but assignments, comments and heads of sections.
func RecognizeVariables(_ string, raw []byte) bool {
	if strings.HasPrefix(string(raw), "#!") {
		return false
	}
	etcd := false
	goesOn := false
	for l := range strings.SplitSeq(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n") {
		l = strings.Trim(l, whitespace)
		after := goesOn
		goesOn = strings.HasSuffix(l, `\`)
		name, _, found := strings.Cut(l, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "export "))
		switch {
		case l == "" || after || strings.IndexByte(comments, l[0]) >= 0 || l[0] == '[' && strings.HasSuffix(l, "]"):
		case !found || !isVariable(name):
			return false
		default:
			etcd = etcd || strings.HasPrefix(name, "ETCD_")
		}
	}
	return etcd
}

// ReadVariables returns the start that an environment file describes alone: how etcd is
// started with it is not known, and so neither its working directory nor its flags.
func ReadVariables(file string, raw []byte, _ members.ReadOptions) ([]members.Start, error) {
	all, notes, err := variables(file, raw)
	if err != nil {
		return nil, err
	}
	return []members.Start{{
		Means: members.ByHand, Of: members.Position{File: file}, Env: all, Notes: notes,
	}}, nil
}
