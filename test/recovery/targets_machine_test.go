//go:build machine

package recovery_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// lostHost is a host whose member is lost: a backup, a plan of it, and the member's addresses.
type lostHost struct {
	program, repo, plan string
	peer                string
	env                 []string
}

func machineProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backupd")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/backupd").CombinedOutput(); err != nil {
		t.Fatalf("build backupd: %v: %s", err, out)
	}
	return path
}

func newLostHost(t *testing.T) *lostHost {
	t.Helper()
	dir := t.TempDir()
	h := &lostHost{
		program: machineProgram(t), repo: "file://" + filepath.Join(dir, "repo"), plan: filepath.Join(dir, "plan.yaml"),
	}
	h.env = append(os.Environ(), "BACKUPD_CLUSTER=prod", "BACKUPD_SPOOL_MIN_FREE=0B", "BACKUPD_REPO="+h.repo)
	c := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Seed: 5})
	for _, args := range [][]string{
		{"init"}, {"backup", "--endpoints=" + c.Members[0].ClientURL}, {"plan", "latest", "--output=" + h.plan},
	} {
		if code, out := h.run(t, args...); code != 0 {
			t.Fatalf("backupd %q: exit code %d\n%s", args, code, out)
		}
	}
	h.peer = c.Members[0].PeerURL
	c.Members[0].Kill()
	return h
}

func (h *lostHost) run(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(h.program, args...)
	cmd.Env, cmd.Dir = h.env, "/"
	raw, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatalf("backupd %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(raw)
}

// target is where a member is restored to, in one of the ways to say so.
type target struct {
	*lostHost
	way             string
	root            string // of all that a restore may touch
	dataDir, walDir string
	file            string // of --from
}

// ways are flags alone, a plan, the operator's own file, and both.
var ways = []string{"flags", "from", "plan", "plan+from"}

// restore runs the command, with more flags.
func (g *target) restore(t *testing.T, more ...string) (code int, out string) {
	t.Helper()
	args := []string{"restore"}
	if strings.HasPrefix(g.way, "plan") {
		args = append(args, "--plan="+g.plan)
	} else {
		args = append(args, "latest", "--new")
	}
	if strings.HasSuffix(g.way, "from") {
		g.write(t)
		return g.run(t, append(append(args, "--from="+g.file), more...)...)
	}
	args = append(args, "--name=m1", "--data-dir="+g.dataDir)
	if g.walDir != "" {
		args = append(args, "--wal-dir="+g.walDir)
	}
	return g.run(t, append(args, more...)...)
}

// write makes the operator's file.
func (g *target) write(t *testing.T) {
	t.Helper()
	text := "name: m1\ndata-dir: " + g.dataDir + "\n"
	if g.walDir != "" {
		text += "wal-dir: " + g.walDir + "\n"
	}
	done(t, os.WriteFile(g.file, []byte(text), 0o600))
}

func (g *target) undo(t *testing.T, more ...string) (code int, out string) {
	t.Helper()
	args := []string{"restore", "--undo", "--data-dir=" + g.dataDir}
	if g.walDir != "" {
		args = append(args, "--wal-dir="+g.walDir)
	}
	return g.run(t, append(args, more...)...)
}

func done(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// old makes the data of a member, by a restore before, with a note in it that tells it from
// what is restored later.
func (g *target) old(t *testing.T) {
	t.Helper()
	if code, out := g.restore(t); code != 0 {
		t.Fatalf("the data before: exit code %d\n%s", code, out)
	}
	done(t, os.WriteFile(filepath.Join(g.dataDir, "member", "old"), []byte("old"), 0o600))
}

// tree is all that is below a folder: what each entry is, whose, and which.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	done(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		own := st.Sys().(*syscall.Stat_t)
		out[path] = fmt.Sprintf("%v %d:%d %d", st.Mode(), own.Uid, own.Gid, own.Ino)
		return nil
	}))
	return out
}

// unchanged fails unless the command, also as a dry run, ends with that code and those words
// and leaves everything as it is.
func (g *target) unchanged(t *testing.T, want int, words string, more ...string) {
	t.Helper()
	before := tree(t, g.root)
	for _, more := range [][]string{slices.Concat(more, []string{"--dry-run"}), more} {
		code, out := g.restore(t, more...)
		if code != want || !strings.Contains(out, words) {
			t.Errorf("%q: exit code %d, want %d with %q\n%s", more, code, want, words, out)
		}
		if after := tree(t, g.root); !maps.Equal(after, before) {
			t.Errorf("%q has changed\n%v\nto\n%v", more, before, after)
		}
	}
}

// succeeds fails unless the command restores the member, and leaves nothing that it built with.
func (g *target) succeeds(t *testing.T, more ...string) (out string) {
	t.Helper()
	before := tree(t, g.root)
	if code, out := g.restore(t, append(more, "--dry-run")...); code != 0 || !maps.Equal(tree(t, g.root), before) {
		t.Errorf("a dry run: exit code %d\n%s", code, out)
	}
	code, out := g.restore(t, more...)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	g.check(t, false)
	return out
}

// check fails unless the old, or else the restored data is in place.
func (g *target) check(t *testing.T, old bool) {
	t.Helper()
	_, err := os.Stat(filepath.Join(g.dataDir, "member", "old"))
	if (err == nil) != old {
		t.Errorf("is the old data in place: %v, want it: %v", err, old)
	}
	wal := filepath.Join(g.dataDir, "member", "wal")
	if g.walDir != "" {
		wal = g.walDir
	}
	if found, _ := filepath.Glob(filepath.Join(wal, "*.wal")); len(found) == 0 {
		t.Errorf("no WAL in %s", wal)
	}
	for path := range tree(t, g.root) {
		if strings.Contains(filepath.Base(path), ".backupd-restore") {
			t.Errorf("%s is left", path)
		}
	}
}

// boots starts the member and reads from it.
func (g *target) boots(t *testing.T) {
	t.Helper()
	c := testserver.StartRestored(t, "3.7", []testserver.RestoredMember{{
		Name: "m1", DataDir: g.dataDir, WALDir: g.walDir, PeerURL: g.peer, ClientURL: testserver.FreeURL(t),
	}})
	if resp, err := c.Client(t).Get(t.Context(), "\x00"); err != nil || resp.Header.Revision < 2 {
		t.Errorf("read: %v, %v", resp, err)
	}
	c.Members[0].Kill()
}

// eachWay runs a case for each way to name the target, on a ground of its own.
func eachWay(t *testing.T, h *lostHost, name string, run func(t *testing.T, g *target)) {
	t.Helper()
	for _, way := range ways {
		t.Run(name+"/"+way, func(t *testing.T) {
			dir := t.TempDir()
			root := filepath.Join(dir, "disk")
			done(t, os.Mkdir(root, 0o755))
			run(t, &target{
				lostHost: h, way: way, root: root, dataDir: filepath.Join(root, "lib", "etcd"),
				file: filepath.Join(dir, "etcd.yaml"),
			})
		})
	}
}

// TestMachine_Targets restores to every kind of hostile target with the program that is shipped:
// by flags, by a plan, and by the operator's own file. What is refused has changed nothing; what
// succeeds can be undone.
func TestMachine_Targets(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	h := newLostHost(t)
	for name, run := range map[string]func(*testing.T, *target){
		"Old": overOld, "Running": overRunning, "Strays": overStrays, "ManyStrays": overManyStrays,
		"LostAndFound": overLostAndFound, "Mount": overMount, "WALMount": overWALMount, "Both": overBoth,
		"WALInData": overWALInData, "Nested": overNested, "ReadOnly": overReadOnly, "Space": overSpace,
		"Owner": overOwner, "File": overFile, "Disks": overDisks,
	} {
		eachWay(t, h, name, run)
	}
}

// overOld: data of a member is moved only if that is asked for, and comes back.
func overOld(t *testing.T, g *target) {
	g.old(t)
	g.unchanged(t, 6, "--replace")
	g.succeeds(t, "--replace")
	g.putBack(t)
}

// putBack undoes a restore, and then finds the old data in place.
func (g *target) putBack(t *testing.T) {
	t.Helper()
	before := tree(t, g.root)
	if code, out := g.undo(t, "--dry-run"); code != 0 || !maps.Equal(tree(t, g.root), before) {
		t.Errorf("a dry run of the undo: exit code %d\n%s", code, out)
	}
	code, out := g.undo(t)
	if code != 0 || !strings.Contains(out, "The restored data is in ") {
		t.Fatalf("undo: exit code %d\n%s", code, out)
	}
	g.check(t, true)
	if code, out := g.undo(t); code != 5 {
		t.Errorf("a second undo: exit code %d\n%s", code, out)
	}
}

// overRunning: an etcd runs on the folder.
func overRunning(t *testing.T, g *target) {
	c := testserver.StartCluster(t, testserver.Options{Name: "other"})
	g.dataDir = c.Members[0].DataDir
	g.root = filepath.Join(filepath.Dir(g.dataDir), "none") // that one changes itself
	done(t, os.MkdirAll(g.root, 0o700))
	for _, more := range [][]string{nil, {"--replace"}, {"--replace", "--allow-running"}} {
		g.unchanged(t, 6, "a running process holds", more...)
	}
	if code, out := g.undo(t); code == 0 {
		t.Errorf("undo under a running server: %s", out)
	}
	if !c.Members[0].Running() {
		t.Error("it runs no more")
	}
	if _, err := c.Client(t).Put(t.Context(), "a", "b"); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(g.dataDir), "*.backupd-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// overStrays: up to five files that are not etcd's are moved with the data, and named.
func overStrays(t *testing.T, g *target) {
	g.old(t)
	names := []string{"README", "peer.crt", "peer.key", "run.sh", "certs"}
	for _, name := range names[:4] {
		done(t, os.WriteFile(filepath.Join(g.dataDir, name), []byte(name), 0o600))
	}
	done(t, os.Mkdir(filepath.Join(g.dataDir, names[4]), 0o700))
	g.unchanged(t, 6, "not empty")
	out := g.succeeds(t, "--replace")
	said := regexp.MustCompile(`(?m)^There is also what is not etcd's: (.*)$`).FindStringSubmatch(out)
	olds, err := filepath.Glob(g.dataDir + ".backupd-old-*")
	if err != nil || len(olds) != 1 || said == nil {
		t.Fatalf("old data in %q, %v\n%s", olds, err, out)
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(olds[0], name)); err != nil || !strings.Contains(said[1], name) {
			t.Errorf("%s: %v, named: %s", name, err, said[1])
		}
	}
	g.putBack(t)
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(g.dataDir, name)); err != nil {
			t.Error(err)
		}
	}
}

// overManyStrays: with more than five it is most likely the wrong folder.
func overManyStrays(t *testing.T, g *target) {
	g.old(t)
	for i := range 6 {
		done(t, os.WriteFile(filepath.Join(g.dataDir, fmt.Sprintf("file%d", i)), nil, 0o600))
	}
	g.unchanged(t, 6, "it has more than etcd puts there: file0", "--replace")
}

// overLostAndFound: a folder with nothing but what the file system puts there is empty.
func overLostAndFound(t *testing.T, g *target) {
	testserver.MountOnto(t, g.dataDir)
	done(t, os.Mkdir(filepath.Join(g.dataDir, "lost+found"), 0o700))
	g.old(t)
	g.unchanged(t, 6, "--replace")
	out := g.succeeds(t, "--replace")
	g.stays(t, g.dataDir)
	if strings.Contains(out, "lost+found") {
		t.Errorf("it is named\n%s", out)
	}
	g.putBack(t)
	g.stays(t, g.dataDir)
}

func (g *target) stays(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "lost+found")); err != nil {
		t.Error(err)
	}
}

// mountDisk makes a file system of its own, as it is after its format.
func mountDisk(t *testing.T, dir string, megabytes int) {
	t.Helper()
	testserver.MountSmall(t, dir, megabytes)
	done(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
}

// overMount: the data directory is a mount point.
func overMount(t *testing.T, g *target) {
	mountDisk(t, g.dataDir, 500)
	g.throughMounts(t)
}

// throughMounts restores twice to what is mounted, undoes the second, and boots each.
func (g *target) throughMounts(t *testing.T) {
	t.Helper()
	g.old(t)
	g.unchanged(t, 6, "--replace")
	g.succeeds(t, "--replace")
	if g.way == "from" {
		g.boots(t)
	}
	g.putBack(t)
	if g.way == "plan" {
		g.boots(t)
	}
}

// overWALMount: only the WAL directory is a mount point.
func overWALMount(t *testing.T, g *target) {
	g.walDir = filepath.Join(g.root, "wal")
	mountDisk(t, g.walDir, 500)
	g.throughMounts(t)
	g.stays(t, g.walDir)
	// Without it half a member would come back.
	g.succeeds(t, "--replace")
	wal := g.walDir
	g.walDir = ""
	before := tree(t, g.root)
	if code, out := g.undo(t); code != 6 || !maps.Equal(tree(t, g.root), before) {
		t.Errorf("an undo without --wal-dir: exit code %d\n%s", code, out)
	}
	g.walDir = wal
}

// overBoth: each is a disk of its own.
func overBoth(t *testing.T, g *target) {
	g.walDir = filepath.Join(g.root, "wal")
	mountDisk(t, g.dataDir, 200)
	mountDisk(t, g.walDir, 500)
	g.throughMounts(t)
	g.stays(t, g.dataDir)
	g.stays(t, g.walDir)
}

// overDisks: real file systems on loop devices, as mkfs leaves them.
func overDisks(t *testing.T, g *target) {
	g.walDir = filepath.Join(g.root, "wal")
	mkfs, mount := testserver.Tool(t, "mkfs.ext4", "e2fsprogs"), testserver.Tool(t, "mount", "mount")
	for _, dir := range []string{g.dataDir, g.walDir} {
		image := filepath.Join(filepath.Dir(g.file), filepath.Base(dir)+".img")
		done(t, os.WriteFile(image, nil, 0o600))
		done(t, os.Truncate(image, 600<<20))
		done(t, os.MkdirAll(dir, 0o700))
		for _, words := range [][]string{{mkfs, "-q", image}, {mount, "-o", "loop", image, dir}} {
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", words, err, out)
			}
		}
		t.Cleanup(func() { done(t, unix.Unmount(dir, 0)) })
	}
	g.throughMounts(t)
	g.stays(t, g.dataDir)
	g.stays(t, g.walDir)
}

// overWALInData: the WAL's disk is mounted in the data directory, which is one, too.
func overWALInData(t *testing.T, g *target) {
	g.walDir = filepath.Join(g.dataDir, "wal")
	mountDisk(t, g.dataDir, 200)
	mountDisk(t, g.walDir, 500)
	g.throughMounts(t)
	g.stays(t, g.walDir)
}

// overNested: a mount point that would have to be moved.
func overNested(t *testing.T, g *target) {
	g.old(t)
	testserver.MountOnto(t, filepath.Join(g.dataDir, "member", "snap"))
	g.unchanged(t, 6, "is a mount point in", "--replace")
}

// overReadOnly: nothing can be written, and that is said before anything is fetched.
func overReadOnly(t *testing.T, g *target) {
	testserver.MountSmall(t, g.root, 300)
	g.old(t)
	done(t, unix.Mount("", g.root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	g.unchanged(t, 1, "read-only file system", "--replace")
	g.unchanged(t, 1, "Hint: mount that file system for writing, or name another folder")
	if code, out := g.undo(t); code == 0 {
		t.Errorf("undo: %s", out)
	}
	done(t, unix.Mount("", g.root, "", unix.MS_REMOUNT, ""))
	g.succeeds(t, "--replace")
}

var needs = regexp.MustCompile(`([0-9]+) bytes free, the restore needs (?:about )?([0-9]+)`)

// overSpace: the disk has 60 % of what is needed.
func overSpace(t *testing.T, g *target) {
	testserver.MountSmall(t, g.root, 1)
	_, out := g.restore(t, "--dry-run")
	said := needs.FindStringSubmatch(out)
	if said == nil {
		t.Fatalf("how much is needed is not said\n%s", out)
	}
	need, err := strconv.Atoi(said[2])
	done(t, err)
	size := func(bytes int) {
		done(t, unix.Mount("", g.root, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", bytes)))
	}
	size(need * 6 / 10)
	g.unchanged(t, 1, "the restore needs")
	size(need + need/10)
	g.succeeds(t)
	done(t, os.WriteFile(filepath.Join(g.dataDir, "member", "old"), nil, 0o600))
	var fs unix.Statfs_t
	done(t, unix.Statfs(g.root, &fs))
	used := int(fs.Blocks-fs.Bfree) * int(fs.Bsize) // by the old data, which stays
	size(used + need*6/10)
	g.unchanged(t, 1, "the restore needs", "--replace")
	g.check(t, true)
	size(used + need + need/10)
	g.succeeds(t, "--replace")
	g.putBack(t)
}

// overOwner: the data belongs to whom it belonged to, or to whom the operator names; and one who
// cannot give it away is told before.
func overOwner(t *testing.T, g *target) {
	g.old(t)
	for path := range tree(t, g.dataDir) {
		done(t, os.Lchown(path, 1234, 1235))
	}
	g.succeeds(t, "--replace")
	g.belongs(t, "1234:1235")
	g.putBack(t)
	g.belongs(t, "1234:1235")
	g.succeeds(t, "--replace", "--chown=4321:4322")
	g.belongs(t, "4321:4322")
	if g.way == "from" || g.way == "plan+from" { // a unit says whose it is
		unit := fmt.Sprintf("[Service]\nUser=nobody\nExecStart=/usr/bin/etcd --name m1 --data-dir %s\n", g.dataDir)
		g.file = filepath.Join(filepath.Dir(g.file), "etcd.service")
		done(t, os.WriteFile(g.file, []byte(unit), 0o600))
		args := []string{"restore", "latest", "--new", "--replace", "--from=" + g.file}
		if g.way == "plan+from" {
			args = []string{"restore", "--plan=" + g.plan, "--replace", "--from=" + g.file}
		}
		if code, out := g.run(t, args...); code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		g.belongs(t, "65534:65534")
	}
}

func (g *target) belongs(t *testing.T, owner string) {
	t.Helper()
	for path, what := range tree(t, g.dataDir) {
		if !strings.Contains(what, " "+owner+" ") {
			t.Errorf("%s is %s, want owner %s", path, what, owner)
		}
	}
}

// overFile: a file has the name of the folder.
func overFile(t *testing.T, g *target) {
	done(t, os.MkdirAll(filepath.Dir(g.dataDir), 0o700))
	done(t, os.WriteFile(g.dataDir, []byte("x"), 0o600))
	g.unchanged(t, 1, "is not a directory", "--replace")
}
