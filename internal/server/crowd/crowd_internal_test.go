package crowd

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// TestCrowd: who has shown no credentials makes room, first of all those of the address
// that has too many.
func TestCrowd(t *testing.T) {
	c := &Listener{}
	enter := func(host string, trusted bool) (*conn, *conn, bool) {
		in := &conn{of: c, host: host}
		in.trusted.Store(trusted)
		out, ok := c.add(in)
		return in, out, ok
	}
	first, _, _ := enter("a", false)
	probe, _, _ := enter("b", false)
	for range maxPerAddress - 1 {
		if _, out, ok := enter("a", false); out != nil || !ok {
			t.Fatal("there was room")
		}
	}
	if _, out, ok := enter("a", false); out != first || !ok {
		t.Errorf("the oldest of a did not make room: %v, %v", out, ok)
	}
	for range maxPerAddress {
		enter("c", true)
	}
	if _, out, ok := enter("c", false); out != nil || ok {
		t.Error("one more than may be of an address, all of which showed credentials")
	}
	for i := range maxConnections - len(c.open) {
		enter(fmt.Sprint("d", i), true)
	}
	if _, out, ok := enter("e", false); out == nil || out.host != "a" || !ok {
		t.Errorf("all places are taken: %+v made room, %v", out, ok)
	}
	if len(c.open) != maxConnections || !slices.Contains(c.open, probe) {
		t.Errorf("%d connections; the lonely one is there: %v", len(c.open), slices.Contains(c.open, probe))
	}
	for _, in := range c.open {
		in.trusted.Store(true)
	}
	if _, _, ok := enter("f", false); ok {
		t.Error("a stranger took a place of a caller with credentials")
	}
	for address, want := range map[string]string{"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64"} {
		if got := addressOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))); got != want {
			t.Errorf("%s is counted as %s, want %s", address, got, want)
		}
	}
}
