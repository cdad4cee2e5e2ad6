package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestCreate_Shared: where the folder's group may write, the group can use everything that
// is made below it, whatever the umask is. Elsewhere the owner alone can.
func TestCreate_Shared(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	for mode, want := range map[fs.FileMode]struct{ file, folder fs.FileMode }{
		0o700:                 {0o600, 0o700},
		0o755:                 {0o600, 0o700},
		0o777 | fs.ModeSticky: {0o600, 0o700},
		0o770:                 {0o660, 0o770 | fs.ModeSetgid},
		0o775 | fs.ModeSetgid: {0o660, 0o770 | fs.ModeSetgid},
		0o770 | fs.ModeSetgid: {0o660, 0o770 | fs.ModeSetgid},
		0o777 | fs.ModeSetgid: {0o600, 0o700 | fs.ModeSetgid}, // of Linux: a folder inherits it
		0o750:                 {0o600, 0o700},
	} {
		t.Run(mode.String(), func(t *testing.T) {
			s := New(t.TempDir())
			if err := os.Chmod(s.root, mode); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for _, key := range []string{"c1/data/x", "c1/data/y", "c1/marks/x", "z"} {
				wg.Go(func() {
					if err := s.Create(t.Context(), key, strings.NewReader("value")); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for path, want := range map[string]fs.FileMode{
				"c1": want.folder | fs.ModeDir, "c1/data": want.folder | fs.ModeDir, "c1/data/x": want.file,
				"c1/marks/x": want.file, "z": want.file,
			} {
				info, err := os.Lstat(filepath.Join(s.root, path))
				if err != nil || info.Mode() != want {
					t.Errorf("%s: got %v, want %v, %v", path, info.Mode(), want, err)
				}
			}
			if left := files(t, s.root); len(left) != 4 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestSweep_Folders: a folder that a crash has left without its name goes too, if it is
// empty.
func TestSweep_Folders(t *testing.T) {
	s := New(t.TempDir())
	empty, full := filepath.Join(s.root, tempName()), filepath.Join(s.root, tempName())
	if err := errors.Join(os.Mkdir(empty, 0o700), os.MkdirAll(filepath.Join(full, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * sweepAge)
	if err := errors.Join(os.Chtimes(empty, long, long), os.Chtimes(full, long, long)); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "x", strings.NewReader("value")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(full); err != nil {
		t.Error(err)
	}
}

// TestExplain: an error of missing permission says what mends it.
func TestExplain(t *testing.T) {
	s := New("/backups")
	var hint *backup.HintError
	if err := explain(s.root, syscall.EACCES); !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, "chown -R --reference=/backups /backups") {
		t.Errorf("got %v", err)
	}
	if err := explain(s.root, syscall.EIO); err != syscall.EIO {
		t.Errorf("got %v", err)
	}
}
