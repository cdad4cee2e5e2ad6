package config

import (
	"net"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/server/callers"
)

// Options returns the part of the server's options that the configuration says.
func (s *Server) Options() server.Options {
	o := server.Options{
		Listen: s.Listen, MetricsListen: s.MetricsListen,
		CertFile: s.CertFile, KeyFile: s.KeyFile, ClientCAFile: s.ClientCAFile,
		ReadTokensFile: s.ReadTokensFile, OperateTokensFile: s.OperateTokensFile, AllowedHosts: s.AllowedHosts,
	}
	for _, c := range s.Callers {
		o.Callers = append(o.Callers, callers.Caller{
			Certificate: c.Certificate, TokensFile: c.TokensFile, Operate: c.Scope == "operate", Clusters: c.Clusters,
		})
	}
	return o
}

// AnyPorts is [Server.Options] with free ports instead of those that are configured.
func (s *Server) AnyPorts() server.Options {
	o := s.Options()
	for _, address := range []*string{&o.Listen, &o.MetricsListen} {
		if host, _, err := net.SplitHostPort(*address); err == nil {
			*address = net.JoinHostPort(host, "0")
		}
	}
	return o
}
