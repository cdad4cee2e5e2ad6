package restore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestFill_Length: the space of the database is allocated before it comes, so the
// length of the file does not tell that a source has ended early.
func TestFill_Length(t *testing.T) {
	const size = 1 << 20
	for bytesMore, want := range map[int]error{
		0: nil, -1: backup.ErrCorrupt, 1: backup.ErrCorrupt, -restore.TrailerBytes: backup.ErrCorrupt,
		-size / 2: backup.ErrCorrupt,
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "db"))
		must(t, err)
		content := bytes.Repeat([]byte("x"), size+restore.TrailerBytes+bytesMore)
		for way, source := range map[string]io.Reader{
			"read": iotest.HalfReader(bytes.NewReader(content)), "written": bytes.NewReader(content),
		} {
			must(t, f.Truncate(0))
			if err := restore.Fill(t.Context(), f, source, size, restore.TrailerBytes); !errors.Is(err, want) {
				t.Errorf("%d bytes more than promised, %s: got %v, want %v", bytesMore, way, err, want)
			}
			written, err := os.ReadFile(f.Name())
			if must(t, err); want == nil && !bytes.Equal(written, content[:size]) {
				t.Errorf("%s: the file is not the database", way)
			}
		}
		must(t, f.Close())
	}
}
