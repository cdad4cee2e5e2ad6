package testserver

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Taken is what an etcd server took from its start: who it is and where its data would be.
type Taken struct {
	Name, DataDir, WALDir string // absolute; WALDir is empty if it is in the data directory
	PeerURLs              string // separated by commas
	InitialCluster, Token string
}

// Take runs a command that starts an etcd, with no variable but env, in dir, and ends it as
// soon as the server has said what it takes. A server that ends before that has ok false, and
// the output says why. One that is told no addresses wants etcd's own ports, which another test
// may have for a moment: it is waited for.
func Take(t testing.TB, dir string, command, env []string) (taken Taken, output string, ok bool) {
	t.Helper()
	for patience := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		taken, output, ok = takeOnce(t, dir, command, env)
		if ok || !strings.Contains(output, "address already in use") {
			return taken, output, ok
		}
		if time.Now().After(patience) {
			t.Fatalf("a server of this host has the ports 2379 and 2380, which this test needs:\n%s", output)
		}
	}
}

func takeOnce(t testing.TB, dir string, command, env []string) (taken Taken, output string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=/usr/bin:/bin"}, env...)
	cmd.SysProcAttr = dieWithParent()
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	must(t, "start etcd", cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or says itself why it ends
		in.Close()
		close(ended)
	}()
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.Write(append(lines.Bytes(), '\n'))
		if !strings.Contains(lines.Text(), `"msg":"starting an etcd server"`) {
			continue
		}
		taken, ok = takenOf(t, dir, lines.Bytes()), true
		_ = cmd.Process.Kill() // nothing is lost if it has ended
		break
	}
	_, _ = io.Copy(io.Discard, out) // to the end of what it still says
	<-ended
	return taken, said.String(), ok
}

// takenOf reads the line of the log.
func takenOf(t testing.TB, dir string, line []byte) Taken {
	var said struct {
		Name           string   `json:"name"`
		DataDir        string   `json:"data-dir"`
		WALDir         string   `json:"wal-dir"`
		PeerURLs       []string `json:"initial-advertise-peer-urls"`
		InitialCluster string   `json:"initial-cluster"`
		Token          string   `json:"initial-cluster-token"`
	}
	must(t, "read what etcd takes", json.Unmarshal(line, &said))
	absolute := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	return Taken{
		Name: said.Name, DataDir: absolute(said.DataDir), WALDir: absolute(said.WALDir),
		PeerURLs: strings.Join(said.PeerURLs, ","), InitialCluster: said.InitialCluster, Token: said.Token,
	}
}
