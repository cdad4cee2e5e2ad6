package testserver

import (
	"path/filepath"
	"strings"
	"testing"
)

// StartGRPCProxy starts etcd's own proxy in front of the cluster's voting members and
// returns its URL. It spreads requests over them, and unless more flags forbid that it
// lists itself as the only member. It ends with the test.
func (c *Cluster) StartGRPCProxy(t testing.TB, more ...string) string {
	t.Helper()
	addr := freeAddr(t)
	dir := t.TempDir()
	args := []string{
		"grpc-proxy", "start", "--endpoints=" + strings.Join(c.Endpoints(), ","), "--listen-addr=" + addr,
		"--advertise-client-url=" + addr, "--data-dir=" + filepath.Join(dir, "data"),
	}
	m := &Member{Name: "proxy", Endpoint: addr, logPath: filepath.Join(dir, "log")}
	var err error
	m.proc, err = startProcess(m.logPath, c.bin, append(args, more...), cleanEnv())
	must(t, "start a gRPC proxy", err)
	t.Cleanup(m.Kill)
	must(t, "wait for a gRPC proxy", waitUntil(t.Context(), readyLimit, m.listening))
	return "http://" + addr
}
