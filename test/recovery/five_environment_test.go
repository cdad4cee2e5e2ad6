//go:build long

package recovery_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

const environmentUnit = `[Unit]
Description=etcd key-value store

[Service]
User=USER
Type=notify
EnvironmentFile=@/etc/default/etcd
ExecStart=@/usr/bin/etcd
Restart=always
`

const environmentSettings = `# the two nodes of the overlay network
ETCD_NAME=NAME
ETCD_DATA_DIR=@/var/lib/etcd
ETCD_LISTEN_PEER_URLS="http://ADDR:2380"
ETCD_LISTEN_CLIENT_URLS="http://ADDR:2379,http://LOOPBACK:2379"
ETCD_ADVERTISE_CLIENT_URLS="http://ADDR:2379"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://ADDR:2380"
ETCD_INITIAL_CLUSTER="CLUSTER"
ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"
ETCD_ENABLE_V2="true"
`

// TestLongFive_EnvironmentFiles: two nodes configured by environment files, with keys of the old
// API. They are restored from these files alone, and the plan.
func TestLongFive_EnvironmentFiles(t *testing.T) {
	s := newSite(t, "3.5")
	cluster := fmt.Sprintf("node1=http://%s:2380,node2=http://%s:2380", s.addr(1), s.addr(2))
	var units, files, endpoints []string
	for i := 1; i <= 2; i++ {
		replace := strings.NewReplacer("USER", s.user, "=NAME", fmt.Sprint("=node", i), "ADDR", s.addr(i),
			"\"CLUSTER", "\""+cluster, "LOOPBACK", s.addr(10+i))
		s.folder(t, i, "var/lib/etcd")
		s.install(t, i, "usr/bin/etcd")
		files = append(files, s.write(t, i, "etc/default/etcd", replace.Replace(environmentSettings)))
		units = append(units, s.write(t, i, "lib/systemd/system/etcd.service", replace.Replace(environmentUnit)))
		endpoints = append(endpoints, "http://"+s.addr(i)+":2379")
	}
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
	putV2(t, endpoints[0])
	before := s.read(t, "", endpoints...)
	a := s.backup(t, "--endpoints="+strings.Join(endpoints, ","))
	if !strings.Contains(a.out, "v2 keys") {
		t.Errorf("the backup does not tell of keys of the v2 API:\n%s", a.out)
	}
	for i, p := range ps {
		p.kill()
		destroy(t, s.path(i+1, "var/lib/etcd"))
		s.folder(t, i+1, "var/lib/etcd") // its owner is as the package has made it
	}

	plan := filepath.Join(s.root, "plan.yaml")
	const gone = "the cluster also served keys of etcd's v2 API (--enable-v2): no snapshot holds them, and they " +
		"will be gone"
	a = s.want(t, 0, append([]string{"plan", "latest", "--output=" + plan, "--from", files[0], "--from", files[1]},
		s.repo...), gone)
	for i := range files {
		// The plan prints the command of each host whole.
		s.want(t, 0, a.command(t, fmt.Sprint("--name=node", i+1)), gone,
			fmt.Sprintf("Restored member node%d to %s", i+1, s.path(i+1, "var/lib/etcd")),
			files[i]+":10: etcd 3.6 and newer ignore ETCD_ENABLE_V2 with a warning")
		owned(t, s.path(i+1, "var/lib/etcd"), s.user)
	}
	ps = run()
	same(t, before, s.read(t, "", endpoints...), true)
	s.want(t, 0, []string{"verify-cluster", "--plan", plan, "--endpoints=" + strings.Join(endpoints, ",")})

	// It is as the note says: the next version ignores the variable, and would end with the flag.
	for i, p := range ps {
		p.kill()
		s.version = "3.6"
		s.install(t, i+1, "usr/bin/etcd")
	}
	ps = run()
	if !strings.Contains(ps[0].said(), `unrecognized environment variable","environment-variable":"ETCD_ENABLE_V2=true"`) {
		t.Errorf("etcd 3.6 does not warn of the variable:\n%s", ps[0].said())
	}
	p := s.start(t, []string{s.path(1, "usr/bin/etcd"), "--enable-v2", "--data-dir", s.path(1, "tmp/x")}, nil, "/", "")
	if <-p.ended; !strings.Contains(p.said(), "flag provided but not defined: -enable-v2") {
		t.Errorf("etcd 3.6 with the flag says\n%s", p.said())
	}
}

// putV2 writes a key of the old API, as flannel did.
func putV2(t *testing.T, endpoint string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, endpoint+"/v2/keys/coreos.com/network/config",
		strings.NewReader("value=%7B%22Network%22%3A%2210.5.0.0%2F16%22%7D"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // only read from
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s, %v", resp.Status, body, err)
	}
}
