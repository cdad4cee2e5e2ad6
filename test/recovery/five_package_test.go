//go:build long

package recovery_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The settings of a distribution's package, with its section lines.
const packageSettings = `#[Member]
[Member]
ETCD_DATA_DIR="@/data/etcd"
ETCD_LISTEN_PEER_URLS="http://ADDR:2380"
ETCD_LISTEN_CLIENT_URLS="http://ADDR:2379"
ETCD_NAME="NAME"
#[Clustering]
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://ADDR:2380"
ETCD_ADVERTISE_CLIENT_URLS="http://ADDR:2379"
ETCD_INITIAL_CLUSTER="CLUSTER"
ETCD_INITIAL_CLUSTER_TOKEN="k8s-cluster"
ETCD_INITIAL_CLUSTER_STATE="new"
`

const packageUnit = `[Unit]
Description=Etcd Server
After=network.target

[Service]
Type=notify
WorkingDirectory=@/data/etcd
EnvironmentFile=-@/etc/etcd/etcd.conf
User=USER
# set GOMAXPROCS to number of processors
ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) @/usr/bin/etcd \
  --name=\"${ETCD_NAME}\" --data-dir=\"${ETCD_DATA_DIR}\" \
  --listen-peer-urls=\"${ETCD_LISTEN_PEER_URLS}\" --listen-client-urls=\"${ETCD_LISTEN_CLIENT_URLS}\" \
  --initial-advertise-peer-urls=\"${ETCD_INITIAL_ADVERTISE_PEER_URLS}\" \
  --advertise-client-urls=\"${ETCD_ADVERTISE_CLIENT_URLS}\" --initial-cluster=\"${ETCD_INITIAL_CLUSTER}\" \
  --initial-cluster-token=\"${ETCD_INITIAL_CLUSTER_TOKEN}\" --initial-cluster-state=\"${ETCD_INITIAL_CLUSTER_STATE}\""
Restart=on-failure
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
`

// packageCleaned is the addition with which newer versions start: a variable and a flag of
// one setting end them.
const packageCleaned = `[Service]
ExecStart=
ExecStart=/bin/bash -c "exec env CLEAN GOMAXPROCS=$(nproc) @/usr/bin/etcd \
  --name=\"${ETCD_NAME}\" --data-dir=\"${ETCD_DATA_DIR}\" \
  --listen-peer-urls=\"${ETCD_LISTEN_PEER_URLS}\" --listen-client-urls=\"${ETCD_LISTEN_CLIENT_URLS}\" \
  --initial-advertise-peer-urls=\"${ETCD_INITIAL_ADVERTISE_PEER_URLS}\" \
  --advertise-client-urls=\"${ETCD_ADVERTISE_CLIENT_URLS}\" --initial-cluster=\"${ETCD_INITIAL_CLUSTER}\" \
  --initial-cluster-token=\"${ETCD_INITIAL_CLUSTER_TOKEN}\" --initial-cluster-state=\"${ETCD_INITIAL_CLUSTER_STATE}\""
`

// packageClean is what the note of the restore says, word by word.
const packageClean = "-u ETCD_ADVERTISE_CLIENT_URLS -u ETCD_DATA_DIR -u ETCD_INITIAL_ADVERTISE_PEER_URLS " +
	"-u ETCD_INITIAL_CLUSTER -u ETCD_INITIAL_CLUSTER_STATE -u ETCD_INITIAL_CLUSTER_TOKEN -u ETCD_LISTEN_CLIENT_URLS " +
	"-u ETCD_LISTEN_PEER_URLS -u ETCD_NAME"

// packageSite installs three hosts.
func packageSite(t *testing.T) (s *site, units, endpoints []string) {
	s = newSite(t, "3.7")
	cluster := fmt.Sprintf("hctjoscache01=http://%s:2380,hctjoscache02=http://%s:2380,hctjoscache03=http://%s:2380",
		s.addr(1), s.addr(2), s.addr(3))
	for i := 1; i <= 3; i++ {
		replace := strings.NewReplacer("NAME\"", fmt.Sprintf("hctjoscache0%d\"", i), "ADDR", s.addr(i),
			"=\"CLUSTER\"", "=\""+cluster+"\"", "USER", s.user, "CLEAN", packageClean)
		s.install(t, i, "usr/bin/etcd")
		s.folder(t, i, "data/etcd")
		s.write(t, i, "etc/etcd/etcd.conf", strings.ReplaceAll(replace.Replace(packageSettings), "\n", "\r\n"))
		units = append(units, s.write(t, i, "usr/lib/systemd/system/etcd.service", replace.Replace(packageUnit)))
		endpoints = append(endpoints, "http://"+s.addr(i)+":2379")
	}
	return s, units, endpoints
}

// TestLongFive_Package: three nodes of a distribution's package, whose unit gives every setting
// to etcd by a shell.
func TestLongFive_Package(t *testing.T) {
	s, units, endpoints := packageSite(t)
	p := s.systemctlStart(t, units[0])
	<-p.ended
	if !strings.Contains(p.said(), "conflicting environment variable") {
		t.Fatalf("etcd with variables and flags of the same settings:\n%s", p.said())
	}
	clean := func() {
		for i := range units {
			text := strings.ReplaceAll(packageCleaned, "CLEAN", packageClean)
			s.write(t, i+1, "usr/lib/systemd/system/etcd.service.d/clean.conf", text)
		}
	}
	clean()
	run := func() (ps []*process) {
		for _, u := range units {
			ps = append(ps, s.systemctlStart(t, u))
		}
		started(t, ps...)
		s.ready(t, "", ps, endpoints...)
		return ps
	}
	ps := run()
	s.fill(t, s.client(t, "", endpoints...))
	before := s.read(t, "", endpoints...)
	s.backup(t, "--endpoints="+strings.Join(endpoints, ","))
	for i, p := range ps {
		p.kill()
		destroy(t, s.path(i+1, "data/etcd"))
	}
	// The hosts are installed anew: the addition is gone.
	for i := range units {
		if err := os.RemoveAll(units[i] + ".d"); err != nil {
			t.Fatal(err)
		}
	}

	first := s.want(t, 0, s.typedRestore(units[0], ""), "Restored member hctjoscache01 to "+s.path(1, "data/etcd"),
		"systemctl start etcd", "env "+packageClean)
	owned(t, s.path(1, "data/etcd"), s.user)
	// The second host, by the same command: it is refused, and the command that it prints joins.
	second := s.want(t, 6, s.typedRestore(units[1], ""), "was begun", "--new")
	s.want(t, 0, second.command(t, "to join it"), "Restored member hctjoscache02 to "+s.path(2, "data/etcd"))
	// The third, by the command that the first has printed. The file is at the same path on a
	// real host.
	s.want(t, 0, replaced(first.command(t, "--name=hctjoscache03"), "from", units[2]))
	for i := range units {
		owned(t, s.path(i+1, "data/etcd"), s.user)
	}
	clean()
	run()
	same(t, before, s.read(t, "", endpoints...), true)
}
