package kube

import (
	"fmt"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// unknown is a variable that has a value which the file does not say.
type unknown struct {
	name string
	why  string
	at   members.Position
}

// unknowns are those of a container. Text that is made of one holds its mark, whatever is
// cut from it, and so it is found wherever it goes.
type unknowns struct{ all []unknown }

const (
	firstMark = 0xF0000
	lastMark  = 0xFFFFD
	markWidth = 16
)

func isMark(r rune) bool { return r >= firstMark && r <= lastMark }

// add returns the text that stands for the value of a variable that is not known.
func (u *unknowns) add(name, why string, at members.Position) string {
	i := len(u.all)
	if i > lastMark-firstMark {
		i = 0 // there are more of them than marks: the reason may be another's
	}
	u.all = append(u.all, unknown{name, why, at})
	return strings.Repeat(string(rune(firstMark+i)), markWidth)
}

// in returns the first one that text is made of.
func (u *unknowns) in(text string) (unknown, bool) {
	i := strings.IndexFunc(text, isMark)
	if i < 0 {
		return unknown{}, false
	}
	return u.all[int([]rune(text[i:])[0])-firstMark], true
}

// show returns text for people.
func (u *unknowns) show(text string) string {
	var b strings.Builder
	last := rune(0)
	for _, r := range text {
		switch {
		case !isMark(r):
			b.WriteRune(r)
		case r != last:
			fmt.Fprintf(&b, "$(%s)", u.all[int(r)-firstMark].name)
		}
		last = r
	}
	return b.String()
}
