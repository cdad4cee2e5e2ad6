//go:build long

package recovery_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// TestLongRestore_Killed kills the real program with -9 at any moment of a restore by a plan and
// by the file that starts etcd, into no folder, an empty one and one with old data. The folder is
// what it was, what the plan makes, or closed to every server; and the same command finishes.
func TestLongRestore_Killed(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 300, Seed: 7, Compact: true})
	s := &secured{program: replaceProgram(t), Cluster: source, env: environment(t)}
	m, plan := source.Members[0], filepath.Join(t.TempDir(), "plan.yaml")
	s.run(t, "init")
	s.run(t, "backup", "--endpoints="+m.Endpoint)
	s.run(t, "plan", "latest", "--output="+plan)
	m.Kill()

	began := time.Now()
	want := newVictim(t, s, plan, "new")
	want.run(t, nil)
	whole := time.Since(began)
	made := files(t, want.data)
	if len(made) < 3 {
		t.Fatalf("the plan makes %v", made)
	}
	killed, seen := 0, map[string]int{}
	for i := 0; killed < rounds.Of(100); i++ {
		v := newVictim(t, s, plan, []string{"new", "empty", "old"}[i%3])
		state := ""
		for state != "done" && !t.Failed() && v.run(t, v.moment(whole)) {
			state = v.state(t, made)
			killed++
			seen[state]++
		}
		if got := files(t, v.data); !reflect.DeepEqual(got, made) {
			t.Errorf("finished: %v, want %v", got, made)
		}
		v.noLitter(t, state == "done")
		if t.Failed() {
			t.Fatalf("host %d, with %s", i, v.before)
		}
	}
	t.Logf("a restore took %v; killed %d times: %v", whole, killed, seen)
	if killed >= 50 && (seen["old"] == 0 || seen["closed"]+seen["new"]+seen["done"] == 0) {
		t.Errorf("it was never killed before folders are moved, or never after: %v", seen)
	}
}

// victim is a host on which a restore is killed.
type victim struct {
	before     string // what is there: nothing, an empty folder, old data
	data, etcd string // the folder, and the file that starts etcd
	old        map[string]string
	program    string
	args, env  []string
}

func newVictim(t *testing.T, s *secured, plan, before string) *victim {
	t.Helper()
	root, m := t.TempDir(), s.Members[0]
	v := &victim{before: before, data: filepath.Join(root, "etcd"), etcd: filepath.Join(root, "etcd.conf"),
		program: s.program, env: s.env}
	conf := fmt.Sprintf("ETCD_NAME=%s\nETCD_DATA_DIR=%s\nETCD_INITIAL_ADVERTISE_PEER_URLS=%s\n", m.Name, v.data, m.PeerURL)
	conf += fmt.Sprintf("ETCD_INITIAL_CLUSTER=%s=%s\n", m.Name, m.PeerURL)
	if err := os.WriteFile(v.etcd, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	v.args = []string{"restore", "--plan=" + plan, "--from=" + v.etcd}
	switch before {
	case "empty":
		if err := os.Mkdir(v.data, 0o700); err != nil {
			t.Fatal(err)
		}
	case "old":
		if err := os.CopyFS(v.data, os.DirFS(m.DataDir)); err != nil {
			t.Fatal(err)
		}
		v.args = append(v.args, "--replace")
	}
	v.old = files(t, v.data)
	return v
}

// moment returns a wait for the moment of a kill: after some time, or when the new data is there
// and folders are about to be moved, which takes a small part of a restore.
func (v *victim) moment(whole time.Duration) func(ended *atomic.Bool) {
	if rand.N(2) == 0 {
		return func(*atomic.Bool) { time.Sleep(rand.N(whole + whole/2)) }
	}
	return func(ended *atomic.Bool) {
		for ; !ended.Load(); time.Sleep(100 * time.Microsecond) {
			if len(v.journals()) > 0 {
				time.Sleep(rand.N(whole / 20))
				return
			}
		}
	}
}

// journals returns the records of folders that are moved. Without one a restore is done, or it
// begins anew.
func (v *victim) journals() []string {
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(v.data), "*.backupd-restore*", "journal.json"))
	return found
}

// run runs the restore, and reports whether it was killed after the wait. nil kills nothing.
func (v *victim) run(t *testing.T, wait func(ended *atomic.Bool)) (killed bool) {
	t.Helper()
	cmd := exec.Command(v.program, v.args...)
	cmd.Env, cmd.Dir = v.env, t.TempDir()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	if wait != nil {
		go func() {
			wait(&ended)
			_ = cmd.Process.Kill() // it may have ended
		}()
	}
	err := cmd.Wait()
	ended.Store(true)
	killed = cmd.ProcessState.ExitCode() == -1
	if err != nil && !killed {
		t.Fatalf("%q: %v\n%s", v.args, err, &out)
	}
	return killed
}

// state says what is in the folder after a kill, and fails the test if it is nothing whole.
func (v *victim) state(t *testing.T, made map[string]string) string {
	t.Helper()
	for _, path := range []string{v.data, filepath.Join(v.data, "member")} {
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			return "closed"
		}
	}
	switch got := files(t, v.data); {
	case reflect.DeepEqual(got, made) && len(v.journals()) == 0:
		return "done"
	case reflect.DeepEqual(got, made):
		return "new"
	case reflect.DeepEqual(got, v.old):
		return "old"
	default:
		t.Errorf("neither the old data nor the new: %v", got)
		return "torn"
	}
}

// noLitter fails unless the old data is beside the new, whole, and nothing else is, but for what the
// killed program did not come to remove when all was done.
func (v *victim) noLitter(t *testing.T, killed bool) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(v.data))
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(filepath.Dir(v.data), e.Name())
		switch {
		case path == v.data, path == v.etcd, killed && strings.HasPrefix(e.Name(), ".etcd.backupd-restore"):
		case strings.HasPrefix(e.Name(), "etcd.backupd-old-"):
			kept = files(t, path)
		default:
			t.Errorf("%s is left", path)
		}
	}
	if v.before == "old" && !reflect.DeepEqual(kept, v.old) {
		t.Errorf("kept is %v, and it was %v", kept, v.old)
	}
}

// files returns the hashes of all files that a server would find in a folder. That of a database
// is of what it holds: its pages are never twice in the same order.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".backupd-"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		name, hash := strings.TrimPrefix(path, dir), sha256.New()
		if d.Name() == "db" {
			err = readAll(path, hash)
		} else {
			var raw []byte
			raw, err = os.ReadFile(path)
			hash.Write(raw)
		}
		out[name] = fmt.Sprintf("%x", hash.Sum(nil)[:8])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readAll writes all keys and values of a database.
func readAll(path string, to io.Writer) error {
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				_, err := fmt.Fprintf(to, "%q %q %q\n", name, k, v)
				return err
			})
		})
	})
}
