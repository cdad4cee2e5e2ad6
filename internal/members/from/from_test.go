package from_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// write makes files of one folder, and returns their paths in the given order.
func write(t *testing.T, content ...string) []string {
	t.Helper()
	dir := t.TempDir()
	var out []string
	for i, c := range content {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(path, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
		out = append(out, path)
	}
	return out
}

const (
	m1 = "name: m1\ndata-dir: /var/lib/m1\ninitial-advertise-peer-urls: http://10.0.0.1:2380\n"
	m2 = "name: m2\ndata-dir: /var/lib/m2\ninitial-advertise-peer-urls: http://10.0.0.2:2380\n"
	// As kubeadm writes it: each host has those who were there when it joined.
	first  = "initial-cluster: m1=http://10.0.0.1:2380\n"
	second = "initial-cluster: m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380\n"
)

func both() []backup.Member {
	parsed, err := members.Parse("m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380")
	if err != nil {
		panic(err)
	}
	return parsed
}

func TestRead(t *testing.T) {
	files := write(t, m1+second)
	f, err := from.Read(files, from.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := f.Host
	at := members.Position{File: files[0], Line: 2}
	if h.Name.Text != "m1" || h.DataDir.Text != "/var/lib/m1" || h.DataDir.At != at {
		t.Errorf("got %+v", h)
	}
	if d := f.Compare(both()); len(d) > 0 {
		t.Errorf("the same members differ: %q", d)
	}
	if got, err := f.Members(); err != nil || members.Format(got) != members.Format(both()) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestRead_History: a file that names fewer members is never taken for the truth, and files
// of several hosts are united.
func TestRead_History(t *testing.T) {
	f, err := from.Read(write(t, m1+first), from.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := f.Compare(both()); len(d) != 1 || !strings.Contains(d[0], ":4 has m1=http://10.0.0.1:2380") {
		t.Errorf("got %q", d)
	}
	if f, err = from.Read(write(t, m1+first, m2+second), from.Options{Name: "m2"}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Members(); err != nil || members.Format(got) != members.Format(both()) || f.Host.Name.Text != "m2" {
		t.Errorf("got %v, %v", got, err)
	}
	if d := f.Compare(both()); len(d) != 1 {
		t.Errorf("one of two files differs, and these do: %q", d)
	}
}

// TestRead_Own: a file that only says who its own member is is compared, too.
func TestRead_Own(t *testing.T) {
	f, err := from.Read(write(t, m1), from.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := f.Compare(both()); len(d) > 0 {
		t.Errorf("got %q", d)
	}
	if got, err := f.Members(); got != nil || err != nil {
		t.Errorf("got %v, %v of a file that names one member", got, err)
	}
	moved, _ := members.Parse("m1=http://10.0.0.9:2380,m2=http://10.0.0.2:2380")
	if d := f.Compare(moved); len(d) != 1 {
		t.Errorf("another address of m1 is no difference: %q", d)
	}
}

func TestRead_Refused(t *testing.T) {
	for _, c := range []struct {
		files []string
		o     from.Options
		code  string // file for a FileError, refused for a RefusedError
		want  string
	}{
		{[]string{m1, m2}, from.Options{}, "refused", "the files describe the members m1, m2"},
		{[]string{m1}, from.Options{Name: "m2"}, "file", "a:1: the member here is m1, and --name asks for m2"},
		{[]string{m1, m1}, from.Options{}, "file", "member m1 is described here and in"},
		{[]string{"hello\n"}, from.Options{}, "file", "nothing in it says how etcd is started"},
		{[]string{""}, from.Options{}, "file", "nothing in it says how etcd is started"},
		{[]string{strings.Replace(m1, "/var/lib/m1", "m1.etcd", 1)}, from.Options{}, "file", "a:2: data-dir"},
	} {
		_, err := from.Read(write(t, c.files...), c.o)
		var file *members.FileError
		var refused *backup.RefusedError
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			errors.As(err, &file) != (c.code == "file") || errors.As(err, &refused) != (c.code == "refused") {
			t.Errorf("%q: %v, want %s: %s", c.files, err, c.code, c.want)
		}
	}
}

// TestMembers_Contradiction: two files that give one member two addresses are no list.
func TestMembers_Contradiction(t *testing.T) {
	other := strings.ReplaceAll(m2+second, "10.0.0.1", "10.0.0.7")
	f, err := from.Read(write(t, m1+second, other), from.Options{Name: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Members(); err == nil || !strings.Contains(err.Error(), "b:4: member m1 has the peer URLs") {
		t.Errorf("got %v", err)
	}
}

// TestRead_Containers: a unit that runs a container, with the Dockerfile of its image beside it.
func TestRead_Containers(t *testing.T) {
	dir := t.TempDir()
	unit := filepath.Join(dir, "etcd.service")
	dockerfile := filepath.Join(dir, "Dockerfile")
	compose := func(volume string) string {
		return "[Service]\nUser=nobody\nExecStart=/usr/bin/docker run --rm --name etcd-one -v " + volume +
			":/data etcd-of-ours --name m1 --initial-cluster m1=http://10.0.0.1:2380\n"
	}
	put := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(unit, compose("/srv/m1"))
	put(dockerfile, "FROM scratch\nENTRYPOINT [\"/etcd-v3.5\", \"--data-dir\", \"/data\"]\n")
	f, err := from.Read([]string{unit, dockerfile}, from.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := f.Host
	if h.Name.Text != "m1" || h.DataDir.Text != "/srv/m1" || h.Means != members.Systemd || h.Unit != "etcd.service" ||
		h.User.Text != "" || h.UserOfImage {
		t.Errorf("got %+v", h.Start)
	}
	if got := f.FilesOf("m1"); len(got) != 2 || got[0] != unit || got[1] != dockerfile {
		t.Errorf("m1 is described by %q", got)
	}
	_, err = from.Read([]string{unit}, from.Options{})
	if err == nil || !strings.Contains(err.Error(), ":3: the ENTRYPOINT of the image etcd-of-ours is not known") {
		t.Errorf("without the Dockerfile: %v", err)
	}
	put(unit, compose("etcd-volume"))
	_, err = from.Read([]string{unit, dockerfile}, from.Options{})
	var hint *backup.HintError
	if !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, `--data-dir="$(docker volume inspect -f '{{.Mountpoint}}' etcd-volume)"`) {
		t.Errorf("with a volume of docker: %v, %+v", err, hint)
	}
}

// TestFilesOf: each member has the files that describe it.
func TestFilesOf(t *testing.T) {
	files := write(t, m1+second, m2+second)
	f, err := from.Read(files, from.Options{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"m1": files[:1], "m2": files[1:], "m3": nil} {
		if got := f.FilesOf(name); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s is described by %q, want %q", name, got, want)
		}
	}
}

const set = `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: etcd, namespace: storage}
spec:
  serviceName: etcd
  replicas: 2
  template:
    spec:
      containers:
      - name: etcd
        image: etcd
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        volumeMounts: [{name: data, mountPath: MOUNT}]
        command: [sh, -c, "exec etcd --name $POD --data-dir MOUNT/etcd \
          --initial-advertise-peer-urls http://$POD.etcd.storage:2380"]
  volumeClaimTemplates:
  - metadata: {name: data}
`

// TestRead_Pods: a pod above the replicas of the file has a member, and is not in what the file
// claims; a volume has a place in a pod that has it mounted.
func TestRead_Pods(t *testing.T) {
	files := write(t, strings.ReplaceAll(set, "MOUNT", "/proc")) // a mount point of every host
	_, err := from.Read(files, from.Options{Name: "etcd-1"})
	if err == nil || !strings.Contains(err.Error(), `is in the volume "data-etcd-1"`) {
		t.Errorf("outside of a pod: %v", err)
	}
	for _, name := range []string{"etcd-1", "etcd-4"} {
		f, err := from.Read(files, from.Options{Name: name, Pod: true})
		if err != nil {
			t.Fatal(err)
		}
		all, err := f.Members()
		if f.Host.Name.Text != name || f.Host.DataDir.Text != "/proc/etcd" || f.Host.Above != (name == "etcd-4") ||
			err != nil || members.Names(all) != "etcd-0, etcd-1" {
			t.Errorf("%s: %+v of %v, %v", name, f.Host.Start, all, err)
		}
	}
	files = write(t, strings.ReplaceAll(set, "MOUNT", "/proc/self"))
	if f, err := from.Read(files, from.Options{Name: "etcd-1", Pod: true}); err == nil {
		t.Errorf("a folder that is no mount is taken for the volume: %+v", f.Host.DataDir)
	}
}

// TestRead_Place: a place that the operator names beats that of the file.
func TestRead_Place(t *testing.T) {
	f, err := from.Read(write(t, strings.Replace(m1, "/var/lib/m1", "m1.etcd", 1)), from.Options{DataDir: "/srv/m1"})
	if err != nil || f.Host.DataDir.Text != "/srv/m1" {
		t.Errorf("got %+v, %v", f, err)
	}
}

// TestRead_Kubernetes: a manifest is of one kind, though a shell would find commands in it, with
// etcd and its flags among their words. A script that writes one is of two.
func TestRead_Kubernetes(t *testing.T) {
	const twoKinds = "it can be read as a manifest of Kubernetes and as "
	files, err := filepath.Glob("../kube/testdata/read/*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		manifest := string(a.Files[0].Data)
		_, err = from.Read(write(t, manifest), from.Options{All: true})
		if err != nil && (strings.Contains(err.Error(), twoKinds) || strings.Contains(file, "kubeadm")) {
			t.Errorf("%s: %v", file, err)
		}
		script := "#!/bin/sh\ncat >etcd.yaml <<'EOF'\n" + manifest + "EOF\nexec etcd --name m1 --data-dir /var/lib/etcd\n"
		_, err = from.Read(write(t, script), from.Options{All: true})
		if err == nil || !strings.Contains(err.Error(), twoKinds) {
			t.Errorf("a script that writes %s: %v", file, err)
		}
	}
}
