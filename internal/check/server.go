package check

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/server"
)

// checkServer makes the daemon's server as the daemon would, address included,
// and closes it.
func checkServer(s *config.Server) []backup.Finding {
	l := list{section: SectionServer, subject: s.Listen}
	if s.Listen == "" && s.MetricsListen == "" {
		l.subject = "off"
		l.ok("there is no server: no metrics, no API, no 'backupd status'")
		return l.findings
	}
	err := tryServer(s.Options())
	taken := errors.Is(err, syscall.EADDRINUSE)
	if taken {
		// Most likely the daemon itself has it. Everything else can be tried at any port.
		err = tryServer(s.AnyPorts())
	}
	switch {
	case err != nil:
		l.fail(hintOf(err, "correct daemon.server"), "the server would not start: %v", err)
	case taken:
		l.add(backup.LevelOK, "if the daemon does not run, find the program that has the address: ss -ltnp",
			"the server is right; something listens there, as the daemon does when it runs")
	default:
		l.ok("the server can start")
	}
	checkServerNames(&l, s)
	return l.findings
}

func tryServer(o server.Options) error {
	o.Metrics = http.NotFoundHandler() // it never answers a request
	srv, err := server.New(o)
	if err != nil {
		return err
	}
	return srv.Close()
}

// checkServerNames compares the server's certificate with the names by which
// clients call the server.
func checkServerNames(l *list, s *config.Server) {
	if s.CertFile == "" {
		return
	}
	chain, err := certs.Read(s.CertFile)
	if err != nil {
		return // checkFiles reports it
	}
	hosts := slices.Clone(s.AllowedHosts)
	if host, _, err := net.SplitHostPort(s.Listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
		hosts = append(hosts, host)
	}
	for _, host := range hosts {
		var wrong x509.HostnameError
		if errors.As(chain[0].VerifyHostname(host), &wrong) {
			l.warn("issue a certificate with this name or address, or call the server by another name",
				"the server's certificate is for %s, and not for %s", certificate.Hosts(chain[0]), host)
		}
	}
}
