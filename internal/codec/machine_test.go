//go:build machine

package codec_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_Frames: the plain tools, as Debian ships them, read an object of several frames, and
// zstd finds nothing wrong with its checksums.
func TestMachine_Frames(t *testing.T) {
	for _, tool := range []string{"age", "zstd"} {
		testserver.Tool(t, tool, tool)
	}
	id, key := identity(t)
	plain := sample(3*frameBytes + 77)
	for script, o := range map[string]codec.Options{
		`zstd -t -q "$1" && zstd -d -q -c "$1"`: {Compress: codec.Zstd},
		`age -d -i "$2" "$1" | zstd -d -q -c`: {
			Compress: codec.Zstd, Recipients: mustRecipients(t, id.Recipient().String()),
		},
	} {
		stored, _ := encode(t, plain, o)
		name := filepath.Join(t.TempDir(), "object")
		if err := os.WriteFile(name, stored, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("bash", "-c", "set -eo pipefail; "+script, "decode", name, key)
		cmd.Stderr = os.Stderr
		got, err := cmd.Output()
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: got %d bytes, %v", script, len(got), err)
		}
	}
}
