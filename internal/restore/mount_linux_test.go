//go:build machine

package restore_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const namespaceVariable = "BACKUPD_TEST_NAMESPACE"

// mayMount reports whether this process may mount file systems that no other
// process sees. If not, it has run the same test in a process that may, with
// root rights in a user namespace where it has none here.
func mayMount(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), namespaceVariable+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("with mounts of its own: %v\n%s", err, out)
	}
	return false
}

// mount makes dir a mount point of its own, of the same file system.
func mount(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// mountSmall makes dir a file system of that size.
func mountSmall(t testing.TB, dir string, megabytes int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// TestMachine_KilledOnMountPoints is TestExecute_KilledAtEveryStep where both
// folders are mount points.
func TestMachine_KilledOnMountPoints(t *testing.T) {
	if !mayMount(t) {
		return
	}
	f := newest(t)
	for _, before := range []string{"empty", "old"} {
		t.Run(before, func(t *testing.T) {
			testKilledAtEveryStep(t, f, 5, func(t *testing.T) *ground {
				g := newGround(t, f, t.TempDir(), before, true)
				mount(t, g.DataDir)
				mount(t, g.WALDir)
				must(t, os.Mkdir(filepath.Join(g.WALDir, "lost+found"), 0o700))
				return g
			})
		})
	}
}

// TestMachine_MountPoints boots what was restored to mount points.
func TestMachine_MountPoints(t *testing.T) {
	if !mayMount(t) {
		return
	}
	f := newest(t)
	for name, walDir := range map[string]string{
		"Data": "", "DataAndWAL": "../log", "WALInData": "log", "OnlyWAL": "../log",
	} {
		t.Run(name, func(t *testing.T) {
			g := &ground{root: t.TempDir()}
			g.job = job{DataDir: filepath.Join(g.root, "var lib/data"), Peer: testserver.FreeURL(t), Replace: true}
			if name != "OnlyWAL" {
				mountSmall(t, g.DataDir, 200)
			}
			if walDir != "" {
				g.WALDir = filepath.Join(g.DataDir, walDir)
				mountSmall(t, g.WALDir, 200)
			}
			for range 2 { // onto nothing, and onto the first one
				restoreFile(t, f.snapshot, g.request())
				if !g.isNew(t, f) {
					t.Error("the target is not the new one")
				}
				noLitter(t, g.root)
			}
			c := testserver.StartRestored(t, f.version, []testserver.RestoredMember{{
				Name: "m1", DataDir: g.DataDir, WALDir: g.WALDir, PeerURL: g.Peer, ClientURL: testserver.FreeURL(t),
			}})
			if got := liveHash(t, c, c.Client(t)); got != f.hash {
				t.Errorf("HashKV %+v, want %+v", got, f.hash)
			}
		})
	}
}

// TestMachine_RefusedMountPoints refuses what cannot be done on mount points.
func TestMachine_RefusedMountPoints(t *testing.T) {
	if !mayMount(t) {
		return
	}
	f := newest(t)
	t.Run("Nested", func(t *testing.T) {
		g := newGround(t, f, t.TempDir(), "old", false)
		mount(t, filepath.Join(g.DataDir, "member", "wal"))
		refuse(t, g.root, f, g.request(), "is a mount point in")
		req := g.request()
		req.WALDir = filepath.Join(g.DataDir, "member", "wal")
		refuse(t, g.root, f, req, "is a mount point in")
	})
	for _, name := range []string{"a", "z"} {
		t.Run("BesideWAL/"+name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), "old", false)
			g.WALDir = filepath.Join(g.DataDir, "log")
			mount(t, g.WALDir)
			mount(t, filepath.Join(g.DataDir, name))
			refuse(t, g.root, f, g.request(), name+" is a mount point in")
		})
	}
	t.Run("NoSpace", func(t *testing.T) {
		root := t.TempDir()
		mountSmall(t, root, 120)
		g := newGround(t, f, root, "old", false)
		err := refuse(t, root, f, g.request(), "bytes free, the restore needs")
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v is not ENOSPC", err)
		}
	})
	t.Run("NoSpaceForAll", func(t *testing.T) {
		root := t.TempDir()
		mountSmall(t, root, 200) // for one member it would do
		refuse(t, root, f, request{
			Site:    restore.Site{OutputDir: root},
			Request: restore.Request{InitialCluster: "a=http://10.0.0.1:1,b=http://10.0.0.2:1"},
		}, "bytes free")
	})
}

// TestMachine_DiskFull fills the file system once the plan was made.
func TestMachine_DiskFull(t *testing.T) {
	if !mayMount(t) {
		return
	}
	f := newest(t)
	for _, free := range []int{0, 1, 40, 64, 100, 128} {
		root := t.TempDir()
		mountSmall(t, root, 300)
		g := newGround(t, f, root, "old", false)
		req, src := g.request(), fromFile(t, f.snapshot)
		w, err := req.plan(t.Context(), src)
		must(t, err)
		filler := filepath.Join(root, "filler")
		fill(t, filler, free)
		before := identities(t, g.DataDir)
		err = req.execute(t.Context(), w, src)
		if free < 64 && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d MB free: %v, want ENOSPC", free, err)
		}
		if err != nil {
			same(t, fmt.Sprintf("%d MB free", free), identities(t, g.DataDir), before)
		} else if !g.isNew(t, f) {
			t.Errorf("%d MB free: no error and no restore", free)
		}
		noLitter(t, root)
		// With room again the same request succeeds.
		must(t, os.Remove(filler))
		if err != nil {
			restoreFile(t, f.snapshot, g.request())
		}
	}
}

// fill writes a file that leaves so many megabytes free.
func fill(t testing.TB, path string, free int) {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(filepath.Dir(path), &st))
	file, err := os.Create(path)
	must(t, err)
	must(t, unix.Fallocate(int(file.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-int64(free)<<20))
	must(t, file.Close())
}
