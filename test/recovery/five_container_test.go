//go:build long

package recovery_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

const flagsUnit = `[Unit]
Description=etcd

[Service]
WorkingDirectory=@/opt/etcd
User=USER
ExecStart=@/opt/etcd/etcd --name NAME \
  --data-dir data.etcd \
  --initial-advertise-peer-urls http://ADDR:2380 --listen-peer-urls http://ADDR:2380 \
  --listen-client-urls http://ADDR:2379 --advertise-client-urls http://ADDR:2379 \
  --auto-compaction-retention 1 \
  --initial-cluster-token etcd-cluster --initial-cluster CLUSTER --initial-cluster-state new
Restart=always
`

// TestLongFive_Flags: two members started by units with all flags, and a data directory that is
// relative to the working directory.
func TestLongFive_Flags(t *testing.T) {
	s := newSite(t, "3.7")
	cluster := fmt.Sprintf("etcd1=http://%s:2380,etcd2=http://%s:2380", s.addr(1), s.addr(2))
	var units, endpoints []string
	for i := 1; i <= 2; i++ {
		replace := strings.NewReplacer("USER", s.user, "NAME", fmt.Sprint("etcd", i), "ADDR", s.addr(i), "CLUSTER", cluster)
		s.folder(t, i, "opt/etcd")
		s.install(t, i, "opt/etcd/etcd")
		units = append(units, s.write(t, i, "etc/systemd/system/etcd.service", replace.Replace(flagsUnit)))
		endpoints = append(endpoints, "http://"+s.addr(i)+":2379")
	}
	run := func() (ps []*process) {
		for _, u := range units {
			ps = append(ps, s.systemctlStart(t, u))
		}
		s.ready(t, "", ps, endpoints...)
		return ps
	}
	ps := run()
	s.fill(t, s.client(t, "", endpoints...))
	before := s.read(t, "", endpoints...)
	s.backup(t, "--endpoints="+strings.Join(endpoints, ","))
	for i, p := range ps {
		p.kill()
		destroy(t, s.path(i+1, "opt/etcd/data.etcd"))
	}
	// A relative path is not guessed at, if there is a file that knows better.
	s.want(t, 64, s.typedRestore(units[0], "", "--data-dir=data.etcd"), "data.etcd is relative")
	// That nothing is bumped is no fact of the deployment: so hash and revision can be compared.
	first := s.want(t, 0, s.typedRestore(units[0], "", "--bump-revision=0"),
		"Restored member etcd1 to "+s.path(1, "opt/etcd/data.etcd"), "--auto-compaction-retention=1 is not in the data")
	s.want(t, 0, replaced(first.command(t, "--name=etcd2"), "from", units[1]),
		"Restored member etcd2 to "+s.path(2, "opt/etcd/data.etcd"))
	owned(t, s.path(1, "opt/etcd/data.etcd"), s.user)
	owned(t, s.path(2, "opt/etcd/data.etcd"), s.user)
	run()
	same(t, before, s.read(t, "", endpoints...), false)
}

const containerImage = `FROM debian:stable-slim
COPY etcd /usr/local/bin/
WORKDIR /
ENTRYPOINT ["/usr/local/bin/etcd", "--data-dir", "/data"]
`

const containerScript = `#!/bin/sh
HOST=ADDR
CLUSTER=m1=http://$HOST:2380,m2=http://$HOST:2381,m3=http://$HOST:2382
docker run -d --restart=always --name etcd-one -p $HOST:2379:2379 -p $HOST:2380:2380 -v @/srv/etcd1:/data \
  etcd-of-ours --name m1 --initial-advertise-peer-urls http://$HOST:2380 --listen-peer-urls http://0.0.0.0:2380 \
  --advertise-client-urls http://$HOST:2379 --listen-client-urls http://0.0.0.0:2379 --initial-cluster $CLUSTER
docker run -d --restart=always --name etcd-two -p $HOST:12379:2379 -p $HOST:2381:2380 -v @/srv/etcd2:/data \
  etcd-of-ours --name m2 --initial-advertise-peer-urls http://$HOST:2381 --listen-peer-urls http://0.0.0.0:2380 \
  --advertise-client-urls http://$HOST:12379 --listen-client-urls http://0.0.0.0:2379 --initial-cluster $CLUSTER
docker run -d --restart=always --name etcd-three -p $HOST:22379:2379 -p $HOST:2382:2380 -v @/srv/etcd3:/data \
  etcd-of-ours --name m3 --initial-advertise-peer-urls http://$HOST:2382 --listen-peer-urls http://0.0.0.0:2380 \
  --advertise-client-urls http://$HOST:22379 --listen-client-urls http://0.0.0.0:2379 --initial-cluster $CLUSTER
`

// dockerCommands are the docker commands that a script runs, and that nobody executes.
func dockerCommands(t *testing.T, script string) (out [][]string) {
	t.Helper()
	dir := t.TempDir()
	const shim = "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\0' \"$a\"; done >>\"$0.log\"\nprintf '\\n' >>\"$0.log\"\n"
	docker := filepath.Join(dir, "docker")
	if err := os.WriteFile(docker, []byte(shim), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", script)
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	raw, err := os.ReadFile(docker + ".log")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		out = append(out, strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "\x00"), "\x00"))
	}
	return out
}

// dockerRun runs a container: its mounts are paths of the host in the arguments, its network
// is an address of its own, and published ports are forwarded there.
func (s *site) dockerRun(t *testing.T, image string, number int, words []string) *process {
	t.Helper()
	own := s.addr(number)
	mounts := map[string]string{}
	var published []string
	var args []string
	for i := 1; i < len(words); i++ {
		switch w := words[i]; {
		case w == "-v":
			i++
			host, inside, _ := strings.Cut(words[i], ":")
			mounts[inside] = host
		case w == "-p":
			i++
			published = append(published, words[i])
		case w == "--name":
			i++
		case !strings.HasPrefix(w, "-"):
			args, i = words[i+1:], len(words) // w is the image
		}
	}
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	_, entrypoint, _ := strings.Cut(string(raw), "ENTRYPOINT ")
	var command []string
	if err := json.Unmarshal([]byte(entrypoint), &command); err != nil {
		t.Fatal(err)
	}
	command = append(command, args...)
	command[0] = testserver.Binary(t, s.version, "etcd")
	for i, w := range command {
		for inside, host := range mounts {
			if w == inside || strings.HasPrefix(w, inside+"/") {
				command[i] = host + strings.TrimPrefix(w, inside)
			}
		}
		command[i] = strings.ReplaceAll(command[i], "0.0.0.0", own)
	}
	p := s.start(t, command, nil, "/", "")
	for _, ports := range published {
		parts := strings.Split(ports, ":") // address, port of the host, port of the container
		p.closers = append(p.closers, forward(t, parts[0]+":"+parts[1], own+":"+parts[2]))
	}
	return p
}

// forward is what publishes a port.
func forward(t *testing.T, from, to string) io.Closer {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				}()
			}
		}
	}()
	return l
}

// TestLongFive_Containers: three containers of an own image on one host, with published ports
// that differ, restored by a plan.
func TestLongFive_Containers(t *testing.T) {
	s := newSite(t, "3.5")
	script := s.write(t, 1, "opt/run.sh", strings.ReplaceAll(containerScript, "ADDR", s.addr(1)))
	image := s.write(t, 1, "opt/Dockerfile", containerImage)
	var ps []*process
	var endpoints []string
	for _, port := range []string{"2379", "12379", "22379"} {
		endpoints = append(endpoints, "http://"+s.addr(1)+":"+port)
	}
	run := func() {
		ps = nil
		for i, words := range dockerCommands(t, script) {
			ps = append(ps, s.dockerRun(t, image, 11+i, words))
		}
		s.ready(t, "", ps, endpoints...)
	}
	run()
	s.fill(t, s.client(t, "", endpoints...))
	before := s.read(t, "", endpoints...)
	s.backup(t, "--endpoints="+strings.Join(endpoints, ","))
	for i, p := range ps {
		p.kill()
		destroy(t, s.path(1, fmt.Sprint("srv/etcd", i+1)))
	}
	plan := filepath.Join(s.root, "plan.yaml")
	a := s.want(t, 0, append([]string{"plan", "latest", "--output=" + plan, "--from", script, "--from", image}, s.repo...))
	for i := 1; i <= 3; i++ {
		s.want(t, 0, a.command(t, fmt.Sprint("--name=m", i)),
			fmt.Sprintf("Restored member m%d to %s", i, s.path(1, fmt.Sprint("srv/etcd", i))), "etcd-")
	}
	run()
	same(t, before, s.read(t, "", endpoints...), true)
	s.want(t, 0, []string{"verify-cluster", "--plan", plan, "--endpoints=" + strings.Join(endpoints, ",")})
}
