package inuse

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Listening refuses while something listens on the peer address of the member on this
// host. Most likely it is the member that is to be replaced.
func Listening(ctx context.Context, m backup.Member) error {
	for _, raw := range m.PeerURLs {
		u, err := url.Parse(raw)
		if err != nil {
			return fmt.Errorf("parse peer URL: %w", err)
		}
		if !isLocal(ctx, u.Hostname()) {
			continue
		}
		d := net.Dialer{Timeout: 500 * time.Millisecond}
		conn, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			continue
		}
		_ = conn.Close()
		return backup.WithHint(&RunningError{&backup.RefusedError{Reason: fmt.Sprintf(
			"a server listens on %s, the peer URL of member %s", raw, m.Name), Override: "--allow-running"}},
			"stop it first; --allow-running restores all the same, if the new data will be started elsewhere or later. If the "+
				"other members of its cluster are healthy, do not restore one: 'backupd member replace --help'")
	}
	return nil
}

// isLocal reports whether host is an address of this machine.
func isLocal(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IP.IsLoopback() {
			return true
		}
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.IP) {
				return true
			}
		}
	}
	return false
}
