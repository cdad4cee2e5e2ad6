//go:build long

package recovery_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

const supervisordProgram = `[program:etcd-server-80-20]
command=@/opt/etcd/etcd-server-startup.sh                       ; the program (relative uses PATH, can take args)
numprocs=1                                                      ; number of processes copies to start (def 1)
directory=@/opt/etcd                                            ; directory to cwd to before exec (def no cwd)
autostart=true                                                  ; start at supervisord start (default: true)
startsecs=30                                                    ; number of secs prog must stay running (def. 1)
stopsignal=QUIT                                                 ; signal used to kill process (default TERM)
user=USER                                                       ; setuid to this UNIX account to run the program
redirect_stderr=true                                            ; redirect proc stderr to stdout (default false)
stdout_logfile=@/data/logs/etcd.stdout.log                      ; stdout log path, NONE for none; default AUTO
stdout_capture_maxbytes=1MB                                     ; number of bytes in 'capturemode' (default 0)
`

const supervisordScript = `#!/bin/sh
./etcd --name etcd-server-80-2NUMBER \
       --data-dir @/data/etcd/etcd-server \
       --listen-peer-urls https://ADDR:2380 \
       --listen-client-urls https://ADDR:2379,http://LOOPBACK:2379 \
       --quota-backend-bytes 8000000000 \
       --initial-advertise-peer-urls https://ADDR:2380 \
       --advertise-client-urls https://ADDR:2379,http://LOOPBACK:2379 \
       --initial-cluster  CLUSTER \
       --cert-file ./certs/etcd-peer.pem \
       --key-file ./certs/etcd-peer-key.pem \
       --client-cert-auth  \
       --trusted-ca-file ./certs/ca.pem \
       --peer-cert-file ./certs/etcd-peer.pem \
       --peer-key-file ./certs/etcd-peer-key.pem \
       --peer-client-cert-auth \
       --peer-trusted-ca-file ./certs/ca.pem \
       --log-outputs stdout
`

// supervisorctlStart runs a program of supervisord: options are KEY=value, and what follows a
// blank and a semicolon is a comment.
func (s *site) supervisorctlStart(t *testing.T, file string) *process {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options := map[string]string{}
	for line := range strings.SplitSeq(string(raw), "\n") {
		line, _, _ = strings.Cut(line, " ;")
		if key, value, ok := strings.Cut(line, "="); ok {
			options[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return s.start(t, strings.Fields(options["command"]), nil, options["directory"], options["user"])
}

// supervisorctlStop ends the process that supervisord has started, and none that this has
// started.
func (p *process) supervisorctlStop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-p.ended
}

// secure gives each host a CA and one certificate with all addresses for servers and clients,
// and the operator one of root.
func (s *site) secure(t *testing.T, hosts int) (flags []string) {
	t.Helper()
	ca := testserver.NewAuthority(t)
	cert, key := ca.Issue(t, "etcd-peer", func(c *x509.Certificate) {
		for i := 1; i <= hosts; i++ {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(s.addr(i)))
		}
	})
	for i := 1; i <= hosts; i++ {
		for from, to := range map[string]string{ca.File: "ca.pem", cert: "etcd-peer.pem", key: "etcd-peer-key.pem"} {
			raw, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			s.giveAway(t, s.writeFile(t, s.path(i, "opt/etcd/certs/"+to), string(raw), 0o600))
		}
	}
	cert, key = ca.Issue(t, "root")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return []string{"--cacert=" + ca.File, "--cert=" + cert, "--key=" + key}
}

// TestLongFive_Supervisord: three nodes with TLS, started by a script that a program of
// supervisord runs.
func TestLongFive_Supervisord(t *testing.T) {
	s := newSite(t, "3.6")
	flags := s.secure(t, 3)
	cluster := fmt.Sprintf("etcd-server-80-20=https://%s:2380,etcd-server-80-21=https://%s:2380,"+
		"etcd-server-80-22=https://%s:2380", s.addr(1), s.addr(2), s.addr(3))
	var files, endpoints []string
	for i := 1; i <= 3; i++ {
		replace := strings.NewReplacer("NUMBER", fmt.Sprint(i-1), "80-20]", fmt.Sprintf("80-2%d]", i-1), "ADDR", s.addr(i),
			"LOOPBACK", s.addr(10+i), "CLUSTER", cluster, "USER", s.user)
		s.install(t, i, "opt/etcd/etcd")
		s.folder(t, i, "data/etcd/etcd-server")
		s.giveAway(t, s.path(i, "data/etcd"))
		script := s.write(t, i, "opt/etcd/etcd-server-startup.sh", replace.Replace(supervisordScript))
		if err := os.Chmod(script, 0o755); err != nil {
			t.Fatal(err)
		}
		files = append(files, s.write(t, i, "etc/supervisord.d/etcd-server.ini", replace.Replace(supervisordProgram)))
		endpoints = append(endpoints, "https://"+s.addr(i)+":2379")
	}
	run := func() (ps []*process) {
		for _, f := range files {
			ps = append(ps, s.supervisorctlStart(t, f))
		}
		s.ready(t, "", ps, endpoints...)
		return ps
	}
	ps := run()
	c := s.client(t, "", endpoints...)
	s.fill(t, c)
	if _, err := c.UserAdd(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UserGrantRole(t.Context(), "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := s.read(t, "", endpoints...)
	s.backup(t, append(flags, "--endpoints="+strings.Join(endpoints, ","))...)

	// Two hosts are lost. On the third supervisord says that etcd is stopped.
	for i, p := range ps[:2] {
		p.kill()
		destroy(t, s.path(i+1, "data/etcd/etcd-server"))
	}
	ps[2].supervisorctlStop(t)
	if !ps[2].alive() {
		t.Fatal("etcd has ended with the shell: nothing is tested")
	}
	s.want(t, 6, s.typedRestore(files[2], "", "--replace"), "a running process holds", ", etcd)",
		"`supervisorctl stop etcd-server-80-22` does not end it")
	ps[2].kill()
	destroy(t, s.path(3, "data/etcd/etcd-server"))

	first := s.want(t, 0, s.typedRestore(files[2], ""), "supervisorctl start etcd-server-80-22",
		"--quota-backend-bytes=8000000000 is not in the data", "etcd runs on")
	s.want(t, 0, replaced(first.command(t, "--name=etcd-server-80-20"), "from", files[0]))
	s.want(t, 0, replaced(first.command(t, "--name=etcd-server-80-21"), "from", files[1]))
	for i := range files {
		owned(t, s.path(i+1, "data/etcd/etcd-server"), s.user)
	}
	run()
	same(t, before, s.read(t, "", endpoints...), true)
	if !before.Auth {
		t.Error("nothing was shown about users")
	}
}
