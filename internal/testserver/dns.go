package testserver

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS answers for SRV records, and sends all other names to loopback. It is a real server,
// which this process asks instead of its own until the test ends.
type DNS struct {
	mu      sync.Mutex // guards what follows
	records map[string][]net.SRV
}

// StartDNS starts one that knows no record.
func StartDNS(t testing.TB) *DNS {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, "start a DNS server", err)
	d, done := &DNS{records: map[string][]net.SRV{}}, make(chan struct{})
	go func() {
		defer close(done)
		d.serve(conn)
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close() // it only ends the server
		<-done
	})
	return d
}

// Set replaces the records of a name such as "_etcd-client._tcp.example.test".
func (d *DNS) Set(name string, ports ...uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[name] = nil
	for _, port := range ports {
		d.records[name] = append(d.records[name], net.SRV{Target: "localhost.", Port: port})
	}
}

func (d *DNS) serve(conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if raw, err := d.answer(buf[:n]); err == nil {
			_, _ = conn.WriteTo(raw, from) // who is not there any more asks again
		}
	}
}

func (d *DNS) answer(raw []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
		d.mu.Lock()
		found := d.records[strings.TrimSuffix(q.Name.String(), ".")]
		d.mu.Unlock()
		switch {
		case q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		case q.Type == dnsmessage.TypeSRV && len(found) == 0:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeSRV:
			for _, r := range found {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.SRVResource{
					Target: dnsmessage.MustNewName(r.Target), Port: r.Port}})
			}
		}
	}
	return m.Pack()
}
