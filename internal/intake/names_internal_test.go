package intake

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTakenAt: a time is taken from a name only if that tells it for certain, and from the file
// only if the name does not contradict it.
func TestTakenAt(t *testing.T) {
	const now, copied = "2026-11-30T12:00:00Z", "2026-11-30T11:00:00Z"
	for _, c := range []struct{ name, modified, want string }{
		// k3s, RKE2
		{"etcd-snapshot-node1-1764500400", copied, "name 2025-11-30T11:00:00Z"},
		{"on-demand-server-0-1764500400.zip", copied, "name 2025-11-30T11:00:00Z"},
		// RKE
		{"2020-10-15T14:53:26Z_etcd", copied, "name 2020-10-15T14:53:26Z"},
		{"rke_etcd_snapshot_2020-10-15T16:47:24+02:00", copied, "name 2020-10-15T14:47:24Z"},
		{"rke_etcd_snapshot_2020-10-15T16:47:24+02:00.zip", copied, "name 2020-10-15T14:47:24Z"},
		// etcd-backup-restore
		{"Full-00000000-00012345-1764500400.gz", copied, "name 2025-11-30T11:00:00Z"},
		{"Full-00000000-1764500400-1764500401.Z.final", copied, "name 2025-11-30T11:00:01Z"},
		{"Incr-00012346-00012399-1764500400.gz", copied, "refused: it holds the changes since"},
		// Talos, scripts, objects of a repository
		{"etcd-1764500400.snapshot", copied, "name 2025-11-30T11:00:00Z"},
		{"etcd-1764500400.db.gz", copied, "name 2025-11-30T11:00:00Z"},
		{"20251130T110000Z-k7q2xd.db.zst", copied, "name 2025-11-30T11:00:00Z"},
		{"20251130T110000Z-r12-k7q2xd.db", copied, "name 2025-11-30T11:00:00Z"},
		{"etcd-2025-11-30T11-00-00Z.db", copied, "name 2025-11-30T11:00:00Z"},
		{"etcd-20251130T130000+0200.db", copied, "name 2025-11-30T11:00:00Z"},
		// no zone: the file tells it, wherever the host was
		{"etcd-20251130-110000.db", "2025-11-30T11:00:07Z", "file 2025-11-30T11:00:07Z"},
		{"etcd-20251130-110000.db", "2025-11-30T01:00:07Z", "file 2025-11-30T01:00:07Z"}, // Hawaii's other side
		{"etcd-20251130-110000.db", "2025-11-30T22:00:07Z", "file 2025-11-30T22:00:07Z"},
		{"snapshot_2025.11.30.db", "2025-12-01T11:00:00Z", "file 2025-12-01T11:00:00Z"},
		{"etcd-20251130-110000.db", copied, "refused: its name has the date 2025-11-30 11:00:00"},
		{"backup-2025-11-30.db", copied, "refused: its name has the date 2025-11-30"},
		{"etcd_2025-11-30_11-00.db", "2025-12-02T11:00:00Z", "refused: its name has the date 2025-11-30 11:00:00"},
		// no time at all
		{"etcd.db", "2025-11-30T11:00:00Z", "file 2025-11-30T11:00:00Z"},
		{"snapshot-3.5.21.db", "2025-11-30T11:00:00Z", "file 2025-11-30T11:00:00Z"},
		{"db-192.168.201.104", "2025-11-30T11:00:00Z", "file 2025-11-30T11:00:00Z"},
		{"id-1764500400123", "2025-11-30T11:00:00Z", "file 2025-11-30T11:00:00Z"},
		{"etcd-2026113011.db", copied, "file 2026-11-30T11:00:00Z"}, // not the Unix time of 2034
		// numbers that are no zones
		{"etcd-20251130T110000-2000.db", "2025-11-30T12:00:00Z", "file 2025-11-30T12:00:00Z"},
		{"etcd-20251130T110000-0001.db", copied, "refused: its name has the date 2025-11-30 11:00:00"},
		{"etcd-20251130T110000+0545.db", copied, "name 2025-11-30T05:15:00Z"},
		// a date of a node is none of the snapshot
		{"etcd-snapshot-node-20240101-1764500400", copied, "name 2025-11-30T11:00:00Z"},
		{"etcd-2025-11-30-1764500400.db", copied, "name 2025-11-30T11:00:00Z"},
		// lies
		{"etcd-2025-12-24-1764500400.db", copied, "refused: its name tells more than one time"},
		{"2024-12-24-20251130T110000Z.db", copied, "refused: its name tells more than one time"},
		{"20251130T110000Z-1764500400", "2025-11-30T11:00:00Z", "name 2025-11-30T11:00:00Z"},
		{"20251130T110000Z-1764500401", "2025-11-30T11:00:00Z", "refused: its name tells more than one time"},
		{"etcd-snapshot-node1-1796050000", copied, "refused: by its time, 2026-11-30T14:46:40Z, it is from the future"},
		{"etcd.db", "2026-11-30T12:06:00Z", "refused: by its time, 2026-11-30T12:06:00Z, it is from the future"},
		{"etcd.db", "1970-01-01T00:00:00Z", "refused: by its time, 1970-01-01T00:00:00Z, it is older than etcd's"},
	} {
		got, err := TakenAt("/some/2019-01-01T00:00:00Z/"+c.name, at(t, c.modified), at(t, now))
		text := string(got.From) + " " + got.At.Format(time.RFC3339)
		if err != nil {
			text = err.Error()
			if !errors.As(err, new(*backup.RefusedError)) {
				t.Errorf("%s: %v is no refusal", c.name, err)
			}
		}
		if !strings.HasPrefix(text, c.want) {
			t.Errorf("%s, modified at %s: %s, want %s", c.name, c.modified, text, c.want)
		}
	}
}

func TestFormOf(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       form
	}{
		{"a", "\x00\x00\x00\x00\x00\x00\x00\x00", plain},
		{"a.gz", "\x00\x00\x00\x00", plain}, // a name proves nothing
		{"a", "\x1f\x8b\x08", gzipped},
		{"a", "\x28\xb5\x2f\xfd", zstd},
		{"a", "PK\x03\x04", zipped},
		{"a", "\x78\x9c\x01", zlibbed},
		{"a", "xylophone", plain},
		{"Full-00000000-00000009-1764500400.Z", "\x00\x80", lzwed},
		{"etcd.Z", "\x1f\x9d", plain},
		{"a", "", plain},
	} {
		if got := formOf(c.name, []byte(c.head)); got != c.want {
			t.Errorf("%s %q is %s, want %s", c.name, c.head, got, c.want)
		}
	}
}
