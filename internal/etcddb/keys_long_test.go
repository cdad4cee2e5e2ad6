//go:build long && linux

package etcddb_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestLongManyKeys inspects a database of 20 million small keys, with the memory that
// the hint promises to be enough, and with less. Then the child ends, and its parent says why.
func TestLongManyKeys(t *testing.T) {
	const keys = 20_000_000
	path := build(t, func(*bolt.Tx) {})
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true,
		FreelistType: bolt.FreelistMapType})
	must(t, err)
	for rev := int64(2); rev < keys+2; {
		must(t, db.Update(func(tx *bolt.Tx) error {
			for range 200_000 {
				put(tx, rev, 0, rev, 1, fmt.Sprintf("k%08d", rev), nil)
				rev++
			}
			return nil
		}))
	}
	must(t, db.Close())
	inspect := func(mib int) (string, error) { return inspectWith(t, path, mib) }
	const enough = "20000000 keys"
	for _, c := range []struct {
		mib  int
		want string
	}{{320, enough}, {200, "child process needs more memory than the 200 MiB"}} {
		if out, err := inspect(c.mib); !strings.Contains(out, c.want) || (err == nil) != (c.want == enough) {
			t.Errorf("with %d MiB: %v: %s, want %q", c.mib, err, out, c.want)
		}
	}
	// An inspection takes the most where each key was written after the compaction.
	editDatabase(t, path, func(tx *bolt.Tx) { store(tx, "meta", []byte("finishedCompactRev"), revisionKey(1, 0)) })
	if out, err := inspect(320); err != nil || !strings.Contains(out, enough) {
		t.Errorf("after a compaction, with 320 MiB: %v: %s", err, out)
	}
}

// inspectWith inspects a database in a process with so much memory. The stacks of threads, which a
// program with a C library has, count: they are small here.
func inspectWith(t *testing.T, path string, mib int) (string, error) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -s 1024 && ulimit -d "$1" && exec "$2"`, "sh",
		fmt.Sprint(mib<<10), os.Args[0])
	cmd.Env = append(os.Environ(), inspectEnv+"="+path)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestLongDeletedKeys: keys that were deleted last take no more memory than others.
func TestLongDeletedKeys(t *testing.T) {
	const keys = 7_000_000
	path := build(t, func(*bolt.Tx) {})
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true,
		FreelistType: bolt.FreelistMapType})
	must(t, err)
	for rev := int64(2); rev < 2*keys+2; {
		must(t, db.Update(func(tx *bolt.Tx) error {
			for range 200_000 {
				if rev < keys+2 {
					put(tx, rev, 0, rev, 1, fmt.Sprintf("k%08d", rev), nil)
				} else {
					tombstone(tx, rev, 0, fmt.Sprintf("k%08d", rev-keys))
				}
				rev++
			}
			return nil
		}))
	}
	must(t, db.Close())
	if out, err := inspectWith(t, path, 320); err != nil || !strings.Contains(out, "0 keys") {
		t.Errorf("with 320 MiB: %v: %s", err, out)
	}
}
