package kube

import (
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// expand replaces $(NAME) as the kubelet does: $$ is a dollar, a name that is not known
// stays as it is written, and so does what only looks like a reference, and what follows when the text is too long.
func expand(text string, lookup func(name string) (string, bool)) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String()
		case b.Len() > members.MaxValueBytes:
			return b.String() + "$" + after
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "(") && strings.Contains(after, ")"):
			name, rest, _ := strings.Cut(after[1:], ")")
			if with, ok := lookup(name); ok {
				b.WriteString(with)
			} else {
				b.WriteString("$(" + name + ")")
			}
			text = rest
		default:
			b.WriteByte('$')
			text = after
		}
	}
}
