//go:build long

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// systemctl does what systemd does with a unit that is enough here. A stop does not wait.
const systemctl = `set -e
case "$1 $2" in
"start --no-block")
	setsid sh -c "exec $(sed -n 's/^ExecStart=//p' "$UNITS"/*/"$3")" >> "$UNITS/$3.log" 2>&1 < /dev/null &
	echo $! > "$UNITS/$3.pid" ;;
"disable "*) touch "$UNITS/$2.off" ;;
"enable "*) rm "$UNITS/$2.off" ;;
"stop "*) kill "$(cat "$UNITS/$2.pid")"; rm "$UNITS/$2.pid" ;;
*) exit 64 ;;
esac
`

// TestLongRunbook_Printed destroys three members that units start, and runs what "backupd runbook"
// prints for them, from the first command to the new backup.
func TestLongRunbook_Printed(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Fatal("the commands wait for ports by ss, of iproute2: ", err)
	}
	r := newShell(t)
	r.program(t, "systemctl", systemctl)
	r.program(t, "scp", "")
	units, me := filepath.Join(r.dir, "units"), currentUser(t)
	for name, value := range map[string]string{
		"UNITS": units, "BACKUPD_REPO": "file://" + r.repo, "BACKUPD_CLUSTER": "prod",
	} {
		r.set(name, value)
	}
	var peers, clients, all, files []string
	for i := range 3 {
		peers, clients = append(peers, testserver.FreeURL(t)), append(clients, testserver.FreeURL(t))
		all = append(all, fmt.Sprintf("m%d=%s", i+1, peers[i]))
	}
	for i := range 3 {
		name := fmt.Sprintf("m%d", i+1)
		files = append(files, filepath.Join(units, name, "etcd-"+name+".service"))
		text := fmt.Sprintf("[Service]\nUser=%s\nWorkingDirectory=%s\nExecStart=%s --name %s --data-dir %s --wal-dir %s "+
			"--listen-peer-urls %s --initial-advertise-peer-urls %[7]s --listen-client-urls %s --advertise-client-urls "+
			"%[8]s --initial-cluster %s\n", me, r.dir, filepath.Join(r.dir, "bin", "etcd"), name,
			filepath.Join(r.dir, "data", name), filepath.Join(r.dir, "wal", name), peers[i], clients[i],
			strings.Join(all, ","))
		if err := os.MkdirAll(filepath.Dir(files[i]), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, files[i], text)
	}
	t.Cleanup(func() { r.stopAll(t, units) })

	endpoints := strings.Join(clients, ",")
	r.sh(t, `for n in 1 2 3; do systemctl start --no-block etcd-m$n.service; done
until etcdctl --endpoints "`+endpoints+`" endpoint health; do sleep 0.2; done
etcdctl --endpoints "`+endpoints+`" put before 1
backupd init && backupd backup --endpoints "`+endpoints+`"
etcdctl --endpoints "`+endpoints+`" put later 1
backupd plan latest --output plan.yaml --from `+strings.Join(files, " --from ")+`
systemctl stop etcd-m2.service; sleep 1; rm -r data/m2 wal/m2; systemctl start --no-block etcd-m2.service`)

	text := r.sh(t, "backupd runbook --plan plan.yaml")
	blocks := block.FindAllStringSubmatch(text, -1)
	if want := 1 + 3 + 3*2 + 3 + 1 + 1 + 3; len(blocks) != want {
		t.Fatalf("%d blocks of commands, want %d:\n%s", len(blocks), want, text)
	}
	for _, b := range blocks[:len(blocks)-3] { // the last three undo it
		out := r.sh(t, b[1])
		switch {
		case strings.HasPrefix(b[1], "backupd restore"):
			dry := strings.Contains(b[1], "--dry-run")
			if dry == strings.Contains(out, "Restored member ") {
				t.Errorf("a block has not one dry run or one restore:\n%s%s", b[1], out)
			}
			if dry {
				contains(t, out, "data directory ")
			}
		case strings.HasPrefix(b[1], "backupd verify-cluster"):
			contains(t, out, "recovery from ", "green")
		case strings.HasPrefix(b[1], "backupd backup"):
			contains(t, out, "Verified snapshot ")
		}
	}
	if off, err := filepath.Glob(filepath.Join(units, "*.off")); err != nil || len(off) > 0 {
		t.Errorf("units are left off: %q, %v", off, err)
	}
	keys := r.sh(t, `etcdctl --endpoints "`+endpoints+`" get "" --prefix --keys-only`)
	if strings.TrimSpace(keys) != "before" {
		t.Errorf("the cluster holds %q", keys)
	}
}

// stopAll ends what the units have started.
func (r *runbook) stopAll(t *testing.T, units string) {
	pids, err := filepath.Glob(filepath.Join(units, "*.pid"))
	if err != nil {
		t.Error(err)
	}
	for _, file := range pids {
		cmd := exec.Command("sh", "-c", `kill -9 "$(cat "$1")"`, "sh", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("%s: %s", file, out)
		}
	}
}

func currentUser(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
