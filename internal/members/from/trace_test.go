package from_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// hosts are the files of hosts; the first of each starts etcd. DIR is their folder.
var hosts = map[string]map[string]string{
	"unit": {
		"etcd.service": "[Service]\nUser=root\nEnvironmentFile=-DIR/none.env\nEnvironmentFile=DIR/etcd.env\n" +
			"ExecStart=/usr/bin/etcd --data-dir ${ETCD_DATA}\n",
		"etcd.env":                 "ETCD_NAME=m1\nETCD_DATA=/var/lib/m1\n",
		"etcd.service.d/10-x.conf": "[Service]\nEnvironment=ETCD_QUOTA_BACKEND_BYTES=8589934592\n",
		"etcd.service.d/README":    "not read\n",
	},
	"yaml": {
		"etcd.service": "[Service]\nExecStart=/usr/bin/etcd --config-file DIR/etcd.yaml\n",
		"etcd.yaml":    m1 + second,
	},
	"supervisord": {
		"etcd.ini": "[program:etcd]\ncommand=/bin/bash DIR/start.sh\ndirectory=/opt/etcd\nuser=root\n",
		"start.sh": "#!/bin/bash\n. DIR/vars.sh\nexec ./etcd --name $NAME --data-dir /var/lib/m1\n",
		"vars.sh":  "NAME=m1\n",
	},
	"compose": {
		"compose.yaml": "services:\n  etcd:\n    image: quay.io/coreos/etcd:v3.6.0\n    volumes: [\"/srv/etcd:/data\"]\n" +
			"    command: etcd --name ${NAME} --data-dir /data\n",
		".env": "NAME=m1\n",
	},
}

// starts is the file of each host that starts etcd.
var starts = map[string]string{
	"unit": "etcd.service", "yaml": "etcd.service", "supervisord": "etcd.ini", "compose": "compose.yaml",
}

// collect collects the files that start etcd, with what they refer to.
func collect(t *testing.T, start []string) *companion.Archive {
	t.Helper()
	return companion.Of(companion.Files{From: start, Trace: from.Trace}).Collect(t.Context())
}

// TestTrace: what is stored of a host says the same of its member when the host is gone.
func TestTrace(t *testing.T) {
	t.Parallel() // a file that was just written is waited for
	for name, files := range hosts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for path, text := range files {
				path = filepath.Join(dir, path)
				text = strings.ReplaceAll(text, "DIR", dir)
				err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
				if err != nil {
					t.Fatal(err)
				}
			}
			start := []string{filepath.Join(dir, starts[name])}
			want, err := from.Read(start, from.Options{})
			if err != nil {
				t.Fatal(err)
			}
			content := stored(t, start)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := from.Read(start, from.Options{}); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the host is gone: %v", err)
			}
			source := &from.Source{Hostname: content.About.Host, ReadFile: content.ReadFile, ReadDir: content.ReadDir}
			got, err := from.Read(start, from.Options{Source: source})
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			// What was not there then is told with the time, and not as a file of this host.
			var absent *companion.AbsentError
			_, err = content.ReadFile(filepath.Join(dir, "none.env"))
			if name == "unit" && (!errors.Is(err, fs.ErrNotExist) || !errors.As(err, &absent) || !strings.Contains(err.Error(),
				"none.env was not there on host "+content.About.Host+" at "+content.About.At.Format(time.RFC3339))) {
				t.Errorf("a file that was not there: %v", err)
			}
			// What it does not know is never taken for absent.
			var unknown *companion.UnknownError
			content.About.Absent = nil
			if _, err := from.Read(start, from.Options{Source: source}); err == nil && name == "unit" {
				t.Error("a file that may have been there was taken for absent")
			}
			if _, err := content.ReadFile(filepath.Join(dir, "none.env")); !errors.As(err, &unknown) {
				t.Errorf("a file that it does not know: %v", err)
			}
			if _, err := content.ReadDir("/etc"); !errors.As(err, &unknown) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a folder that it does not know: %v", err)
			}
		})
	}
}

// stored stores the files that start etcd as a snapshot's, and reads them back.
func stored(t *testing.T, start []string) *companion.Content {
	t.Helper()
	archive := collect(t, start)
	if len(archive.About.Missing) > 0 {
		t.Errorf("missing: %+v", archive.About.Missing)
	}
	m := &backup.Manifest{
		ID:         backup.NewDataName(time.Now()).WithRevision(1),
		Companions: archive.About, Capture: backup.Capture{Cluster: "prod"},
	}
	data := repository.At(mem.New(), "the-only-repository").Cluster("prod").Data()
	if err := archive.Store(t.Context(), data, m.FilesKey(), codec.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Companions.Validate(); err != nil {
		t.Error(err)
	}
	content, err := companion.Read(t.Context(), data, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// threeMembers describes three members.
const threeMembers = `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: NAME, namespace: default}
spec:
  serviceName: NAME
  replicas: 3
  template:
    spec:
      containers:
      - name: etcd
        image: quay.io/coreos/etcd:v3.6.0
        env:
        - {name: HOST, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        command: [etcd, --name=$(HOST), --data-dir=/data/etcd, "--initial-advertise-peer-urls=http://$(HOST).NAME:2380"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates: [{metadata: {name: data}}]
`

// TestTrace_Refused: a file that a restore would refuse is missing, with its line; so nobody finds
// out on the worst day.
func TestTrace_Refused(t *testing.T) {
	t.Parallel()
	start := write(t, "name: m1\ndata-dir: data.etcd\n")
	archive := collect(t, start)
	want := "a restore would refuse it: " + start[0] + ":2: "
	if got := archive.About.Missing; len(got) != 1 || !strings.Contains(got[0].Reason, want) {
		t.Errorf("missing: %+v", got)
	}
	if len(archive.About.Files) != 1 {
		t.Errorf("it is not stored: %+v", archive.About.Files)
	}
	// Files that say something together only are read together.
	archive = collect(t, write(t, "FROM scratch\nENTRYPOINT [\"/etcd-v3.5\", \"--data-dir\", \"/data\"]\n",
		"#!/bin/sh\ndocker run -v /srv/etcd:/data etcd-of-ours --name m1\n"))
	if got := archive.About.Missing; len(got) != 0 {
		t.Errorf("two files of one member: %+v", got)
	}
	// Which of several members is on this host a restore is told.
	archive = collect(t, write(t, strings.Replace(threeMembers, "NAME", "etcd", -1)))
	if got := archive.About.Missing; len(got) != 0 {
		t.Errorf("missing: %+v", got)
	}
}

// TestTrace_Copied: the files of several hosts in folders of one are those of their own hosts, here
// and out of a snapshot; where one lacks, that of this host is not taken for it.
func TestTrace_Copied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here := filepath.Join(dir, "here/etc/etcd.conf") // an absolute path that each host has
	unit := "[Service]\nUser=root\nEnvironmentFile=" + here + "\nExecStart=/usr/bin/etcd\n"
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(here, "ETCD_NAME=wrong\nETCD_DATA_DIR=/wrong\n")
	var start []string
	for _, name := range []string{"m1", "m2"} {
		root := filepath.Join(dir, "hosts", name)
		start = append(start, filepath.Join(root, "etc/systemd/system/etcd.service"))
		write(start[len(start)-1], unit)
		write(filepath.Join(root, here), "ETCD_NAME="+name+"\nETCD_DATA_DIR=/data/"+name+"\n")
	}
	// A folder at another place where the file might lie.
	if err := os.MkdirAll(filepath.Join(filepath.Dir(start[0]), "etcd.conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	content := stored(t, start)
	source := &from.Source{Hostname: "new", ReadFile: content.ReadFile, ReadDir: content.ReadDir}
	if err := os.RemoveAll(filepath.Join(dir, "hosts")); err != nil {
		t.Fatal(err)
	}
	f, err := from.Read(start, from.Options{All: true, Source: source})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"/data/m1", "/data/m2"} {
		if got := f.All[i].Place.DataDir; got != want {
			t.Errorf("member %d at %q, want %q", i, got, want)
		}
	}
	// The settings of m2 were forgotten: the backup says so, and a restore takes no others.
	lacking := filepath.Join(dir, "hosts/m3/etc/systemd/system/etcd.service")
	write(lacking, unit)
	archive := collect(t, []string{lacking})
	m := archive.About.Missing
	if len(m) != 1 || !strings.Contains(m[0].Reason, "is a file of this host, and nobody knows") {
		t.Errorf("missing: %+v", m)
	}
}

// TestTrace_Program: etcd's own program is not stored, whether it is read as a whole or not, and a
// script that runs it says the same without it.
func TestTrace_Program(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 2 << 20} {
		dir := t.TempDir()
		script, program := filepath.Join(dir, "start.sh"), filepath.Join(dir, "etcd")
		if err := errors.Join(
			os.WriteFile(script, []byte("#!/bin/sh\nexec "+program+" --name m1 --data-dir /data\n"), 0o600),
			os.WriteFile(program, append([]byte("\x7fELF"), make([]byte, size)...), 0o700),
		); err != nil {
			t.Fatal(err)
		}
		content := stored(t, []string{script})
		if got := content.About.Files; len(got) != 1 || got[0].Path != script {
			t.Errorf("stored: %+v", got)
		}
		f, err := from.Read([]string{script}, from.Options{
			Source: &from.Source{Hostname: "m1", ReadFile: content.ReadFile, ReadDir: content.ReadDir},
		})
		if err != nil || f.Host.DataDir.Text != "/data" {
			t.Errorf("out of the snapshot: %+v, %v", f, err)
		}
	}
}

// TestTrace_Named: certificates and keys that etcd is started with are stored, in whatever way they
// are named, and each that is not there is missing with its line.
func TestTrace_Named(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, stored, missing string }{
		"flags": {"#!/bin/sh\nexec etcd --name m1 --data-dir /d --cert-file HERE/a.crt --key-file=HERE/a.key \\\n" +
			" --peer-trusted-ca-file HERE/gone.crt\n", "a.crt a.key",
			"HERE/gone.crt: --peer-trusted-ca-file names it at START:3"},
		"variables": {"ETCD_NAME=m1\"\nETCD_DATA_DIR=/d\nETCD_PEER_CERT_FILE=HERE/a.crt\nETCD_PEER_KEY_FILE=HERE/gone.key\n" +
			"ETCD_AUTH_TOKEN=jwt,pub-key=HERE/jwt.pub,priv-key=HERE/none.key,sign-method=RS256\n", "a.crt jwt.pub",
			"HERE/gone.key: ETCD_PEER_KEY_FILE names it at START:4; HERE/none.key: ETCD_AUTH_TOKEN names it at START:5"},
		"yaml": {"name: m1\ndata-dir: /d\nclient-transport-security:\n  trusted-ca-file: HERE/a.crt\n" +
			"peer-transport-security:\n  key-file: HERE/a.key\n  cert-file: gone.crt\n", "a.crt a.key",
			"gone.crt: cert-file: names it at START:7"},
		"container": {"services:\n  etcd:\n    image: quay.io/coreos/etcd:v3.6.0\n    volumes: [\"/srv/etcd:/data\", " +
			"\"HERE:/pki:ro\"]\n    command: etcd --name m1 --data-dir /data --cert-file /pki/a.crt --key-file /in/image\n",
			"a.crt", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			start := filepath.Join(dir, "etcd.yaml")
			for _, f := range []string{"a.crt", "a.key", "jwt.pub"} {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(start, []byte(strings.ReplaceAll(c.text, "HERE", dir)), 0o600); err != nil {
				t.Fatal(err)
			}
			about := collect(t, []string{start}).About
			var stored, missing []string
			for _, f := range about.Files {
				if f.Path != start {
					stored = append(stored, filepath.Base(f.Path))
				}
			}
			for _, m := range about.Missing {
				reason, _, _ := strings.Cut(m.Reason, ": ")
				if strings.HasPrefix(m.Reason, "cert-file:") {
					reason, _, _ = strings.Cut(m.Reason, ": the folder")
				}
				missing = append(missing, m.Path+": "+reason)
			}
			want := strings.NewReplacer("HERE", dir, "START", start).Replace(c.missing)
			if got := strings.Join(stored, " "); got != c.stored {
				t.Errorf("stored %q, want %q", got, c.stored)
			}
			if got := strings.Join(missing, "; "); got != want {
				t.Errorf("missing %q, want %q", got, want)
			}
		})
	}
}

// TestTrace_NamedCopied: the keys of another host are those that were copied with its files, and
// never those that this host has at the same paths.
func TestTrace_NamedCopied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(path, text string) string {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write(filepath.Join(dir, "here/etc/a.key"), "of this host")
	var units, configurations, copies []string
	for _, name := range []string{"m1", "m2"} {
		root := filepath.Join(dir, "hosts", name)
		units = append(units, write(filepath.Join(root, "etc/systemd/system/etcd.service"),
			"[Service]\nExecStart=/usr/bin/etcd --name "+name+" --data-dir /d --key-file "+key+"\n"))
		configurations = append(configurations, write(filepath.Join(root, "etc/etcd.yaml"),
			"name: "+name+"\ndata-dir: /d\nclient-transport-security: {key-file: "+key+"}\n"))
		copies = append(copies, write(filepath.Join(root, key), name))
	}
	for _, start := range [][]string{units, configurations} {
		content := stored(t, start)
		for i, name := range []string{"m1", "m2"} {
			if raw, err := content.ReadFile(copies[i]); err != nil || string(raw) != name {
				t.Errorf("key of %s: %q, %v", name, raw, err)
			}
		}
		if _, err := content.ReadFile(key); err == nil {
			t.Error("the key of this host is stored, too")
		}
	}
	if err := os.Remove(copies[1]); err != nil {
		t.Fatal(err)
	}
	for _, start := range [][]string{units, configurations} {
		about := collect(t, start).About
		if m := about.Missing; len(m) != 1 || m[0].Path != key || !strings.Contains(m[0].Reason, "is a file of this host") {
			t.Errorf("missing: %+v", m)
		}
	}
}
