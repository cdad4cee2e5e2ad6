package runbook_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/runbook"
)

var update = flag.Bool("update", false, "write the runbooks in testdata anew")

var taken = time.Date(2026, 11, 21, 10, 15, 0, 0, time.UTC)

// about describes a snapshot of a cluster with these members.
func about(members ...backup.Member) restore.Origin {
	return restore.Origin{
		Name: "snapshot 20261121T101500Z-r123456-k7q2xd of cluster prod", Bytes: 1 << 20, Revision: 123456, Taken: taken,
		SHA256: backup.Digest{1}, EtcdVersion: "3.6.5", Members: members,
	}
}

// three are m1 to m3 at addresses of their own.
func three(scheme string) (out []backup.Member) {
	for _, n := range []string{"1", "2", "3"} {
		out = append(out, backup.Member{
			Name: "m" + n, PeerURLs: []string{scheme + "://10.0.0." + n + ":2380"},
			ClientURLs: []string{scheme + "://127.0.0.1:2379", scheme + "://10.0.0." + n + ":2379"},
		})
	}
	return out
}

// seal makes the plan of a source.
func seal(
	t *testing.T, source restore.Origin, bump uint64, stored restore.Stored, places []restore.Place,
) *restore.Plan {
	t.Helper()
	p, err := restore.NewPlan(source, restore.Request{BumpRevision: bump, MarkCompacted: bump > 0})
	if err != nil {
		t.Fatal(err)
	}
	stored.Cluster, stored.Snapshot = "prod", "20261121T101500Z-r123456-k7q2xd"
	if stored.Repository == "" {
		stored.Repository = "s3://backups/etcd"
	}
	if err := p.Seal(stored, places, taken); err != nil {
		t.Fatal(err)
	}
	return p
}

// read reads files of testdata.
func read(t *testing.T, files ...string) (places []restore.Place) {
	t.Helper()
	for i := range files {
		files[i] = filepath.Join("testdata", files[i])
	}
	found, err := from.Read(files, from.Options{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range found.All {
		if l.Unknown != "" {
			t.Errorf("%s: %s", l.Place.Member, l.Unknown)
		}
		places = append(places, l.Place)
	}
	return places
}

// TestWrite compares the runbook of each means with the one in testdata, which
// "go test ./internal/runbook -update" writes.
func TestWrite(t *testing.T) {
	encrypted := restore.Stored{
		Encryption: "age", Recipients: []string{"age1recipient"}, Settings: []string{"s3-region=eu-central-1"},
	}
	kube := about(three("https")...)
	kube.Kubernetes = &backup.Kubernetes{
		Objects: 302, PlainSecrets: 2, Keys: []backup.EncryptionKey{{Provider: "aescbc", Name: "key1", Objects: 7}},
	}
	kube.Warnings = kube.Kubernetes.Notes()
	auth := about(three("https")...)
	auth.AuthEnabled = true
	pods, ports := about(), about()
	for _, n := range []string{"0", "1", "2"} {
		pods.Members = append(pods.Members, backup.Member{
			Name: "etcd-" + n, PeerURLs: []string{"http://etcd-" + n + ".etcd.kv:2380"},
			ClientURLs: []string{"http://etcd-" + n + ".etcd.kv:2379"},
		})
	}
	for i, port := range []string{"2380", "2381", "2382"} {
		ports.Members = append(ports.Members, backup.Member{
			Name: three("http")[i].Name, PeerURLs: []string{"http://10.0.0.1:" + port},
		})
	}
	plain := restore.Stored{Repository: "file:///srv/back ups"}
	for name, c := range map[string]struct {
		plan *restore.Plan
		more []restore.Place
	}{
		"systemd":     {seal(t, about(three("http")...), 1e9, encrypted, read(t, "systemd/m1/etcd.service")), nil},
		"supervisord": {seal(t, auth, 1e9, plain, nil), read(t, "supervisord/etcd.conf")},
		"kubeadm": {seal(t, kube, 1e9, encrypted, read(t, "kubeadm/m1/manifests/etcd.yaml", "kubeadm/m2/manifests/etcd.yaml",
			"kubeadm/m3/manifests/etcd.yaml")), nil},
		"statefulset": {seal(t, pods, 0, encrypted, read(t, "statefulset/set.yaml")), nil},
		"containers":  {seal(t, ports, 1e9, plain, read(t, "containers/compose.yaml", "containers/run.sh")), nil},
		"unknown":     {seal(t, about(three("http")...), 0, plain, nil), nil},
		"unbumped":    {seal(t, kube, 0, plain, read(t, "systemd/m1/etcd.service")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := write(t, c.plan, c.more)
			checkShell(t, got)
			path := filepath.Join("testdata", name+".md")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not this:\n%s", path, got)
			}
		})
	}
}

// write returns a runbook, in which the files are at a place that is the same everywhere.
func write(t *testing.T, p *restore.Plan, more []restore.Place) string {
	t.Helper()
	got, err := runbook.Write(p, runbook.Options{File: "/root/plan.yaml", Now: taken.Add(4 * time.Hour), Places: more})
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(got, here, "/from")
}

var block = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// checkShell asks bash whether it understands the commands.
func checkShell(t *testing.T, text string) {
	t.Helper()
	blocks := block.FindAllStringSubmatch(text, -1)
	if len(blocks) < 9 {
		t.Errorf("%d blocks of commands", len(blocks))
	}
	for _, b := range blocks {
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(b[1])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, b[1])
		}
	}
}

// TestWrite_Assumed: what has the name of another member in it is never taken for this one.
func TestWrite_Assumed(t *testing.T) {
	p := seal(t, about(three("http")...), 0, restore.Stored{}, []restore.Place{{
		Member: "m2", DataDir: "/srv/m2.etcd", WALDir: "/wal/m2", Means: "systemd", Unit: "etcd-m2.service", Owner: "etcd:",
	}})
	got := write(t, p, nil)
	for _, want := range []string{
		"backupd restore --plan plan.yaml --name m2 --replace\n",
		"backupd restore --plan plan.yaml --name m1 --data-dir \"${DATA_DIR:?data directory of etcd here}\" " +
			"--wal-dir \"${WAL_DIR:?WAL directory of etcd here}\" --chown etcd:\"$(id -gn etcd)\"\n",
		`systemctl stop "${UNIT:?unit that starts etcd here}"`, `systemctl disable "${UNIT:?unit that starts etcd here}"`,
		"ls -d /srv/m2.etcd.backupd-old-* /wal/m2.backupd-old-*   # m2\n", "ASSUMED: as on m2: check",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "ASSUMED"); n != 6 {
		t.Errorf("ASSUMED stands there %d times, want 6", n)
	}
}

// TestWrite_Hostile: names and paths are no commands, and no headings.
func TestWrite_Hostile(t *testing.T) {
	source := about(backup.Member{Name: "m$(touch pwned)'\n# x", PeerURLs: []string{"http://10.0.0.1:2380"}})
	p := seal(t, source, 0, restore.Stored{}, []restore.Place{{
		Member: "m$(touch pwned)'\n# x", DataDir: "/srv/`touch pwned`\n```", Means: "systemd", Unit: "a; touch pwned",
	}})
	got := write(t, p, nil)
	checkShell(t, got)
	dir := t.TempDir()
	for _, b := range block.FindAllStringSubmatch(got, -1) {
		cmd := exec.Command("bash")
		cmd.Dir, cmd.Env = dir, []string{"PATH=/nowhere"}
		cmd.Stdin = strings.NewReader("touch() { echo x > pwned; }\nsleep() { exit; }\n" + b[1])
		_ = cmd.Run() // nothing is found there
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("a name was run")
	}
	if strings.Contains(got, "\n# x") || strings.Count(got, "\n```\n") != strings.Count(got, "\n```sh\n") {
		t.Errorf("a name begins a line:\n%s", got)
	}
}

// TestWrite_Pods: the pods that restore have the arguments and the claims as they are, whatever
// characters are in them.
func TestWrite_Pods(t *testing.T) {
	const odd = "/d \\a`x`$HOME'\"$(x)"
	source := about(backup.Member{Name: "a'$b", PeerURLs: []string{"http://s-0.s:2380"}})
	p := seal(t, source, 0, restore.Stored{Encryption: "age"}, []restore.Place{{
		Member: "a'$b", Means: "StatefulSet", Unit: "s-0", Namespace: "n", Owner: "7:8", Volume: &members.Volume{
			Name: "claim", MountPath: odd, Below: "x$y", DataDir: odd + "/d", WALDir: odd + "/w",
		},
	}})
	var got []string
	for _, b := range block.FindAllStringSubmatch(write(t, p, nil), -1) {
		if !strings.Contains(b[1], "'restore'") {
			continue
		}
		cmd := exec.Command("bash", "-eu")
		cmd.Env = append(os.Environ(), "IMAGE=image:1")
		cmd.Stdin = strings.NewReader("kubectl() { if [ \"$3\" = apply ]; then cat; fi; }\n" + b[1])
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var pod struct {
			Spec struct {
				Containers []struct {
					Image        string
					Args         []string
					VolumeMounts []map[string]any `yaml:"volumeMounts"`
				}
			}
		}
		if err := yaml.Unmarshal(out, &pod); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		c := pod.Spec.Containers[0]
		got = append(got, c.Image, strings.Join(c.Args, "\n"), fmt.Sprint(c.VolumeMounts[2]))
	}
	args := strings.Join([]string{
		"restore", "--plan=/restore/plan.yaml", "--name=a'$b", "--data-dir=" + odd + "/d", "--replace",
		"--wal-dir=" + odd + "/w", "--identity=/restore/identity.txt", "--s3-credentials-file=/restore/s3-credentials",
	}, "\n")
	mounts := fmt.Sprint(map[string]any{"name": "data", "mountPath": odd, "subPath": "x$y"})
	want := []string{"image:1", args + "\n--dry-run", mounts, "image:1", args, mounts}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWrite_New: where another restore was begun, each command says that it is not that one.
func TestWrite_New(t *testing.T) {
	for want, begun := range map[string]bool{"--new": true, "": false} {
		p := seal(t, about(three("http")...), 0, restore.Stored{New: begun}, nil)
		for line := range strings.Lines(write(t, p, nil)) {
			if strings.HasPrefix(line, "backupd restore --plan") && strings.Contains(line, " --new") != (want != "") {
				t.Errorf("begun %t: %s", begun, line)
			}
		}
	}
}

// TestWrite_Stored: the files of a member that are in a snapshot are put back before its restore.
func TestWrite_Stored(t *testing.T) {
	const id = "20261120T101500Z-r123450-k7q2xe"
	text := write(t, seal(t, about(three("http")...), 0, restore.Stored{},
		[]restore.Place{{Member: "m2", DataDir: "/d", Stored: id}}), nil)
	back := strings.Index(text, "backupd companions "+id+
		" --repo=s3://backups/etcd --cluster=prod --output-dir=companions-m2")
	restored := strings.Index(text, "backupd restore --plan plan.yaml --name m2")
	if back < 0 || restored < back || strings.Count(text, "backupd companions") != 1 {
		t.Errorf("put back at %d, restored at %d", back, restored)
	}
}
