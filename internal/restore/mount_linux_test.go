//go:build machine

package restore_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_KilledOnMountPoints is TestExecute_KilledAtEveryStep where both
// folders are mount points.
func TestMachine_KilledOnMountPoints(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	for _, before := range []string{"empty", "old"} {
		t.Run(before, func(t *testing.T) {
			testKilledAtEveryStep(t, f, 5, func(t *testing.T) *ground {
				g := newGround(t, f, t.TempDir(), before, true)
				testserver.MountOnto(t, g.DataDir)
				testserver.MountOnto(t, g.WALDir)
				must(t, os.Mkdir(filepath.Join(g.WALDir, "lost+found"), 0o700))
				return g
			})
		})
	}
}

// TestMachine_MountPoints boots what was restored to mount points.
func TestMachine_MountPoints(t *testing.T) {
	if !testserver.MayMount(t) {
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
				testserver.MountSmall(t, g.DataDir, 200)
			}
			if walDir != "" {
				g.WALDir = filepath.Join(g.DataDir, walDir)
				testserver.MountSmall(t, g.WALDir, 200)
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
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	t.Run("Nested", func(t *testing.T) {
		g := newGround(t, f, t.TempDir(), "old", false)
		testserver.MountOnto(t, filepath.Join(g.DataDir, "member", "wal"))
		refuse(t, g.root, f, g.request(), "is a mount point in")
		req := g.request()
		req.WALDir = filepath.Join(g.DataDir, "member", "wal")
		refuse(t, g.root, f, req, "is a mount point in")
	})
	for _, name := range []string{"a", "z"} {
		t.Run("BesideWAL/"+name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), "old", false)
			g.WALDir = filepath.Join(g.DataDir, "log")
			testserver.MountOnto(t, g.WALDir)
			testserver.MountOnto(t, filepath.Join(g.DataDir, name))
			refuse(t, g.root, f, g.request(), name+" is a mount point in")
		})
	}
	t.Run("NoSpace", func(t *testing.T) {
		root := t.TempDir()
		testserver.MountSmall(t, root, 120)
		g := newGround(t, f, root, "old", false)
		err := refuse(t, root, f, g.request(), "bytes free, the restore needs")
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v is not ENOSPC", err)
		}
	})
	t.Run("NoSpaceForAll", func(t *testing.T) {
		root := t.TempDir()
		testserver.MountSmall(t, root, 200) // for one member it would do
		refuse(t, root, f, request{
			Site:    restore.Site{OutputDir: root},
			Request: restore.Request{InitialCluster: "a=http://10.0.0.1:1,b=http://10.0.0.2:1"},
		}, "bytes free")
	})
}

// TestMachine_KeptElsewhere mounts a part of a repository at another place: no name of the
// one is in the name of the other.
func TestMachine_KeptElsewhere(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	root := t.TempDir()
	repo, other := filepath.Join(root, "repo"), filepath.Join(root, "other")
	for _, dir := range []string{filepath.Join(repo, "prod", "data"), other, filepath.Join(root, "whole")} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	for dir, from := range map[string]string{other: filepath.Join(repo, "prod"), filepath.Join(root, "whole"): repo} {
		must(t, unix.Mount(from, dir, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	for dir, relation := range map[string]string{
		other: "lies in", filepath.Join(other, "data"): "lies in", filepath.Join(other, "new"): "lies in",
		filepath.Join(root, "whole"): "is",
	} {
		req := newGround(t, f, t.TempDir(), "new", false).request()
		req.DataDir, req.Replace = dir, true
		req.Kept = []inuse.Kept{{What: "the repository", Path: repo}}
		refuse(t, root, f, req, relation+" the repository")
	}
	req := newGround(t, f, t.TempDir(), "new", false).request()
	req.DataDir, req.Replace = repo, true
	req.Kept = []inuse.Kept{{What: "the repository", Path: other}}
	refuse(t, root, f, req, "contains the repository")
}

// TestMachine_LowerLayer restores over data of a container's image. No folder of it can be
// renamed, which is found before anything is moved.
func TestMachine_LowerLayer(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	root := t.TempDir()
	testserver.MountSmall(t, root, 600) // an overlay cannot lie on another one
	dir := func(name string) string {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(path, 0o700))
		return path
	}
	merged := dir("merged")
	newGround(t, f, dir("lower"), "old", true)
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=off", dir("lower"), dir("upper"), dir("work"))
	must(t, unix.Mount("overlay", merged, "overlay", 0, layers))
	t.Cleanup(func() { must(t, unix.Unmount(merged, unix.MNT_DETACH)) })

	g := &ground{root: merged, job: job{
		DataDir: filepath.Join(merged, "data"), WALDir: filepath.Join(merged, "log"), Peer: "http://10.0.0.1:2380",
		Replace: true,
	}}
	before := contents(t, merged)
	src, req := fromFile(t, f.snapshot), g.request()
	w, err := req.plan(t.Context(), src)
	must(t, err)
	for what, err := range map[string]error{
		"tried": w.Try(t.Context(), src), "executed": req.execute(t.Context(), w, src),
	} {
		if !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), "cannot be moved aside") {
			t.Errorf("over a lower layer, %s: %v", what, err)
		}
	}
	if restore.CanAbort(req.Site) || restore.CheckInterrupted(req.Site) != nil {
		t.Error("it was begun all the same")
	}
	same(t, "after it failed", contents(t, merged), before)
	// As the hint says: mv copies.
	for _, dir := range g.dirs() {
		out, err := exec.CommandContext(t.Context(), "mv", dir, dir+".old").CombinedOutput()
		if err != nil {
			t.Fatalf("mv: %v\n%s", err, out)
		}
	}
	g.Replace = false
	restoreFile(t, f.snapshot, g.request())
	if !g.isNew(t, f) {
		t.Error("the target is not the new one")
	}
	noLitter(t, merged)
}

// TestMachine_TryReadOnly finds in a dry run that nothing can be written.
func TestMachine_TryReadOnly(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	root := t.TempDir()
	testserver.MountSmall(t, root, 300)
	src := fromFile(t, f.snapshot)
	for name, prepare := range map[string]func() *ground{
		"New": func() *ground { return newGround(t, f, filepath.Join(root, "not", "there"), "new", true) },
		"Old": func() *ground { return newGround(t, f, root, "old", false) },
		"Mounted": func() *ground {
			must(t, os.RemoveAll(filepath.Join(root, "data"))) // of the others
			g := newGround(t, f, root, "new", false)
			g.DataDir, g.Replace = root, true
			must(t, os.MkdirAll(filepath.Join(root, "member"), 0o700))
			return g
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := prepare().request()
			w, err := req.plan(t.Context(), src)
			must(t, err)
			before := contents(t, root)
			must(t, w.Try(t.Context(), src))
			same(t, "after a try", contents(t, root), before)
			must(t, unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			defer func() { must(t, unix.Mount("", root, "", unix.MS_REMOUNT, "")) }()
			if err := w.Try(t.Context(), src); !errors.Is(err, unix.EROFS) {
				t.Errorf("on a file system that is read-only: %v", err)
			}
		})
	}
}

// TestMachine_DiskFull fills the file system once the plan was made.
func TestMachine_DiskFull(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	for _, free := range []int{0, 1, 40, 64, 100, 128} {
		root := t.TempDir()
		testserver.MountSmall(t, root, 300)
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

// TestMachine_NoInodes: a file system without inodes is found before anything is built.
func TestMachine_NoInodes(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	f := newest(t)
	root := t.TempDir()
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=400m,nr_inodes=24"))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	g := newGround(t, f, root, "old", false)
	before := identities(t, g.DataDir)
	req, src := g.request(), fromFile(t, f.snapshot)
	if w, err := req.plan(t.Context(), src); err == nil {
		err = req.execute(t.Context(), w, src)
		t.Errorf("it was planned; executed: %v", err)
	} else if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "inodes") {
		t.Error(err)
	}
	same(t, "the folder", identities(t, g.DataDir), before)
	noLitter(t, root)
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
