package members

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Canonical returns URLs in one spelling and in order, so that equal ones are the same.
// No name is looked up, so a name is not its address.
func Canonical(urls []url.URL) []string {
	var out []string
	for _, u := range urls {
		u.Host = host(u)
		out = append(out, u.String())
	}
	slices.Sort(out)
	return out
}

func host(u url.URL) string {
	name, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		return u.Host // of a socket
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		name = ip.Unmap().String()
	}
	return net.JoinHostPort(name, port)
}

// ParseURLs parses a list of URLs that are separated by commas, as etcd does, and returns
// them sorted and each once.
func ParseURLs(s string) ([]string, error) {
	list, err := types.NewURLs(strings.Split(s, ","))
	if err != nil {
		return nil, err
	}
	return slices.Compact(list.StringSlice()), nil
}

// SameURLs reports whether two lists have the same URLs, in any order and spelling. A list
// that etcd could not parse is the same as no other.
func SameURLs(a, b []string) bool {
	first, err := types.NewURLs(a)
	if err != nil {
		return false
	}
	second, err := types.NewURLs(b)
	return err == nil && slices.Equal(Canonical(first), Canonical(second))
}
