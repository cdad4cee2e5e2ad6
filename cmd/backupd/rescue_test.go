package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// wreck starts a cluster, fills it, and kills all members at once, without a backup.
func wreck(t *testing.T) (c *testserver.Cluster, survivors []string) {
	t.Helper()
	t.Setenv("BACKUPD_SPOOL", t.TempDir())
	t.Setenv("BACKUPD_SPOOL_MIN_FREE", "0B")
	c = testserver.StartCluster(t, testserver.Options{Size: 3})
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 50})
	out := filepath.Join(t.TempDir(), "rescued.db")
	code, _, stderr := backupd("rescue", "--from-data-dir", c.Members[0].DataDir, "--output", out)
	if code != exitRefused || !strings.Contains(stderr, "a running process holds "+c.Members[0].DataDir) {
		t.Errorf("while it runs: exit code %d\n%s", code, stderr)
	}
	for _, m := range c.Members {
		m.Kill()
		survivors = append(survivors, m.DataDir)
	}
	return c, survivors
}

// within returns what is in a folder.
func within(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRescue goes from two survivors of three to a cluster of three, by one command.
func TestRescue(t *testing.T) {
	c, dirs := wreck(t)
	out := t.TempDir()
	file, to := filepath.Join(out, "rescued.db"), filepath.Join(out, "new")
	from := []string{"--from-data-dir", dirs[0], "--from-data-dir", dirs[2], "--uncommitted=take"}
	with := func(more ...string) []string { return append(append([]string{"rescue"}, from...), more...) }

	code, stdout, stderr := backupd(with("--dry-run", "-w", "json")...)
	var report rescue.Report
	if err := json.Unmarshal([]byte(stdout), &report); code != exitOK || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if report.File != "" || len(report.Survivors) != 2 || report.Revision < 20 || report.LostEntries != 0 {
		t.Errorf("report %+v", report)
	}
	code, stdout, stderr = backupd(with("--dry-run", "--all-members", "--output-dir", to)...)
	if code != exitOK || !strings.Contains(stdout, "what was rescued from "+report.DataDir) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if left := append(within(t, out), within(t, os.Getenv("BACKUPD_SPOOL"))...); len(left) > 0 {
		t.Errorf("a dry run leaves %q", left)
	}

	code, stdout, stderr = backupd(with("--output", file, "--all-members", "--output-dir", to)...)
	if code != exitOK || !strings.Contains(stdout, "Cluster token: ") ||
		!strings.Contains(stderr, "Snapshot file: "+file) {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if left := within(t, os.Getenv("BACKUPD_SPOOL")); len(left) > 0 {
		t.Errorf("it leaves %q", left)
	}
	var members []testserver.RestoredMember
	for _, m := range c.Members {
		members = append(members, testserver.RestoredMember{
			Name: m.Name, DataDir: filepath.Join(to, m.Name), PeerURL: m.PeerURL, ClientURL: m.ClientURL,
		})
	}
	restored := testserver.StartRestored(t, "3.7", members)
	for _, at := range restored.Endpoints() {
		hash, err := restored.Client(t).HashKV(t.Context(), at, int64(report.Revision))
		if err != nil || hash.Hash != report.HashKV.Hash {
			t.Errorf("%s: HashKV %v, %v, want %d", at, hash, err, report.HashKV.Hash)
		}
	}
}

// TestRescue_File: what is printed restores the other members, and what would harm the
// survivors is refused.
func TestRescue_File(t *testing.T) {
	_, dirs := wreck(t)
	file := filepath.Join(t.TempDir(), "rescued.db")
	code, stdout, stderr := backupd("rescue", "--from-data-dir", dirs[1], "--output", file, "--uncommitted=drop")
	if code != exitOK || !strings.Contains(stdout, "Everything that a survivor shows as committed was recovered.") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	var ids []string
	for line := range strings.Lines(stdout) {
		if !strings.HasPrefix(line, "  backupd snapshot restore ") {
			continue
		}
		if words, err := shellWords(line, nil); err == nil {
			t.Errorf("a shell runs it without a data directory: %q", words)
		}
		words, err := shellWords(line, map[string]string{
			"DATA_DIR": filepath.Join(t.TempDir(), "of a member"), "OWNER": fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()),
		})
		if err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := backupd(append(words, "-w", "json")...)
		var summary struct{ ClusterID string }
		if err := json.Unmarshal([]byte(stdout), &summary); code != exitOK || err != nil || summary.ClusterID == "" {
			t.Errorf("%q: exit code %d, %v\n%s%s", words, code, err, stdout, stderr)
		}
		ids = append(ids, summary.ClusterID)
	}
	if len(ids) != 3 || ids[0] != ids[1] || ids[0] != ids[2] {
		t.Errorf("cluster ids of the members: %q\n%s", ids, stdout)
	}

	alone := []string{"--name=m1", "--initial-cluster=m1=http://127.0.0.1:1"}
	for want, args := range map[string][]string{
		file + " exists": {"--output", file},
		"nothing is written into the data of a survivor": {"--output", filepath.Join(dirs[1], "member", "x.db")},
		"is the data of a survivor": append(alone, "--output", filepath.Join(t.TempDir(), "x.db"),
			"--data-dir", dirs[1], "--replace"),
	} {
		code, _, stderr := backupd(append([]string{"rescue", "--uncommitted=drop", "--from-data-dir", dirs[1]}, args...)...)
		if code != exitRefused || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, want a refusal with %q\n%s", args, code, want, stderr)
		}
	}
	askWithoutWAL(t, dirs[0])
	startFromPage(t, dirs)
	askForTail(t, dirs[1])
}

// TestRescue_From: the file that starts etcd on this host says which member is restored, and where;
// where it has other members than the database, both are offered, and both commands work.
func TestRescue_From(t *testing.T) {
	c, dirs := wreck(t)
	out := t.TempDir()
	file, place := filepath.Join(out, "rescued.db"), filepath.Join(out, "place", "m1")
	with := func(more ...string) []string {
		return append([]string{"rescue", "--uncommitted=drop", "--from-data-dir=" + dirs[0]}, more...)
	}
	settings := func(name, data, more string) string {
		path := filepath.Join(t.TempDir(), "etcd.yaml")
		if err := os.WriteFile(path, []byte("name: "+name+"\ndata-dir: "+data+"\n"+more), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--from=" + path
	}
	own := settings("m1", place, "initial-advertise-peer-urls: "+c.Members[0].PeerURL+"\n")
	for want, args := range map[string][]string{
		"78 the member here is m1, and --name asks for m2": with("--output="+file, own, "--name=m2"),
		"6 is the data of a survivor":                      with("--output="+file, settings("m1", dirs[0], "")),
		"64 give --from FILE":                              with("--output="+file, "--members=files"),
	} {
		code, words, _ := strings.Cut(want, " ")
		got, stdout, stderr := backupd(args...)
		if fmt.Sprint(got) != code || !strings.Contains(stderr, words) || len(within(t, out)) > 0 {
			t.Errorf("%q: exit code %d, want %s\n%s%s", args, got, want, stdout, stderr)
		}
	}
	_, _, stderr := backupd(with("--output="+file, settings("m1", dirs[0], ""))...)
	if want := "backupd snapshot restore " + file + " --replace --name=m1 --data-dir=" + dirs[0]; !strings.Contains(
		stderr, want) {
		t.Errorf("%q is not offered\n%s", want, stderr)
	}

	code, stdout, stderr := backupd(with("--output="+file, own)...)
	if _, err := os.Stat(filepath.Join(place, "member", "wal")); code != exitOK || err != nil ||
		!strings.Contains(stdout, "Restored member m1 to "+place) {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if strings.Count(stdout, "backupd snapshot restore "+file) != 2 || strings.Contains(stdout, "--from") {
		t.Errorf("the commands for the others:\n%s", stdout)
	}

	// A file that knows one member of three.
	file = filepath.Join(out, "second.db")
	alone := settings("m1", filepath.Join(out, "alone"), "initial-cluster: m1="+c.Members[0].PeerURL+"\n"+
		"initial-advertise-peer-urls: "+c.Members[0].PeerURL+"\n")
	code, stdout, stderr = backupd(with("--output="+file, alone)...)
	if code != exitRefused || !strings.Contains(stderr, "the snapshot and the files differ on who is in the cluster") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	tried := 0
	for line := range strings.Lines(stderr) {
		if _, command, ok := strings.Cut(line, ": backupd "); ok {
			words, err := shellquote.Split(command)
			if err != nil {
				t.Fatal(err)
			}
			if code, stdout, stderr := backupd(append(words, "--dry-run")...); code != exitOK {
				t.Errorf("%q: exit code %d\n%s%s", words, code, stdout, stderr)
			}
			tried++
		}
	}
	if tried != 2 {
		t.Errorf("%d commands are offered\n%s", tried, stderr)
	}
	for _, whose := range []string{"files", "snapshot"} {
		code, stdout, stderr = backupd(with("--dry-run", alone, "--members="+whose)...)
		if code != exitOK || strings.Count(stdout, "\n  member ") != map[string]int{"files": 1, "snapshot": 3}[whose] {
			t.Errorf("--members=%s: exit code %d\n%s%s", whose, code, stdout, stderr)
		}
	}
}

// askWithoutWAL: a WAL that is elsewhere, or lost, is asked for; the words after say what is not known.
func askWithoutWAL(t *testing.T, dir string) {
	t.Helper()
	usual, apart := filepath.Join(dir, "member", "wal"), filepath.Join(t.TempDir(), "wal")
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(usual, apart)
	defer move(apart, usual)
	args := []string{"rescue", "--uncommitted=take", "--from-data-dir=" + dir, "--dry-run"}
	code, stdout, stderr := backupd(args...)
	if code != exitRefused || !strings.Contains(stderr, dir+" has no WAL in member/wal") || stdout != "" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if first, _, _ := strings.Cut(stderr, "if it is elsewhere, say where"); strings.Contains(first, "--without-wal") {
		t.Errorf("what loses data comes first\n%s", stderr)
	}
	const all = "Everything that a survivor shows as committed was recovered."
	offered := map[string]string{"--from-wal-dir=DIR2": all, "--without-wal": "Not known: what the WAL of " + dir}
	for line := range strings.Lines(stderr) {
		_, command, _ := strings.Cut(line, ": backupd ")
		for flag, want := range offered {
			if !strings.Contains(command, flag) {
				continue
			}
			delete(offered, flag)
			words, err := shellquote.Split(strings.ReplaceAll(command, "DIR2", apart))
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := backupd(words...)
			if code != exitOK || !strings.Contains(stdout, want) || strings.Contains(stdout, all) != (want == all) {
				t.Errorf("%q: exit code %d, want %q\n%s%s", words, code, want, stdout, stderr)
			}
		}
	}
	if len(offered) > 0 {
		t.Errorf("%q are not offered\n%s", offered, stderr)
	}
}

// startFromPage runs the commands of docs/rescue.md, and starts what they have restored.
func startFromPage(t *testing.T, dirs []string) {
	t.Helper()
	to := testserver.RestoredMember{Name: "m1", DataDir: filepath.Join(t.TempDir(), "m1"),
		PeerURL: testserver.FreeURL(t), ClientURL: testserver.FreeURL(t)}
	variables := map[string]string{
		"M1": dirs[0], "M2": dirs[1], "FILE": filepath.Join(t.TempDir(), "x.db"), "DATA_DIR": to.DataDir,
		"OWNER": fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()), "PEER": to.PeerURL, "TOKEN": "rescued-1",
		"WAL1": filepath.Join(dirs[0], "member", "wal"), "WAL2": filepath.Join(dirs[1], "member", "wal"),
	}
	raw, err := os.ReadFile("../../docs/rescue.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "backupd ") {
			continue
		}
		words, err := shellWords(line, variables)
		if err != nil {
			t.Fatal(err)
		}
		ran++
		if code, stdout, stderr := backupd(words...); code != exitOK {
			t.Errorf("%q: exit code %d\n%s%s", words, code, stdout, stderr)
		}
	}
	if ran != 4 {
		t.Errorf("%d commands were run", ran)
	}
	c := testserver.StartRestored(t, "3.7", []testserver.RestoredMember{to})
	got, err := c.Client(t).Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil || got.Count == 0 || got.Header.Revision < rescueBump {
		t.Errorf("%+v, %v; want keys, and a revision that was bumped", got, err)
	}
}

// shellWords lets a shell read a command of backupd, and returns what it is called with.
func shellWords(line string, variables map[string]string) ([]string, error) {
	cmd := exec.Command("sh", "-c", `backupd() { printf '%s\0' "$@"; }; `+line)
	for name, value := range variables {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.Output()
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), err
}

// askForTail gives a log entries that nobody shows as committed: both commands are printed.
func askForTail(t *testing.T, dir string) {
	t.Helper()
	w, err := wal.Open(zap.NewNop(), filepath.Join(dir, "member", "wal"), &walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	_, state, all, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]
	put := last.Data // of the fill
	if err := w.Save(state, []*raftpb.Entry{
		{Index: new(last.GetIndex() + 1), Term: new(last.GetTerm()), Data: put},
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"rescue", "--from-data-dir=" + dir, "--output=/nowhere/x.db"}
	code, _, stderr := backupd(args...)
	for _, choice := range []string{"take", "drop"} {
		want := fmt.Sprintf("backupd rescue --uncommitted=%s --from-data-dir=%s --output=/nowhere/x.db", choice, dir)
		if code != exitRefused || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, want %q in\n%s", code, want, stderr)
		}
	}
}

// TestRescue_Histories: of survivors that may be of two histories each can be rescued alone.
func TestRescue_Histories(t *testing.T) {
	root, cmd := &cobra.Command{Use: "backupd"}, newRescueCommand(&app{})
	root.AddCommand(cmd)
	if err := cmd.ParseFlags([]string{"--from-data-dir=/a", "--from-data-dir=/b c", "--from-wal-dir=/v",
		"--from-wal-dir=/w", "--output=/x.db", "--uncommitted=take"}); err != nil {
		t.Fatal(err)
	}
	err := new(rescueOptions).explain(cmd, &rescue.HistoriesError{Why: "two", Folders: []rescue.Folder{
		{DataDir: "/a", WALDir: "/v"}, {DataDir: "/b c", WALDir: "/w"},
	}})
	if exitCode(err) != exitRefused {
		t.Errorf("%v: exit code %d", err, exitCode(err))
	}
	for _, want := range []string{
		"backupd rescue --from-data-dir=/a --from-wal-dir=/v", "'--from-data-dir=/b c' --from-wal-dir=/w",
	} {
		if got := hint(err); !strings.Contains(got, want) {
			t.Errorf("%q is not offered:\n%s", want, got)
		}
	}
}

func TestRescue_Usage(t *testing.T) {
	for _, args := range [][]string{
		{"--output=x"},
		{"--from-data-dir=/x"},
		{"--from-data-dir=/x", "--output="},
		{"--from-data-dir=", "--output=x"},
		{"--from-data-dir=/x", "--from-data-dir=/y", "--from-wal-dir=/w", "--output=x"},
		{"--from-data-dir=/x", "--output=x", "--uncommitted=maybe"},
		{"--from-data-dir=/x", "--output=x", "--uncommitted="},
		{"--from-data-dir=/x", "--output=x", "--name=m1"},
		{"--from-data-dir=/x", "--output=x", "--data-dir=/d"},
		{"--from-data-dir=/x", "--output=x", "--all-members"},
		{"--from-data-dir=/x", "--output=x", "--all-members", "--output-dir=/o", "--name=m1"},
		{"--from-data-dir=/x", "--output=x", "m1"},
	} {
		if code, stdout, stderr := backupd(append([]string{"rescue"}, args...)...); code != exitUsage || stdout != "" {
			t.Errorf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	code, _, stderr := backupd("rescue", "--from-data-dir="+t.TempDir(), "--dry-run")
	if code != exitNotFound || !strings.Contains(stderr, "member/snap has no database") {
		t.Errorf("an empty folder: exit code %d\n%s", code, stderr)
	}
}
