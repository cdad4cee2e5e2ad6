package host_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/check/host"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestFind: the data of every etcd that runs is found, by its arguments, its environment
// or its configuration, and the usual places.
func TestFind(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, " ", "\x00")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"arg", "wal", "two", "env", "run/m1.etcd", "file", "no", "var/lib/k0s/etcd"} {
		write(dir+"/member/snap/db", "1234567")
	}
	for pid, p := range map[string]struct{ cmdline, environ string }{
		"1": {"/usr/bin/etcd --data-dir=/arg --wal-dir=/wal ", ""},
		"2": {"etcd --name x -data-dir /two ", "ETCD_DATA_DIR=/no "}, // an argument wins
		"3": {"etcd ", "A=b ETCD_DATA_DIR=/env "},
		"4": {"etcd --name m1 ", ""},
		"5": {"etcd --config-file /etcd.yaml --data-dir=/no ", ""}, // etcd ignores the argument
		"6": {"etcdctl --data-dir=/no ", ""},
		"7": {"etcd --data-dir=/gone ", ""},
		"8": {"", ""},
	} {
		write("proc/"+pid+"/cmdline", p.cmdline)
		write("proc/"+pid+"/environ", p.environ)
		for link, to := range map[string]string{"cwd": "/run", "root": root} {
			if err := os.Symlink(to, filepath.Join(root, "proc", pid, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etcd.yaml"), []byte("name: m\ndata-dir: /file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := host.Find(root)
	var got []string
	for _, d := range all {
		got = append(got, d.Path)
		if d.Database != 7 {
			t.Errorf("%s: its database has %d bytes", d.Path, d.Database)
		}
	}
	want := []string{"/arg", "/wal", "/two", "/env", "/run/m1.etcd", "/file", "/var/lib/k0s/etcd"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestFind_Real: a real etcd of this host is found, and shares the file system of a folder
// beside it.
func TestFind_Real(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	dir := c.Members[0].DataDir
	fs, err := disk.FileSystemOf(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	own := func(d host.Data) bool { return d.Path == dir && d.Database > 0 }
	if !slices.ContainsFunc(host.Beside(fs, host.Find("/")), own) {
		t.Errorf("%s is not among %+v", dir, host.Find("/"))
	}
}

// TestReport: what is said of a spool beside an etcd, and of one whose etcd is not seen.
func TestReport(t *testing.T) {
	const gib = 1 << 30
	here, there := disk.FileSystem{Device: 1, Total: 100 * gib, Free: 20 * gib}, disk.FileSystem{Device: 2}
	overlay := here
	overlay.Device = 9
	for name, c := range map[string]struct {
		all       []host.Data
		database  int64
		endpoints []string
		want      string
	}{
		"Apart": {[]host.Data{{Path: "/d", Files: there}}, gib, []string{"http://127.0.0.1:2379"}, ""},
		"Far":   {nil, gib, []string{"http://192.0.2.1:2379", "https://etcd.example.net:2379"}, ""},
		"Beside": {
			[]host.Data{{"/d", here, gib}}, 3 * gib, nil, "(/d): 20 GiB are free and 15 GiB stay free for it, " +
				"and after one spool of the largest database (3.0 GiB) 17 GiB would be left, which is enough",
		},
		"Overlay":  {[]host.Data{{"/d", overlay, gib}}, 0, nil, "(1.0 GiB) 19 GiB would be left"},
		"Unknown":  {[]host.Data{{"/d", here, 0}}, 0, nil, "how much one spool takes is not known"},
		"NotSeen":  {nil, gib, []string{"http://127.0.0.1:2379"}, "its data is not seen from here"},
		"NotSeen6": {nil, gib, []string{"https://[::1]:2379"}, "its data is not seen from here"},
		"Name":     {nil, gib, []string{"http://localhost:2379"}, "its data is not seen from here"},
		"TooLarge": {[]host.Data{{"/d", here, gib}}, 30 * gib, nil, "(30 GiB) 0 B would be left, less than must stay free"},
		"Less":     {[]host.Data{{"/d", here, gib}}, 6 * gib, nil, "14 GiB would be left, less than must stay free: no"},
	} {
		t.Run(name, func(t *testing.T) {
			text, hint := host.Report(host.Spool{
				Files: here, Reserve: 15 * gib, Database: c.database, Endpoints: c.endpoints,
			}, c.all)
			if c.want == "" && text != "" || !strings.Contains(text, c.want) ||
				(text != "") != strings.Contains(hint, "daemon.spool.min-free") {
				t.Errorf("got %q, hint %q", text, hint)
			}
		})
	}
}

// TestReport_NoReserve: that nothing stays free for etcd is said.
func TestReport_NoReserve(t *testing.T) {
	fs := disk.FileSystem{Device: 1, Total: 1 << 30, Free: 1 << 29}
	for _, all := range [][]host.Data{{{Path: "/d", Files: fs, Database: 1}}, nil} {
		text, _ := host.Report(host.Spool{Files: fs, Endpoints: []string{"http://127.0.0.1:2379"}}, all)
		if !strings.Contains(text, "nothing stays free for it, because daemon.spool.min-free is 0") {
			t.Errorf("got %q", text)
		}
	}
}

// TestReportRepository: what is said of a repository beside an etcd.
func TestReportRepository(t *testing.T) {
	const gib = 1 << 30
	here, there := disk.FileSystem{Device: 1, Total: 100 * gib, Free: 20 * gib}, disk.FileSystem{Device: 2}
	for name, c := range map[string]struct {
		etcd    disk.FileSystem
		reserve int64
		want    string
	}{
		"Apart":     {there, gib, ""},
		"Beside":    {here, gib, "folder /r shares a file system with an etcd (/d): 20 GiB are free and 1.0 GiB stay free"},
		"NoReserve": {here, 0, "20 GiB are free and none stay free for it: snapshots can fill the disk"},
	} {
		text, hint := host.ReportRepository("/r", here, c.reserve, []host.Data{{Path: "/d", Files: c.etcd}})
		if !strings.Contains(text, c.want) || (text == "") != (c.want == "") || (text == "") != (hint == "") {
			t.Errorf("%s: got %q, hint %q", name, text, hint)
		}
	}
}
