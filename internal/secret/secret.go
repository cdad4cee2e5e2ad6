// Package secret decides how anything that may hold a secret is shown: in errors, in
// logs, and in what is stored in the clear.
package secret

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Mask stands for what is not shown.
const Mask = "***"

// Show returns text as it may be shown. Credentials in addresses and secret keys are
// masked, all else stays as it is.
func Show(text string) string {
	if !strings.ContainsAny(text, " \t\r\n") {
		return showAddress(keys.ReplaceAllString(text, Mask), findExactly)
	}
	return ShowText(text)
}

// ShowText is Show for a text that may hold addresses, and not for an address alone that
// somebody may have typed wrong.
func ShowText(text string) string {
	text = keys.ReplaceAllString(text, Mask)
	return addresses.ReplaceAllStringFunc(text, func(word string) string { return showAddress(word, find) })
}

// Holds reports whether Show masks a part of text.
func Holds(text string) bool { return Show(text) != text }

// InAddress reports whether an address, such as an endpoint or the URL of a repository,
// holds credentials, or may hold some.
func InAddress(address string) bool { return findExactly(strings.TrimSpace(address)) != nil }

// Without returns the addresses of members without the credentials that they may hold, and
// without what follows the port. A member of etcd can advertise some.
func Without(addresses []string) []string {
	var out []string
	for _, a := range addresses {
		if s := find(a); s != nil {
			a = a[:s.from] + a[min(len(a), s.to+len("@")):]
		}
		if scheme, rest, ok := strings.Cut(a, "://"); ok && !strings.HasPrefix(strings.ToLower(scheme), "unix") {
			if end := strings.IndexAny(rest, "/?#"); end >= 0 {
				a = scheme + "://" + rest[:end]
			}
		}
		out = append(out, a)
	}
	return out
}

var (
	// keys are the secret keys of age, of plugins too, and those in PEM: they go to the end
	// of the text, because nobody knows how their lines were folded.
	keys      = regexp.MustCompile(`(?i)AGE-(SECRET-KEY|PLUGIN)-\S*|(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*`)
	addresses = regexp.MustCompile(`\S+://\S+`)
)

// opening are the signs before an address in a text or a command: "--repo=s3://bucket".
const opening = "='\"(,"

func showAddress(text string, find func(string) *span) string {
	if s := find(text); s != nil {
		text = text[:s.from] + Mask + text[s.to:]
	}
	scheme, _, ok := strings.Cut(strings.ToLower(text), "://")
	scheme = scheme[strings.LastIndexAny(scheme, opening)+1:]
	before, query, _ := strings.Cut(text, "?")
	if ok && query != "" && !slices.Contains([]string{"file", "unix", "unixs"}, scheme) {
		text = before + "?" + Mask // it may be a token, or a signature
	}
	return text
}

// span is a part of an address.
type span struct{ from, to int }

// find returns where in an address the credentials stand. A password may hold whatever
// ends the host of a URL. So any "@" counts, but in what can be a path.
func find(address string) *span {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "", address
	}
	from := len(address) - len(rest)
	scheme = scheme[strings.LastIndexAny(scheme, opening)+1:]
	host, _, _ := strings.Cut(rest, "/")
	area := rest
	switch strings.ToLower(scheme) {
	case "file":
		area = host
	case "unix", "unixs":
		if area = host; strings.HasPrefix(host, "@") {
			return nil // the name of an abstract socket
		}
	case "s3":
		if !strings.Contains(host, ":") { // a secret access key may have slashes
			area = host
		}
	case "":
		if !strings.Contains(host, ":") {
			return nil // the name of a file
		}
	}
	if at := strings.LastIndex(area, "@"); at >= 0 {
		return &span{from, from + at}
	}
	return nil
}

// findExactly is find for a text that is an address and nothing else. In one that ends
// too early a password stands where the port does.
func findExactly(address string) *span {
	if s := find(address); s != nil {
		return s
	}
	_, rest, ok := strings.Cut(address, "://")
	host := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		host = rest[:end]
	}
	from, colon := len(address)-len(rest), strings.Index(host, ":")
	if !ok || colon < 0 || strings.HasPrefix(host, "[") || isPort(host[colon+1:]) {
		return nil
	}
	return &span{from + colon + 1, len(address)}
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil || text == ""
}
