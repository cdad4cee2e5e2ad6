//go:build machine

package snapshot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_PendingOfOtherUser: another user may have planted a spool, or the
// file beside it. It is neither stored nor swept away.
func TestMachine_PendingOfOtherUser(t *testing.T) {
	testserver.Root(t)
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	s, folder := mem.New(), t.TempDir()
	spool := outage(t, keeper(t, url, s, folder)).Path
	for _, path := range []string{spool, strings.TrimSuffix(spool, ".spool") + ".pending.json"} {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if stored, err := keeper(t, url, s, folder).StorePending(t.Context()); len(stored) != 0 || err != nil {
			t.Errorf("%s: stored %v, %v", filepath.Base(path), stored, err)
		}
		if p := pending(t, folder); len(p) != 0 {
			t.Errorf("%s: listed %+v", filepath.Base(path), p)
		}
		if err := os.Chown(path, 0, 0); err != nil { // this fails if it was swept away
			t.Fatal(err)
		}
	}
	wantStored(t, s, folder, 1)
}

// TestMachine_Interop: the plain tools age and zstd, as Debian ships them, turn a
// stored object back into etcd's file.
func TestMachine_Interop(t *testing.T) {
	for _, tool := range []string{"age", "zstd"} {
		testserver.Tool(t, tool, tool)
	}
	testInterop(t, func(t *testing.T, object, key string, kind interop) []byte {
		script := map[interop]string{
			{zstd: true}: `zstd -q -d -c "$1"`, {zstd: true, age: true}: `age -d -i "$2" "$1" | zstd -q -d -c`,
			{age: true}: `age -d -i "$2" "$1"`, {}: `cat "$1"`,
		}[kind]
		return run(t, "bash", "-c", "set -o pipefail; "+script, "decode", object, key)
	})
}
