//go:build machine

package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// loopDisk is a small file system of its own, without blocks that only root may take.
func loopDisk(t *testing.T, mebibytes int64) string {
	t.Helper()
	testserver.Root(t)
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(mebibytes<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// writer overwrites a few large keys, and compacts, so that the database stays small and
// the write-ahead log grows.
type writer struct {
	*clientv3.Client
	n int
}

// write writes so many mebibytes, not faster than a busy cluster.
func (w *writer) write(ctx context.Context, mebibytes int) error {
	pace := time.NewTicker(25 * time.Millisecond)
	defer pace.Stop()
	for range mebibytes {
		<-pace.C
		w.n++
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		resp, err := w.Put(ctx, fmt.Sprint("key", w.n%40), strings.Repeat(backup.RandomName(16), 1<<16))
		if err == nil && w.n%20 == 0 {
			_, err = w.Compact(ctx, resp.Header.Revision)
		}
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// TestMachine_EtcdLives: etcd and the spool share a small file system, the store is away,
// and the cluster goes on writing. What waits gives way to the next segments of etcd's
// write-ahead log. Without the reserve the same writes end etcd.
func TestMachine_EtcdLives(t *testing.T) {
	for name, c := range map[string]struct {
		minFree string
		lives   bool
	}{"Reserve": {"150MiB", true}, "NoReserve": {"0B", false}} {
		t.Run(name, func(t *testing.T) {
			small := loopDisk(t, 780)
			h := newHouse(t)
			var log roomLog
			h.log = slog.NewTextHandler(&log, nil)
			// It would remove old segments twice a minute: the same writes have to need the same room.
			args := []string{"--data-dir=" + filepath.Join(small, "etcd"), "--max-wals=0"}
			h.etcd = testserver.StartCluster(t, testserver.Options{Args: args})
			h.configure("@yearly", "")
			h.edit("min-free: 0B", "min-free: "+c.minFree)
			h.must(os.Mkdir(filepath.Join(small, "spool"), 0o700))
			h.must(os.Remove(filepath.Join(h.dir, "spool")))
			h.must(os.Symlink(filepath.Join(small, "spool"), filepath.Join(h.dir, "spool")))

			w := &writer{Client: h.etcd.Client(t)}
			h.must(w.write(t.Context(), 80))
			d, _ := h.protected()
			h.away()
			for range 2 {
				h.must(w.write(t.Context(), 1))
				h.backup(d, server.JobFailed)
			}
			if len(h.pending()) != 2 {
				t.Fatalf("pending is %v", h.pending())
			}
			free := func() int64 {
				fs, err := disk.FileSystemOf(small)
				h.must(err)
				return fs.Free >> 20
			}
			before := free()
			err := w.write(t.Context(), 320)
			t.Logf("free before %d MiB, after %d MiB", before, free())
			full := func() bool { return strings.Contains(h.etcd.Members[0].Log(), "no space left on device") }
			if !c.lives {
				if err == nil { // the next segments had been made in advance
					err = w.write(t.Context(), 200)
				}
				if err == nil {
					t.Error("this proves nothing: all writes succeeded")
				}
				testserver.Eventually(t, "the disk is full for etcd", full) // its last words come late
				return
			}
			if err != nil || full() {
				t.Fatalf("writes ended with %v; the disk was full for etcd: %v", err, full())
			}
			if n := strings.Count(log.text(), "dropped a pending snapshot"); n != 2 || len(h.pending()) != 0 {
				t.Errorf("%d were dropped, pending %v", n, h.pending())
			}
			if got := h.backup(d, server.JobFailed); !strings.Contains(got.Error, "must stay free") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestMachine_EtcdLivesBesideRepository: etcd and the repository share a small file system.
// Snapshots are stored until one would take the reserve, and etcd goes on. Without the reserve
// the snapshots fill the disk, and the same writes end etcd.
func TestMachine_EtcdLivesBesideRepository(t *testing.T) {
	for name, c := range map[string]struct {
		options string // of the repository
		lives   bool
	}{"Default": {"", true}, "NoReserve": {", file: {min-free: 0B}", false}} {
		t.Run(name, func(t *testing.T) {
			small := loopDisk(t, 780)
			h := newHouse(t)
			h.etcd = testserver.StartCluster(t, testserver.Options{
				Args: []string{"--data-dir=" + filepath.Join(small, "etcd"), "--max-wals=0"},
			})
			h.must(os.RemoveAll(h.folder()))
			h.must(os.Mkdir(filepath.Join(small, "repository"), 0o700))
			h.must(os.Symlink(filepath.Join(small, "repository"), h.folder()))
			h.repo = fmt.Sprintf("{url: %q, compression: none%s}", "file://"+h.folder(), c.options)
			h.configure("@yearly", "")
			h.edit("keep-last: 3", "keep-last: 99")
			h.init("main")

			w := &writer{Client: h.etcd.Client(t)}
			h.must(w.write(t.Context(), 80))
			d, _ := h.protected()
			last := server.Job{State: server.JobSucceeded}
			for n := 0; n < 20 && last.State == server.JobSucceeded; n++ {
				h.must(w.write(t.Context(), 1))
				last = h.ended(d, h.ask(d).ID)
			}
			fs, err := disk.FileSystemOf(small)
			h.must(err)
			t.Logf("free %d MiB, the last backup: %s: %s", fs.Free>>20, last.State, last.Error)
			err = w.write(t.Context(), 80)
			full := strings.Contains(h.etcd.Members[0].Log(), "no space left on device")
			if !c.lives {
				if err == nil { // the next segment had been made in advance
					err = w.write(t.Context(), 200)
				}
				if err == nil || !strings.Contains(h.etcd.Members[0].Log(), "no space left on device") {
					t.Errorf("this proves nothing: writes ended with %v", err)
				}
				return
			}
			if err != nil || full {
				t.Fatalf("writes ended with %v; the disk was full for etcd: %v", err, full)
			}
			if !strings.Contains(last.Error, "256 MiB must stay free on the file system of the repository") {
				t.Errorf("got %+v", last)
			}
			if temps, err := filepath.Glob(filepath.Join(small, "repository", "*", "*", ".*.tmp")); len(temps) != 0 {
				t.Errorf("left %q, %v", temps, err)
			}
		})
	}
}
