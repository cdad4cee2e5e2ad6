package testserver

import (
	"slices"
	"testing"
)

// NewPods returns a cluster whose members are started one by one, by [Cluster.Launch]. With TLS
// their URLs must be those of https.
func NewPods(t testing.TB, version string, secure bool) *Cluster {
	t.Helper()
	c := newCluster(t, version)
	if secure {
		c.useAuthority(t, newAuthority(t, c.dir))
	}
	return c
}

// Launch starts etcd with more flags on whatever is in the folder, as the kubelet starts a
// container, and does not wait. A member of that name that has ended makes place for it. One
// goroutine at a time may call it.
func (c *Cluster) Launch(t testing.TB, r RestoredMember, extra ...string) *Member {
	t.Helper()
	m := c.memberAt(t, r)
	m.args = append(append(m.args, c.noSync()...), extra...)
	c.Members = slices.DeleteFunc(c.Members, func(old *Member) bool { return old.Name == r.Name && !old.Running() })
	must(t, "launch "+r.Name, m.start())
	c.Members = append(c.Members, m)
	return m
}
